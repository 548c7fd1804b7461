# shellcheck shell=bash
# One table of cases for every web server. A script 7N-SERVER is no more than this:
#
#   . "$(dirname "$0")/lib.sh"
#   . "$e2e/servers.sh"
#   . "$e2e/servers/SERVER"
#   table
#
# The adapter, servers/SERVER, is sourced last. It starts the real server with the very files of
# deploy/SERVER; paths and ports of the test come from the small local file (or the environment)
# that the deploy file reads. It may use what lib.sh has, and sets when it is sourced:
#
#   server          its name, as in deploy/ and docs/servers/
#   server_socket   where the server asks: $dir/run/$server.sock, or 127.0.0.1:PORT
#   server_listen   the YAML of the daemon's listener, one entry of `listen:`, indented by two and
#                   ending without a line end:  server_listen="  - unix: $server_socket
#                   ...more keys, indented by four"; without repeat_id
#   server_repeat_id  the parameter for `repeat_id`, default empty; the table adds it to the listener
#   server_port     plain HTTP/1.1 on 127.0.0.1
#   server_tls_port HTTPS with HTTP/2, with $dir/tls.crt and $dir/tls.key
#   server_patience the time limit of the auth hop in seconds: 5, or what is fixed in the server
#   server_errors   statuses it may answer when the authorizer fails; default "500 502 503 504"
#   server_asks_index, server_asks_ssi   how often it asks for one request of /secure/ (an index) and
#                   of /secure/page.shtml; default 1. More need server_repeat_id
#
# and defines
#
#   server_start    starts the server in the background, adds to `pids`, waits for both ports. Once.
#                   Everything it writes lies below $dir/$server.
#   server_check    the server's own configuration test, on the configuration that server_start
#                   wrote; its status tells
#   server_log      prints the last line of the access log; only literal paths below $dir/$server
#                   in it (79-together keeps the function and starts the next server)
#   server_shows_long_token   only with `cannot token_12k` or `cannot token_60k`: its status tells
#                   whether the server's log says that a token was too long
#
# and for each cell that this server cannot do:  cannot WORD "a sentence that says why"
#
#   WORD            what the table leaves out
#   tls             HTTPS; the port is not used then
#   h2              HTTP/2 over TLS
#   h2c             HTTP/2 with prior knowledge on the plain port
#   h2_upload       a body over HTTP/2
#   ssi             /secure/page.shtml, which includes /secure/part.html
#   index           page.html as the index of /secure/
#   rewrite         /moved/X, rewritten inside the server to /secure/X
#   error_page      for /secure/own/ a page of its own with a 401: the file /denied.html
#   path_info       /secure/env.cgi/extra runs /secure/env.cgi with PATH_INFO=/extra
#   status_403      a 403 of the daemon reaches the client as 403 (else: as 401)
#   late_401        a client that still sends its body when it is refused always sees the 401
#   answer_body     the daemon's body reaches the client with a 401
#   no_store        a 401 has Cache-Control: no-store
#   mutual_403      the mutual token reaches the client with 403, too
#   odd_spellings   X.Remote.User, X~Remote~User: signs other than - and _ in forged headers
#   token_12k, token_60k   Authorization values of that size
#   user_log        the user in the access log (the audit id must be there)
#
# What the table has made before server_start:
#
#   $dir/www        /index.html /denied.html /public.shtml /env.cgi,
#                   /secure/{page.html,env.cgi,page.shtml,part.html,own/page.html};
#                   env.cgi is executable and begins with #!/bin/sh
#   $backend_port   /secure/app and /app (and what follows them) are proxied to it, unchanged; it also
#                   serves the .html files of $dir/www, for servers that only proxy
#   $backend_socket a unix socket: FastCGI responder that prints its parameters like env.cgi, for
#                   servers without CGI; needs no SCRIPT_FILENAME
#   $dir/tls.crt, $dir/tls.key   for $host
#
# The protected location is /secure: everything that is /secure or begins with /secure/. The daemon
# does not run yet when the server starts; whatever serves $server_socket changes while it runs.
# A program finds the user in REMOTE_USER (and AUTH_TYPE=Negotiate), the backend in X-Remote-User;
# neither sees the ticket (Authorization). The access log has the user and audit=<chain>-<seq>.

server_patience=5
server_repeat_id=
server_errors="500 502 503 504"
declare -A cannot_because=() cannot_said=()
. "$e2e/cases.sh"

# cannot WORD REASON: the table leaves this cell out, and says why.
cannot() {
    cannot_because[$1]=$2
}

# can WORD: whether the table may ask for it.
can() {
    [ -n "${cannot_because[$1]:-}" ] || return 0
    [ -n "${cannot_said[$1]:-}" ] || skip "$server, $1: ${cannot_because[$1]}"
    cannot_said[$1]=yes
    return 1
}

# ---- the table

# table [CASE...]: all cases against the server whose adapter was sourced, and its own ones.
table() {
    local own
    table_prepare
    server_start
    server_use
    case_config
    case_broken_answers
    table_config "$(listener)"
    spnegate_start
    case_basics
    case_variables
    case_mutual
    case_sizes
    case_methods
    case_users_in_turn
    case_many_users
    case_forged
    case_paths
    case_asked_again
    for own in "$@"; do
        "$own"
    done
    case_down
    spnegate_stop
}

# ---- what is there before the server

table_prepare() {
    local user
    realm_up
    # Twenty more users, whom the KDC need not know: their tickets are sealed here.
    for user in user{01..20}; do
        ticketseal -k "$dir/http.keytab" -c "FILE:$dir/$user.ccache" -u "$user@$realm"
    done
    site_make
    certificate_make
    install -d -m 755 "$dir/run"
    backend_port=$(port_free)
    backend_socket=$dir/backend.sock
    "$e2e/tools/backend" "$backend_port" "$backend_socket" "$dir/www" >"$dir/backend.log" 2>&1 &
    pids+=($!)
    wait_for 10 port_open "$backend_port" || fail "the backend did not start"
}

site_make() {
    install -d "$dir/www/secure"
    install -m 666 /dev/null "$dir/mark" # programs leave a line when they are started at all
    printf 'public\n' >"$dir/www/index.html"
    printf 'please sign in\n' >"$dir/www/denied.html"
    printf 'the protected file\n' >"$dir/www/secure/page.html"
    printf 'the protected part\n' >"$dir/www/secure/part.html"
    install -D "$dir/www/secure/page.html" "$dir/www/secure/own/page.html"
    printf '<!--#include virtual="/secure/part.html" -->\n' >"$dir/www/public.shtml"
    cp "$dir/www/public.shtml" "$dir/www/secure/page.shtml"
    cat >"$dir/www/secure/env.cgi" <<END
#!/bin/sh
echo started >>"$dir/mark"
printf 'Content-Type: text/plain\r\n\r\n'
env | sort
END
    chmod 755 "$dir/www/secure/env.cgi"
    cp "$dir/www/secure/env.cgi" "$dir/www/env.cgi"
}

certificate_make() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
        -subj "/CN=$host" -addext "subjectAltName=DNS:$host" \
        -keyout "$dir/tls.key" -out "$dir/tls.crt" >"$dir/openssl.out" 2>&1 ||
        fail "no certificate: $(cat "$dir/openssl.out")"
    chmod 644 "$dir/tls.key" # it lives for a minute; servers read it as several users
}

# table_config LISTENER...: $dir/spnegate.yaml with these listeners.
table_config() {
    local users
    users=$(printf ", user%s@$realm" {01..20})
    config_write
    {
        printf 'user: nobody\nlisten:\n'
        printf '%s\n' "$@"
        sed -n '/^runtime_dir/,$p' "$dir/spnegate.yaml" | sed "s/\(principal: \[.*\)\]/\1$users]/"
    } >"$dir/table.yaml"
    mv "$dir/table.yaml" "$dir/spnegate.yaml"
}

# listener: server_listen, with repeat_id where the server has a parameter for it.
listener() {
    printf '%s' "$server_listen"
    [ -z "$server_repeat_id" ] || printf '\n    repeat_id: %s' "$server_repeat_id"
}

# server_use: from here on ask, header and gssclient speak with this server.
server_use() {
    lighttpd_port=$server_port
    web=http://$host:$server_port
}

# ask_tls [CURL-OPTION...] PATH: like ask.
ask_tls() {
    local lighttpd_port=$server_tls_port web=https://$host:$server_tls_port
    ask --cacert "$dir/tls.crt" "$@"
}

# ask_apart WORD [CURL-OPTION...] PATH: asks in the background. asked_apart WORD waits for it: the
# status is in $status ("closed" if the server closed), header and body are where ask puts them.
declare -A apart=()

ask_apart() {
    local word=$1
    shift
    mkdir -p "$dir/apart.$word"
    (
        dir=$dir/apart.$word
        ask --max-time $((server_patience + 30)) "$@" >"$dir/status" || printf 'closed' >"$dir/status"
    ) 2>"$dir/apart.$word/error" &
    apart[$word]=$!
}

asked_apart() {
    wait "${apart[$1]}" || true
    cp "$dir/apart.$1/head" "$dir/apart.$1/body" "$dir/"
    status=$(cat "$dir/apart.$1/status")
    # curl's time limit is the longer one: who reaches it asked a server that has none.
    check_lacks "$server, $1: the server has a time limit" "timed out" "$(cat "$dir/apart.$1/error")"
}

# token_of USER: a fresh token, base64.
token_of() {
    [ -e "$dir/$1.ccache" ] || realm_kinit "$1" "$1$1" "$dir/$1.ccache"
    gssclient -p -c "FILE:$dir/$1.ccache"
}

# never_served WHAT: nothing of what is protected is in the last answer.
never_served() {
    check_lacks "$1: the file" "the protected" "$(cat "$dir/body")"
    check_lacks "$1: the program" "SCRIPT_NAME" "$(cat "$dir/body")"
    check_lacks "$1: the backend" "method:" "$(cat "$dir/body")"
}

# not_success WHAT STATUS: refused, in whatever way.
not_success() {
    checks=$((checks + 1))
    [[ $2 != 2* ]] || fail "$1: status $2"
    never_served "$1"
}

# failed_closed WHAT STATUS: an error, of those that the server has for it, and nothing served.
failed_closed() {
    checks=$((checks + 1))
    [[ " $server_errors " = *" $2 "* ]] || fail "$1: status $2 is none of: $server_errors"
    never_served "$1"
}

# reached: how many requests have reached programs and backends.
reached() {
    local marks
    marks=$(wc -l <"$dir/mark")
    printf '%d' $((marks + $(grep -cE 'HTTP/|FCGI' "$dir/backend.log" || true)))
}

signed_in() {
    [ "$(ask_as alice /secure/page.html)" = 200 ]
}

# denied: the status of what the daemon answers with 403.
denied() {
    if [ -z "${cannot_because[status_403]:-}" ]; then echo 403; else echo 401; fi
}

