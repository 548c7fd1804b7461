# shellcheck shell=bash
# What every end-to-end test starts with: . "$(dirname "$0")/lib.sh"
#
# One temporary directory, one private realm, the real daemon, the real lighttpd with the
# configuration that is shipped; everything on loopback, stopped by process id when the test ends.
#
# From the environment: SPNEGATE (the binary), TOOLS (directory of gssclient and ticketseal),
# HEIMDAL (where Heimdal's programs are unpacked).

set -euo pipefail

e2e=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$e2e/../.." && pwd)
spnegate=${SPNEGATE:-$root/build/dev/src/cmd/spnegate}
tools=${TOOLS:-$root/build/dev/tests/e2e}
heimdal=${HEIMDAL:-$root/build/heimdal}
. "$root/deploy/realm"

export LC_ALL=C
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:exitcode=99
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
unset KRB5CCNAME KRB5_KTNAME SPNEGATE_CONFIG http_proxy https_proxy all_proxy || true

dir=$(mktemp -d "${TMPDIR:-/tmp}/spnegate-e2e.XXXXXX")
chmod 755 "$dir"
pids=()
checks=0
daemon=
host=www.example.test

# ---- saying how it went

# fail TEXT: the test has failed; the logs are shown.
fail() {
    local file
    printf 'FAIL: %s\n' "$1" >&2
    for file in "$dir"/*.log; do
        [ -s "$file" ] || continue
        printf '%s\n' "--- ${file##*/}" >&2
        tail -n 40 "$file" >&2
    done
    exit 1
}

# skip TEXT: one part of the test cannot run on this machine.
skip() {
    printf 'skipped: %s\n' "$1"
}

# check_equal WHAT EXPECTED ACTUAL
check_equal() {
    checks=$((checks + 1))
    [ "$2" = "$3" ] || fail "$1: expected '$2', got '$3'"
}

# check_contains WHAT PART TEXT
check_contains() {
    checks=$((checks + 1))
    case $3 in
    *"$2"*) ;;
    *) fail "$1: '$2' is not in:
$3" ;;
    esac
}

# check_lacks WHAT PART TEXT
check_lacks() {
    checks=$((checks + 1))
    case $3 in
    *"$2"*) fail "$1: '$2' must not be in:
$3" ;;
    esac
}

# check_file WHAT EXPECTED-FILE ACTUAL-FILE: the same bytes.
check_file() {
    checks=$((checks + 1))
    cmp -s "$2" "$3" || fail "$1: expected
$(cat -A "$2")
got
$(cat -A "$3")"
}

# ---- clean-up

ended() {
    [ ! -e "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null
}

# end_pid PID: SIGTERM, and SIGKILL when it does not heed it. Only a child of ours: the number of one
# that has ended may be another process's by now.
end_pid() {
    grep -q "^PPid:[[:space:]]*$$\$" "/proc/$1/status" 2>/dev/null || return 0
    kill -CONT "$1" 2>/dev/null || return 0
    kill -TERM "$1" 2>/dev/null || return 0
    wait_for 20 ended "$1" || kill -KILL "$1" 2>/dev/null || true
}

sanitizer_check() {
    if grep -qE 'Sanitizer|runtime error:' "$dir"/spnegate*.log 2>/dev/null; then
        printf 'FAIL: a sanitizer spoke up\n' >&2
        grep -hE -A 40 'Sanitizer|runtime error:' "$dir"/spnegate*.log | head -n 120 >&2
        return 1
    fi
}

# audit_lines_valid: every record of every trail that the test wrote is of docs/audit.schema.json.
audit_lines_valid() {
    local trails
    mapfile -t trails < <(find "$dir" -type f -name 'audit*.jsonl*' ! -name '*.gz')
    [ "${#trails[@]}" = 0 ] || "$e2e/tools/auditlines" "${trails[@]}" >"$dir/auditlines.out" 2>&1 || {
        printf 'FAIL: a record is not of the schema\n' >&2
        cat "$dir/auditlines.out" >&2
        return 1
    }
}

cleanup() {
    local status=$? pid
    trap - EXIT
    set +e
    spnegate_stop || status=1
    for pid in "${pids[@]}"; do
        end_pid "$pid"
    done
    sanitizer_check || status=1
    audit_lines_valid || status=1
    at_end
    rm -rf "$dir"
    if [ "$status" = 0 ]; then
        printf 'ok: %d checks\n' "$checks"
    fi
    exit "$status"
}

# at_end: a test may define its own, for what it mounted.
at_end() { :; }

trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# ---- the realm

# realm_up: a realm with alice, bob and carol (password: their name twice) and http.keytab.
realm_up() {
    local user
    realm_make "$dir/realm"
    for user in alice bob carol; do
        realm_user "$user" "$user$user"
    done
    realm_service "HTTP/$host" "$dir/http.keytab"
    chmod 644 "$dir/http.keytab" # of a realm that lives for seconds; the daemon reads it as nobody
    realm_start || fail "the KDC did not start: $(cat "$dir/realm/kdc.out")"
    pids+=("$realm_pid")
}

# kinit_as USER: from here on, clients are this user.
kinit_as() {
    export KRB5CCNAME=FILE:$dir/$1.ccache
    [ -e "$dir/$1.ccache" ] || realm_kinit "$1" "$1$1" "$dir/$1.ccache"
}

# ---- the daemon

have_landlock() {
    python3 -IS -c 'import ctypes, sys; sys.exit(ctypes.CDLL(None).syscall(444, None, 0, 1) < 1)'
}

# sandbox: as it ships, unless the daemon is built with sanitizers, which trace themselves at the end
# and read what the sandbox keeps from everybody, or this kernel cannot do it.
sandbox() {
    if grep -q __asan_init "$spnegate"; then
        echo off
    elif have_landlock; then
        echo required
    else
        echo best-effort
    fi
}

# config_write: $dir/spnegate.yaml; a test may append to its one site, or edit it.
config_write() {
    cat >"$dir/spnegate.yaml" <<END
user: nobody
listen:
  - unix: $dir/run/spnegate.sock
    mode: "0660"
    group: www-data
runtime_dir: $dir/run
state_dir: $dir/state
workers: 2
threads: 4
sandbox: $(sandbox)
audit: {file: $dir/audit/audit.jsonl, failures: {rate: 1000000, burst: 1000000}}
sites:
  - name: intranet
    hosts: [$host]
    keytab: $dir/http.keytab
    user: {realms: {$realm: strip}}
    allow:
      - principal: [alice@$realm, carol@$realm]
END
}

spnegate_start() {
    [ -x "$spnegate" ] || fail "there is no $spnegate"
    install -d -m 755 "$dir/run"
    install -d -m 700 -o nobody -g nogroup "$dir/state"
    install -d -m 755 -o nobody -g nogroup "$dir/audit"
    local before
    before=$(grep -cw ready "$dir/spnegate.log" 2>/dev/null || true)
    "$spnegate" serve -c "$dir/spnegate.yaml" >>"$dir/spnegate.log" 2>&1 &
    daemon=$!
    wait_for 20 log_grew "${before:-0}" ready || fail "spnegate did not become ready"
}

# log_grew COUNT WORD: more than COUNT lines of the daemon's log have the word.
log_grew() {
    if [ -n "$daemon" ] && ! kill -0 "$daemon" 2>/dev/null; then
        fail "spnegate ended while it was waited for"
    fi
    local count
    count=$(grep -cw -- "$2" "$dir/spnegate.log" 2>/dev/null || true)
    [ "${count:-0}" -gt "$1" ]
}

# spnegate_stop: SIGTERM drains; the exit status must be 0.
spnegate_stop() {
    local status=0 pid=$daemon
    [ -n "$pid" ] || return 0
    daemon=
    end_pid "$pid"
    wait "$pid" || status=$?
    if [ "$status" != 0 ]; then
        printf 'FAIL: spnegate ended with status %d\n' "$status" >&2
        tail -n 40 "$dir/spnegate.log" >&2
        return 1
    fi
}

# spnegate_reload: SIGHUP, and a new generation that is ready.
spnegate_reload() {
    local before
    before=$(grep -cw ready "$dir/spnegate.log" || true)
    kill -HUP "$daemon"
    wait_for 20 log_grew "$before" ready || fail "no new generation became ready"
}

# spnegate_workers: the process ids of its workers.
spnegate_workers() {
    cat "/proc/$daemon/task/$daemon/children"
}

# ---- the web server

# backend_start: the proxied backend; its port is in backend_port.
backend_start() {
    backend_port=$(port_free)
    "$e2e/tools/backend" "$backend_port" >"$dir/backend.log" 2>&1 &
    pids+=($!)
    wait_for 10 port_open "$backend_port" || fail "the backend did not start"
}

have_ipv6() {
    python3 -IS -c 'import socket; socket.socket(socket.AF_INET6).bind(("::1", 0))' 2>/dev/null
}

# lighttpd_start [SOCKET]: deploy/lighttpd as it stands; its own values come from the file beside
# the main one that it includes. The port is in lighttpd_port.
lighttpd_start() {
    lighttpd_port=$(port_free)
    web=http://$host:$lighttpd_port
    install -d "$dir/www/secure" "$dir/lighttpd"
    install -d -o www-data -g www-data "$dir/lighttpd/log"
    printf 'public\n' >"$dir/www/index.html"
    printf 'the protected file\n' >"$dir/www/secure/page.html"
    cat >"$dir/www/secure/env.cgi" <<'END'
printf 'Content-Type: text/plain\r\n\r\n'
env | sort
END
    cp "$dir/www/secure/env.cgi" "$dir/www/env.cgi"
    cat >"$dir/lighttpd/spnegate-local.conf" <<END
var.spnegate_socket     := "${1:-$dir/run/spnegate.sock}"
var.spnegate_scripts    := "$root/deploy/lighttpd"
var.spnegate_access_log := "$dir/lighttpd/log/access.log"
var.spnegate_patience   := ${lighttpd_patience:-10}
END
    cat >"$dir/lighttpd/lighttpd.conf" <<END
server.modules = ( ${lighttpd_modules:-}"mod_indexfile", "mod_access", "mod_alias", "mod_redirect" )
server.document-root = "$dir/www"
server.bind = "127.0.0.1"
server.port = $lighttpd_port
server.username = "www-data"
server.groupname = "www-data"
server.errorlog = "$dir/lighttpd/log/error.log"
server.http-parseopts = ( "header-strict" => "enable", "host-strict" => "enable",
  "host-normalize" => "enable", "url-normalize-unreserved" => "enable",
  "url-normalize-required" => "enable", "url-ctrls-reject" => "enable",
  "url-path-2f-decode" => "enable", "url-path-dotseg-remove" => "enable" )
index-file.names = ( "index.html" )
mimetype.assign = ( ".html" => "text/html" )
include "$root/deploy/lighttpd/spnegate.conf"
server.modules += ( "mod_cgi", "mod_staticfile" )
cgi.assign = ( ".cgi" => "/bin/sh" )
\$HTTP["url"] =~ "^/(secure/)?app(/|$)" {
  proxy.server = ( "" => (( "host" => "127.0.0.1", "port" => ${backend_port:-1} )) )
}
END
    if have_ipv6; then
        cat >>"$dir/lighttpd/lighttpd.conf" <<END
\$SERVER["socket"] == "[::1]:$lighttpd_port" { }
END
    fi
    lighttpd -D -f "$dir/lighttpd/lighttpd.conf" >"$dir/lighttpd.log" 2>&1 &
    pids+=($!)
    wait_for 10 port_open "$lighttpd_port" || fail "lighttpd did not start"
}

# ---- clients

# ask [CURL-OPTION...] PATH: prints the status; the header is in $dir/head, the body in $dir/body.
ask() {
    local path=${*: -1}
    set -- "${@:1:$#-1}"
    : >"$dir/head"
    : >"$dir/body"
    curl --silent --show-error --max-time 30 --noproxy '*' \
        --connect-to "$host:$lighttpd_port:127.0.0.1:$lighttpd_port" \
        --dump-header "$dir/head" --output "$dir/body" --write-out '%{http_code}' \
        "$@" "$web$path"
}

# ask_as USER [CURL-OPTION...] PATH
ask_as() {
    kinit_as "$1"
    shift
    ask --negotiate --user : "$@"
}

gssclient() {
    "$tools/gssclient" "$@"
}

ticketseal() {
    "$tools/ticketseal" "$@"
}

# fcgi [OPTION...]: one request straight to the daemon's socket; prints the answer's bytes.
fcgi() {
    "$e2e/tools/fcgiclient" "${fcgi_socket:-$dir/run/spnegate.sock}" "$@"
}

# header NAME: its value in the last response's header.
header() {
    tr -d '\r' <"$dir/head" | sed -n "s/^$1: //Ip" | tail -n 1
}

# access_log: the last line of lighttpd's access log; lighttpd writes it a moment late.
access_log() {
    tail -n 1 "$dir/lighttpd/log/access.log"
}

# ---- the audit trail

# record FIELD...: the fields of the last `auth` record, one a line; "-" for one that is not there.
record() {
    local line field
    line=$(grep '"event":"auth"' "$dir/audit/audit.jsonl" | tail -n 1)
    for field in "$@"; do
        if [[ $line =~ \"$field\":(\"([^\"]*)\"|([^,}]*)) ]]; then
            printf '%s\n' "${BASH_REMATCH[2]}${BASH_REMATCH[3]}"
        else
            printf -- '-\n'
        fi
    done
}

# records FIELD VALUE: how many records have this value there.
records() {
    [ -f "$dir/audit/audit.jsonl" ] || fail "there is no audit trail"
    grep -cE "\"$1\":(\"$2\"|$2[,}])" "$dir/audit/audit.jsonl" || true
}
