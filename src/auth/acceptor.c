#include "auth/acceptor.h"

#include "auth/acceptor_keys.h"

#include <errno.h>
#include <gssapi/gssapi_krb5.h>
#include <krb5.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SKEW_MAX_S = 86400 };

static int compare_services(const void *a, const void *b)
{
    return strcmp(((const struct service *)a)->principal, ((const struct service *)b)->principal);
}

static int compare_principal(const void *principal, const void *service)
{
    return strcmp(principal, ((const struct service *)service)->principal);
}

struct service *acceptor_find(const struct acceptor *acceptor, const char *principal)
{
    if (acceptor->count == 0) {
        return NULL;
    }
    return bsearch(principal, acceptor->services, acceptor->count, sizeof *acceptor->services,
                   compare_principal);
}

/* Adds one key to its service's keytab in memory, and to what we look up ourselves. */
static krb5_error_code add_key(struct acceptor *acceptor, const struct keytab_key *key,
                               struct service *service)
{
    krb5_keytab_entry entry;
    memset(&entry, 0, sizeof entry);
    krb5_error_code code = krb5_parse_name(acceptor->context, key->principal, &entry.principal);
    if (code != 0) {
        return code;
    }
    struct key_entry *own = &service->keys[service->key_count];
    entry.vno = (krb5_kvno)key->kvno;
    entry.timestamp = key->timestamp_s;
    code = krb5_keyblock_init(acceptor->context, key->enctype, key->key, key->key_len,
                              &entry.keyblock);
    if (code == 0) {
        code = krb5_copy_keyblock_contents(acceptor->context, &entry.keyblock, &own->block);
        if (code == 0) {
            own->kvno = key->kvno;
            own->enctype = key->enctype;
            service->key_count++; /* from here on close_service wipes it */
            code = krb5_kt_add_entry(acceptor->context, service->keytab, &entry);
        }
        krb5_free_keyblock_contents(acceptor->context, &entry.keyblock);
    }
    krb5_free_principal(acceptor->context, entry.principal);
    if (code == 0 && service->kvno_newest < key->kvno) {
        service->kvno_newest = key->kvno;
    }
    return code;
}

static krb5_error_code import_credential(struct acceptor *acceptor, struct service *service)
{
    krb5_principal principal = NULL;
    krb5_error_code code = krb5_parse_name(acceptor->context, service->principal, &principal);
    if (code != 0) {
        return code;
    }
    OM_uint32 minor = 0;
    const OM_uint32 major =
        gss_krb5_import_cred(&minor, NULL, principal, service->keytab, &service->credential);
    krb5_free_principal(acceptor->context, principal);
    return major == GSS_S_COMPLETE ? 0 : (minor != 0 ? (krb5_error_code)minor : EINVAL);
}

/* Makes one service of all its keys in the keytab; 0, or libkrb5's code when none of them can be
 * used. */
static krb5_error_code open_service(struct acceptor *acceptor, const struct keytab *keytab,
                                    const char *principal)
{
    static _Atomic unsigned long serial;
    struct service *service = &acceptor->services[acceptor->count];
    *service = (struct service){.credential = GSS_C_NO_CREDENTIAL};
    acceptor->count++; /* from here on acceptor_close clears it */
    char label[64];
    (void)snprintf(label, sizeof label, "MEMORY:spnegate-%lu", atomic_fetch_add(&serial, 1));
    service->principal = strdup(principal);
    service->keys = calloc(keytab->count, sizeof *service->keys);
    if (service->principal == NULL || service->keys == NULL) {
        return ENOMEM;
    }
    krb5_error_code code = krb5_kt_resolve(acceptor->context, label, &service->keytab);
    krb5_error_code refused = 0;
    for (size_t i = 0; i < keytab->count && code == 0; i++) {
        if (strcmp(keytab->keys[i].principal, principal) == 0) {
            const krb5_error_code one = add_key(acceptor, &keytab->keys[i], service);
            code = one == ENOMEM ? one : 0;
            refused = one != 0 ? one : refused;
        }
    }
    if (code == 0 && service->key_count == 0) {
        code = refused;
    }
    return code == 0 ? import_credential(acceptor, service) : code;
}

static void close_service(struct acceptor *acceptor, struct service *service)
{
    OM_uint32 minor = 0;
    (void)gss_release_cred(&minor, &service->credential);
    if (service->keytab != NULL) {
        (void)krb5_kt_close(acceptor->context, service->keytab);
    }
    for (size_t i = 0; i < service->key_count; i++) {
        krb5_free_keyblock_contents(acceptor->context, &service->keys[i].block);
    }
    free(service->principal);
    free(service->keys);
    *service = (struct service){0};
}

/* A service that cannot be used at all (its enctypes are unknown here) is left out, unless it is
 * the last. */
static int open_services(struct acceptor *acceptor, const struct keytab *keytab, const char *where,
                         struct fault *fault)
{
    krb5_error_code last = 0;
    for (size_t i = 0; i < keytab->count; i++) {
        const char *principal = keytab->keys[i].principal;
        bool seen = false;
        for (size_t j = 0; j < acceptor->count && !seen; j++) {
            seen = strcmp(acceptor->services[j].principal, principal) == 0;
        }
        if (seen) {
            continue;
        }
        const krb5_error_code code = open_service(acceptor, keytab, principal);
        if (code == ENOMEM) {
            return fault_set(fault, where, "no memory for the keytab's keys");
        }
        if (code != 0) {
            last = code;
            acceptor->count--;
            close_service(acceptor, &acceptor->services[acceptor->count]);
        }
    }
    if (acceptor->count == 0) {
        const char *text = krb5_get_error_message(acceptor->context, last);
        (void)fault_set(fault, where, "libkrb5 can use none of the keytab's keys: %s", text);
        krb5_free_error_message(acceptor->context, text);
        return -1;
    }
    return 0;
}

int acceptor_open(const struct keytab *keytab, const struct acceptor_options *options,
                  struct acceptor **out, struct fault *fault)
{
    const char *where = options->where;
    struct acceptor *acceptor = calloc(1, sizeof *acceptor);
    if (acceptor == NULL) {
        return fault_set(fault, where, "no memory");
    }
    acceptor->options = *options;
    const krb5_error_code code = krb5_init_context(&acceptor->context);
    if (code != 0) {
        acceptor->context = NULL;
        (void)fault_set(fault, "krb5.conf", "libkrb5 cannot start (error %d): look at krb5.conf",
                        (int)code);
        goto out;
    }
    acceptor->count = 0;
    acceptor->services = calloc(keytab->count, sizeof *acceptor->services);
    if (acceptor->services == NULL) {
        (void)fault_set(fault, where, "no memory");
        goto out;
    }
    if (open_services(acceptor, keytab, where, fault) != 0) {
        goto out;
    }
    qsort(acceptor->services, acceptor->count, sizeof *acceptor->services, compare_services);
    *out = acceptor;
    return 0;
out:
    acceptor_close(acceptor);
    return -1;
}

void acceptor_close(struct acceptor *acceptor)
{
    if (acceptor == NULL) {
        return;
    }
    for (size_t i = 0; i < acceptor->count; i++) {
        close_service(acceptor, &acceptor->services[i]);
    }
    free(acceptor->services);
    if (acceptor->context != NULL) {
        krb5_free_context(acceptor->context);
    }
    free(acceptor);
}

/*
 * An AP-REQ without content: refused, but only after libkrb5 has made the calling thread's context.
 */
static int warm(struct fault *fault)
{
    unsigned char empty[] = {0x6e, 0x00};
    gss_buffer_desc input = {sizeof empty, empty};
    gss_buffer_desc output = GSS_C_EMPTY_BUFFER;
    gss_ctx_id_t context = GSS_C_NO_CONTEXT;
    OM_uint32 minor = 0;
    const OM_uint32 major =
        gss_accept_sec_context(&minor, &context, GSS_C_NO_CREDENTIAL, &input,
                               GSS_C_NO_CHANNEL_BINDINGS, NULL, NULL, &output, NULL, NULL, NULL);
    OM_uint32 ignored = 0;
    (void)gss_release_buffer(&ignored, &output);
    (void)gss_delete_sec_context(&ignored, &context, GSS_C_NO_BUFFER);
    return major == GSS_S_COMPLETE ? fault_set(fault, "libgssapi", "it accepted an empty token")
                                   : 0;
}

int acceptor_thread_open(struct acceptor_thread **out, struct fault *fault)
{
    struct acceptor_thread *thread = calloc(1, sizeof *thread);
    if (thread == NULL || krb5_init_context(&thread->context) != 0) {
        free(thread);
        return fault_set(fault, "krb5.conf", "libkrb5 cannot start in a request thread");
    }
    if (warm(fault) != 0) {
        acceptor_thread_close(thread);
        return -1;
    }
    *out = thread;
    return 0;
}

krb5_crypto acceptor_ready_key(struct acceptor_thread *thread, const struct key_entry *key)
{
    for (size_t i = 0; i < READY_KEYS; i++) {
        if (thread->ready[i].key == key) {
            return thread->ready[i].crypto;
        }
    }
    struct ready_key *ready = &thread->ready[thread->next];
    krb5_crypto crypto = NULL;
    if (krb5_crypto_init(thread->context, &key->block, 0, &crypto) != 0) {
        return NULL;
    }
    if (ready->key != NULL) {
        krb5_crypto_destroy(thread->context, ready->crypto);
    }
    *ready = (struct ready_key){key, crypto};
    thread->next = (thread->next + 1) % READY_KEYS;
    return crypto;
}

void acceptor_forget_keys(struct acceptor_thread *thread)
{
    for (size_t i = 0; i < READY_KEYS; i++) {
        if (thread->ready[i].key != NULL) {
            krb5_crypto_destroy(thread->context, thread->ready[i].crypto);
        }
        thread->ready[i] = (struct ready_key){NULL, NULL};
    }
}

void acceptor_thread_close(struct acceptor_thread *thread)
{
    if (thread != NULL) {
        acceptor_forget_keys(thread);
        krb5_free_context(thread->context);
        free(thread);
    }
}

int acceptor_skew_s(uint32_t *skew_s, struct fault *fault)
{
    krb5_context context = NULL;
    if (krb5_init_context(&context) != 0) {
        return fault_set(fault, "krb5.conf", "libkrb5 cannot start: look at krb5.conf");
    }
    const time_t skew = krb5_get_max_time_skew(context);
    krb5_free_context(context);
    if (skew < 0 || skew > SKEW_MAX_S) {
        return fault_set(fault, "krb5.conf",
                         "clockskew = %lld is out of range, 0 to %d seconds: every token must be "
                         "remembered for twice that",
                         (long long)skew, SKEW_MAX_S);
    }
    *skew_s = (uint32_t)skew;
    return 0;
}

const char *acceptor_version(void)
{
    return heimdal_version;
}
