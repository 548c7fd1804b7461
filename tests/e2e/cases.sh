# shellcheck shell=bash
# The cases of the table in servers.sh, which sources this file. The numbers are the questions that
# every server is asked: 1 who gets in, and what if the authorizer fails; 2 does the server prove
# itself; 3 long tokens; 4 methods, protocols, many users; 5 forged headers; 6 other ways to the same
# file; 8 the server's own test of its configuration. (7, all servers at once, is 79-together.)

# ---- 8: the file passes the server's own test

case_config() {
    checks=$((checks + 1))
    server_check >"$dir/check.log" 2>&1 || fail "$server: its own configuration test fails"
}

# ---- 1: broken answers of an authorizer

answer() {
    # shellcheck disable=SC2059 # the answers are written as formats
    printf "$2" >"$dir/answers/$1"
}

broken_make() {
    local ok='Status: 200 OK\r\n' no='Status: 401 Unauthorized\r\n' how
    local proof='Variable-SPNEGATE: granted\r\n' user='Variable-REMOTE_USER: alice\r\n'
    local challenge=$no'WWW-Authenticate: Negotiate\r\n'
    mkdir "$dir/answers"
    answer good.end "$ok$proof$user"'Variable-AUTH_TYPE: Negotiate\r\nVariable-AUDIT_ID: 0-1\r\n\r\n'
    for how in end none busy mpx role app eof wait; do
        answer "empty.$how" ''
    done
    for how in end busy mpx role app eof; do
        answer "cut_401.$how" "$challenge"
    done
    answer cut_403.busy 'Status: 403 Forbidden\r\n'
    answer cut_line.end 'Status: 40'
    answer cut_200.end "$ok"
    answer cut_200.eof "$ok$proof"
    answer text.none 'something went wrong\n'
    answer text.end 'something went wrong\n'
    answer text.raw 'something went wrong\n'
    answer challenge.none "$challenge\\r\\n"
    answer no_status.end 'Content-Type: text/plain\r\n\r\nhello'
    answer no_status_user.end "$user\\r\\n"
    answer location.end 'Location: /elsewhere\r\n\r\n'
    answer http_401.end 'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\n\r\n'
    answer http_200.end "HTTP/1.1 200 OK\\r\\n$user\\r\\n"
    answer twice_401.end "$no$ok$user\\r\\n"
    answer twice_200.end "$ok$no$user\\r\\n"
    answer no_proof.end "$ok$user\\r\\n"
    answer plain_proof.end "${ok}SPNEGATE: granted\\r\\nREMOTE_USER: alice\\r\\n\\r\\n"
    answer other_proof.end "${ok}Variable-SPNEGATE: refused\\r\\n$user\\r\\n"
    answer no_user.end "$ok$proof\\r\\n"
    for how in 0 x 100 201 204 206 304; do
        answer "status_$how.end" "Status: $how Something\\r\\n$user\\r\\n"
    done
}

# asked ANSWER: how often the false authorizer was asked for it.
asked() {
    grep -cx "asked $1" "$dir/fake.log" || true
}

# broken ANSWER PATH [CURL-OPTION...]: it opens nothing, and is not asked for a second time.
broken() {
    local answer=$1 path=$2 status before
    shift 2
    before=$(asked "$answer")
    status=$(ask --max-time $((server_patience + 30)) "$@" "/secure/$path?answer=$answer" 2>"$dir/error") ||
        status=closed
    not_success "$server, $answer, $path${1:+, forged}" "$status"
    [ $(($(asked "$answer") - before)) -le 1 ] || fail "$server, $answer, $path: asked more than once"
}

case_broken_answers() {
    local fake before path answer forged=(-H 'Spnegate: granted' -H 'Spnegate-Asked: 1'
        -H 'Variable-Spnegate: granted' -H 'Variable-SPNEGATE: granted' -H 'Variable_Spnegate: granted'
        -H 'Variable-Remote-User: alice' -H 'Remote-User: alice' -H 'X-Remote-User: alice')
    broken_make
    "$e2e/tools/fakeauthorizer" "$server_socket" "$dir/answers" >"$dir/fake.log" 2>&1 &
    fake=$!
    pids+=("$fake")
    wait_for 10 grep -q ready "$dir/fake.log" || fail "the false authorizer did not start"

    # The means of the test itself: a good answer opens each of the three.
    for path in page.html env.cgi app; do
        check_equal "$server, good answer, $path" 200 "$(ask "/secure/$path?answer=good.end")"
    done
    check_contains "$server, good answer, backend" "header: X-Remote-User: alice" "$(cat "$dir/body")"
    before=$(reached)
    [ "$before" -ge 2 ] || fail "good answers leave no mark"

    for path in page.html env.cgi app; do
        ask_apart "wait-$path" "/secure/$path?answer=empty.wait"
    done
    for answer in "$dir"/answers/*; do
        answer=${answer##*/}
        case $answer in good.end | empty.wait) continue ;; esac
        for path in page.html env.cgi app; do
            broken "$answer" "$path"
        done
        broken "$answer" page.html "${forged[@]}"
        broken "$answer" app "${forged[@]}"
    done
    for path in page.html env.cgi app; do
        asked_apart "wait-$path"
        failed_closed "$server, no answer, $path" "$status"
    done
    check_equal "$server: programs and backends reached by broken answers" 0 $(($(reached) - before))
    end_pid "$fake"
    wait "$fake" 2>/dev/null || true
    unset 'pids[-1]' # its number may soon be another's
    rm -f "$server_socket"
}

# ---- 1: the daemon's answers

# log_has ID: the access log's last line names the record.
log_has() {
    log_line=$(server_log)
    [[ $log_line = *"$1"* ]]
}

case_basics() {
    local id path variable
    check_equal "$server, public page" 200 "$(ask /index.html)"
    for path in env.cgi app page.html; do
        check_equal "$server, no ticket, $path" 401 "$(ask "/secure/$path")"
        never_served "$server, no ticket, $path"
    done
    check_equal "$server: challenge" Negotiate "$(header WWW-Authenticate)"
    check_equal "$server: one challenge" 1 "$(grep -ci '^WWW-Authenticate:' "$dir/head")"
    if can answer_body; then
        check_equal "$server: body of a 401" "Sign-in with Kerberos is required." "$(cat "$dir/body")"
    fi
    if can no_store; then
        check_equal "$server: a 401 is not to be kept" no-store "$(header Cache-Control)"
    fi
    check_equal "$server: a challenge is no record" 0 "$(records event auth)"

    check_equal "$server, alice, file" 200 "$(ask_as alice /secure/page.html)"
    check_equal "$server, alice, file: content" "the protected file" "$(cat "$dir/body")"
    check_equal "$server, alice, program" 200 "$(ask_as alice "/secure/env.cgi?colour=blue")"
    for variable in REMOTE_USER=alice AUTH_TYPE=Negotiate; do
        check_equal "$server, program" "$variable" "$(grep "^${variable%=*}=" "$dir/body")"
    done
    check_lacks "$server, program: the ticket" AUTHORIZATION= "$(cat "$dir/body")"
    check_equal "$server: the record" \
        "granted ok 200 alice@$realm alice GET $host 127.0.0.1 /secure/env.cgi" \
        "$(record outcome reason status principal user http_method host peer uri | paste -sd ' ')"
    check_equal "$server, alice, backend" 200 "$(ask_as alice /secure/app/x)"
    check_equal "$server, backend: the user" "header: X-Remote-User: alice" \
        "$(grep -i 'remote.user' "$dir/body")"
    check_equal "$server, backend: the path" "path: /secure/app/x" "$(grep '^path' "$dir/body")"
    check_lacks "$server, backend: the ticket" "header: Authorization" "$(cat "$dir/body")"

    id=$(record chain)-$(record seq)
    wait_for 10 log_has "$id" || fail "$server: the access log does not end with the record $id: $log_line"
    if can user_log; then
        check_contains "$server: the access log's user" alice "$log_line"
    fi

    can status_403 || true # says why
    check_equal "$server, bob, file" "$(denied)" "$(ask_as bob /secure/page.html)"
    never_served "$server, bob"
    check_equal "$server, bob: record" "denied no_rule 403 bob@$realm" \
        "$(record outcome reason status principal | paste -sd ' ')"
}

# ---- 2: the server proves itself

case_mutual() {
    local path
    kinit_as alice
    for path in page.html env.cgi app; do
        check_equal "$server, mutual token, $path" "200 verified" \
            "$(gssclient 127.0.0.1 "$server_port" "/secure/$path")"
    done
    check_equal "$server, mutual token, no SPNEGO" "200 verified" \
        "$(gssclient -r 127.0.0.1 "$server_port" /secure/page.html)"
    check_equal "$server, none asked for" 200 \
        "$(gssclient -1 127.0.0.1 "$server_port" /secure/page.html | cut -d ' ' -f 1)"
    if can mutual_403; then
        kinit_as bob
        check_contains "$server, mutual token for bob" " verified" \
            "$(gssclient 127.0.0.1 "$server_port" /secure/page.html)"
    fi
}

# ---- 3: long tokens

# token_sized CHARACTERS: alice's token of that length less a few: its ticket has authorization data.
token_sized() {
    local length=$1 cache=$dir/sealed.ccache data=1 token
    for _ in 1 2; do
        ticketseal -k "$dir/http.keytab" -c "$cache" -d "$data"
        token=$(gssclient -p -c "$cache")
        data=$((data + (length - ${#token}) * 3 / 4 - 60))
    done
    printf '%s' "$token"
}

# sized WORD CHARACTERS WHAT ASKER [CURL-OPTION...]: such a token is alice, or is refused with a sign.
sized() {
    local word=$1 length=$2 what=$3 token status
    shift 3
    token=$(token_sized "$length")
    checks=$((checks + 1))
    [ "${#token}" -gt $((length - 200)) ] && [ "${#token}" -le "$length" ] ||
        fail "the token has ${#token} characters, not $length"
    what="$server, $what, token of ${#token} characters"
    printf 'Authorization: Negotiate %s\n' "$token" >"$dir/token"
    status=$("$@" -H "@$dir/token" /secure/page.html 2>"$dir/error") || status=closed
    if [ -z "${cannot_because[token_$word]:-}" ]; then
        check_equal "$what" 200 "$status"
        check_equal "$what: record" "granted alice" "$(record outcome user | paste -sd ' ')"
    else
        can "token_$word" || not_success "$what" "$status"
        wait_for 10 server_shows_long_token || fail "$what: there is no sign of it in the server's log"
    fi
}

case_sizes() {
    local word
    for word in 2k 12k 60k; do
        sized "$word" $((${word%k} * 1024)) HTTP/1.1 ask --http1.1
        if can h2; then
            sized "$word" $((${word%k} * 1024)) HTTP/2 ask_tls --http2
        fi
    done
}

# ---- 4: methods, protocols, many users

# posted WHAT STATUS: the megabyte arrived whole.
posted() {
    check_equal "$server, POST, $1" 200 "$2"
    check_contains "$server, POST, $1: the method" "method: POST" "$(cat "$dir/body")"
    check_contains "$server, POST, $1: the body" "body: 1048576 $sum" "$(cat "$dir/body")"
    check_equal "$server, POST, $1: record" "POST /secure/app/in" "$(record http_method uri | paste -sd ' ')"
}

case_methods() {
    local sum status alice=(--negotiate --user :) post=(--data-binary "@$dir/megabyte")
    python3 -IS -c 'print("0123456789abcdef" * 65536, end="")' >"$dir/megabyte"
    sum=$(sha256sum <"$dir/megabyte" | cut -d ' ' -f 1)
    kinit_as alice
    check_equal "$server, HEAD, stranger" 401 "$(ask --head /secure/page.html)"
    check_equal "$server, HEAD" 200 "$(ask_as alice --head /secure/page.html)"
    check_equal "$server, HEAD: length" 19 "$(header Content-Length)"
    check_equal "$server, HEAD: record" "HEAD /secure/page.html" "$(record http_method uri | paste -sd ' ')"
    check_equal "$server, OPTIONS, stranger" 401 "$(ask -X OPTIONS /secure/app)"
    check_equal "$server, OPTIONS" 200 "$(ask_as alice -X OPTIONS /secure/app)"
    check_contains "$server, OPTIONS: the method" "method: OPTIONS" "$(cat "$dir/body")"
    check_equal "$server, OPTIONS: record" OPTIONS "$(record http_method)"

    check_equal "$server, POST, stranger who waits" 401 "$(ask -H 'Expect: 100-continue' "${post[@]}" /secure/app/in)"
    never_served "$server, POST, stranger who waits"
    status=$(ask "${post[@]}" /secure/app/in 2>"$dir/curl.err") || true
    [ "$status" != 000 ] || can late_401 || status=401
    check_equal "$server, POST, stranger: $(cat "$dir/curl.err")" 401 "$status"
    never_served "$server, POST, stranger"
    posted plain "$(ask "${alice[@]}" "${post[@]}" /secure/app/in)"
    posted chunked "$(ask "${alice[@]}" "${post[@]}" -H 'Transfer-Encoding: chunked' /secure/app/in)"
    if can tls; then
        check_equal "$server, TLS, stranger" 401 "$(ask_tls --http1.1 /secure/page.html)"
        posted TLS "$(ask_tls --http1.1 "${alice[@]}" "${post[@]}" /secure/app/in)"
    fi
    if can h2; then
        check_equal "$server, HTTP/2, stranger" 401 "$(ask_tls --http2 /secure/page.html)"
        if can h2_upload; then
            posted HTTP/2 "$(ask_tls --http2 "${alice[@]}" "${post[@]}" /secure/app/in)"
        else
            check_equal "$server, HTTP/2" 200 "$(ask_tls --http2 "${alice[@]}" /secure/app)"
        fi
        check_contains "$server, HTTP/2" HTTP/2 "$(head -n 1 "$dir/head")"
    fi
    if can h2c; then
        check_equal "$server, h2c, stranger" 401 "$(ask --http2-prior-knowledge /secure/page.html)"
        if can h2_upload; then
            posted h2c "$(ask --http2-prior-knowledge "${alice[@]}" "${post[@]}" /secure/app/in)"
        else
            check_equal "$server, h2c" 200 "$(ask --http2-prior-knowledge "${alice[@]}" /secure/app)"
        fi
        check_contains "$server, h2c" HTTP/2 "$(head -n 1 "$dir/head")"
    fi
}

case_users_in_turn() {
    local who path
    : >"$dir/turn.expected"
    for who in alice - carol bob alice - carol; do
        for path in env.cgi app; do
            printf '%s /secure/%s %s\n' "$who" "$path" "$([ "$who" = - ] && echo - || token_of "$who")"
            case $who in
            -) printf -- '- 401 -\n' ;;
            bob) printf 'bob %s -\n' "$(denied)" ;;
            *) printf '%s 200 %s\n' "$who" "$who" ;;
            esac >>"$dir/turn.expected"
        done
    done >"$dir/turn"
    "$e2e/tools/crowd" --turn "$server_port" "$host" <"$dir/turn" >"$dir/turn.got"
    check_file "$server, in turn on one connection" "$dir/turn.expected" "$dir/turn.got"
}

case_many_users() {
    local round user path
    for round in {1..10}; do
        for user in user{01..20}; do
            path=app
            [ $((round % 2)) = 0 ] || path=env.cgi
            printf '%s /secure/%s %s\n' "$user" "$path" "$(token_of "$user")"
        done
    done >"$dir/crowd"
    sed 's/ .*//; s/.*/& 200 &/' "$dir/crowd" >"$dir/crowd.expected"
    "$e2e/tools/crowd" "$server_port" "$host" <"$dir/crowd" >"$dir/crowd.got"
    check_equal "$server, 200 requests of 20 users at once: what differs" "" \
        "$(diff "$dir/crowd.expected" "$dir/crowd.got" || true)"
}

# ---- 5: forged headers

# no_evil WHAT: no forged value has reached what answered.
no_evil() {
    check_lacks "$1" evil "$(cat "$dir/body")"
}

# forged HEADER...: the same, whether alone or together, signed in or where nobody signs in.
forged() {
    local path all=() header user=alice
    for header in "$@"; do
        all+=(-H "$header: evil")
    done
    for path in env.cgi app page.html; do
        check_equal "$server, forged, stranger, $path" 401 "$(ask "${all[@]}" "/secure/$path")"
        never_served "$server, forged, stranger, $path"
    done
    for path in env.cgi app; do
        check_equal "$server, forged, alice, $path" 200 "$(ask_as alice "${all[@]}" "/secure/$path")"
        no_evil "$server, forged, alice, $path"
        check_equal "$server, forged, alice, $path: one user" 1 \
            "$(grep -ciE '^(header: X-)?Remote.User' "$dir/body")"
        check_equal "$server, forged, open, $path" 200 "$(ask "${all[@]}" "/$path")"
        no_evil "$server, forged, open, $path"
        # One by one, so that no spelling hides behind another.
        for header in "$@"; do
            check_equal "$server, $header, open, $path" 200 "$(ask -H "$header: evil" "/$path")"
            no_evil "$server, $header, open, $path"
            check_contains "$server, $header, $path" "200 verified" \
                "$(gssclient -v -x "$header: evil" 127.0.0.1 "$server_port" "/secure/$path" >"$dir/body" &&
                    cat "$dir/body")"
            no_evil "$server, $header, $path"
        done
    done
}

case_forged() {
    local token status
    kinit_as alice
    forged X-Remote-User X_Remote_User x-remote-user X-Remote_User Remote-User Remote_User \
        remote-user REMOTE_USER Auth-Type AUTH_TYPE Variable-Remote-User Variable_Remote_User \
        Variable-REMOTE_USER variable-spnegate VARIABLE-SPNEGATE Variable-Audit-Id Variable-Auth-Type \
        Variable-Negotiate-Reply Spnegate SPNEGATE
    if can odd_spellings; then
        forged X.Remote.User 'X~Remote~User' 'x!remote#user' Remote.User Variable.Spnegate
    fi
    # Basic claims a name without any proof.
    for path in env.cgi app; do
        check_equal "$server, Basic, $path" 401 "$(ask --user evil:evil "/secure/$path")"
        check_equal "$server, Basic, open, $path" 200 "$(ask --user evil:evil "/$path")"
        no_evil "$server, Basic, open, $path"
    done
    # A header that only looks alike arrives: the test would see one that came through.
    check_equal "$server, another header" 200 "$(ask_as alice -H 'X-Remote-Users: seen' /secure/app)"
    check_contains "$server, another header arrives" "X-Remote-Users: seen" "$(cat "$dir/body")"

    # What the daemon is told of the request cannot be told by the client.
    token=$(token_of alice)
    for path in page.html app; do
        status=$(ask -H "Authorization: Negotiate $token" -H 'Unique-Id: evil' -H 'UNIQUE_ID: evil' \
            -H 'X-Request-Id: evil' -H 'Request-Id: evil' -H 'X-Forwarded-Method: DELETE' \
            -H 'X-Forwarded-Uri: /evil' -H 'X-Original-Uri: /evil' -H 'X-Real-Ip: 192.0.2.66' \
            -H 'X-Forwarded-For: 192.0.2.66' -H 'X-Forwarded-Host: evil.test' \
            -H 'Spnegate: granted' "/secure/$path")
        check_equal "$server, forged request: record" "GET $host 127.0.0.1 /secure/$path" \
            "$(record http_method host peer uri | paste -sd ' ')"
        [ "$path" = app ] || check_equal "$server, forged request" 200 "$status"
    done
    # The same token, the same forged id, another request: that is a replay.
    check_equal "$server, forged id: replay" 401 "$status"
    check_equal "$server, forged id: replay, record" replay "$(record reason)"
    status=$(ask -H "Authorization: Negotiate $token" -H 'Unique-Id: evil' -H 'UNIQUE_ID: evil' \
        -H 'X-Request-Id: evil' -H 'Request-Id: evil' /secure/page.html)
    check_equal "$server, forged id: replay of the same page" "401 replay" "$status $(record reason)"
}

# variables_stay WHAT: in the last answer.
variables_stay() {
    check_equal "$1: Variable- headers to the client" 0 "$(grep -ci '^Variable' "$dir/head")"
}

case_variables() {
    local user path
    for path in page.html env.cgi app none; do
        ask "/secure/$path" >"$dir/status"
        variables_stay "$server, stranger, $path"
        for user in alice bob; do
            ask_as "$user" "/secure/$path" >"$dir/status"
            variables_stay "$server, $user, $path"
        done
    done
}

# ---- 6: other ways to the same file

case_paths() {
    local path status
    kinit_as alice
    for path in /secure /secure/ /secure/none /secure/app /secure//page.html //secure/page.html \
        /./secure/page.html /secure/./page.html /secure/%2e/page.html /%73ecure/page.html \
        /secure/pag%65.html /x/../secure/page.html /secure/../secure/page.html /x/%2e%2e/secure/page.html \
        /secure%2fpage.html /%2fsecure/page.html /SECURE/page.html /Secure/page.html /secure/PAGE.html \
        /secure/page.html/ /secure/page.html/extra /secure/env.cgi/extra '/secure/page.html;x' \
        '/secure;x/page.html' '/secure/page.html?/../../index.html' '/secure\page.html' \
        /secure/page.html%20 /secure/page.html%00 /secure/page.shtml /secure/part.html /secure/. \
        '/index.html/../secure/page.html' '/secure/%252e%252e/secure/page.html'; do
        status=$(ask --path-as-is "$path") || status=closed
        not_success "$server, stranger, $path" "$status"
    done
    for path in /secure/ /secure/none /secure//page.html /secure/./page.html /secure/%2e/page.html \
        /%73ecure/page.html /x/../secure/page.html /./secure/page.html; do
        check_equal "$server, stranger, $path: status" 401 "$(ask --path-as-is "$path")"
    done
    for path in /secure/page.html /%73ecure/page.html /x/../secure/page.html; do
        check_equal "$server, alice, $path" 200 "$(ask --negotiate --user : --path-as-is "$path")"
        check_equal "$server, alice, $path: content" "the protected file" "$(cat "$dir/body")"
    done
    check_equal "$server, alice, missing" 404 "$(ask_as alice /secure/none.html)"
    if can path_info; then
        check_equal "$server, alice, path-info" 200 "$(ask_as alice /secure/env.cgi/extra)"
        check_contains "$server, path-info" "PATH_INFO=/extra" "$(cat "$dir/body")"
    fi
    if can rewrite; then
        check_equal "$server, stranger, rewritten" 401 "$(ask /moved/page.html)"
        never_served "$server, stranger, rewritten"
        check_equal "$server, alice, rewritten" 200 "$(ask_as alice /moved/page.html)"
        check_equal "$server, alice, rewritten: content" "the protected file" "$(cat "$dir/body")"
    fi
    if can error_page; then
        check_equal "$server, stranger, own page for 401" 401 "$(ask /secure/own/page.html)"
        check_equal "$server, own page for 401: content" "please sign in" "$(cat "$dir/body")"
        check_equal "$server, own page for 401: challenge" Negotiate "$(header WWW-Authenticate)"
        check_equal "$server, alice, own page for 401" 200 "$(ask_as alice /secure/own/page.html)"
    fi
}

# asked_again PATH COUNT PART: alice's one request for it is so many records, all but one of them
# `repeat`, where the server asks more than once.
asked_again() {
    local before granted
    granted=$(records outcome granted)
    before=$(records reason repeat)
    check_equal "$server, alice, $1" 200 "$(ask_as alice "$1")"
    check_contains "$server, alice, $1: content" "$3" "$(cat "$dir/body")"
    check_equal "$server, $1: records" "$2" $(($(records outcome granted) - granted))
    check_equal "$server, $1: repeats" $(($2 - 1)) $(($(records reason repeat) - before))
}

case_asked_again() {
    kinit_as alice
    if can index; then
        asked_again /secure/ "${server_asks_index:-1}" "the protected file"
        check_equal "$server, mutual token, index" "200 verified" \
            "$(gssclient 127.0.0.1 "$server_port" /secure/)"
    fi
    if can ssi; then
        asked_again /secure/page.shtml "${server_asks_ssi:-1}" "the protected part"
    fi
}

# ---- 1: the daemon in trouble

# trouble WHAT: a stranger and alice meet an error in time, and nothing is served.
trouble() {
    local who path
    for path in page.html app; do
        ask_apart "stranger-$path" "/secure/$path"
        ask_apart "alice-$path" --negotiate --user : "/secure/$path"
    done
    for who in stranger alice; do
        for path in page.html app; do
            asked_apart "$who-$path"
            failed_closed "$server, $1, $who, $path" "$status"
        done
    done
}

# pending COUNT: so many connections to the daemon, which is stopped.
pending() {
    local waiting port
    case $server_socket in
    /*) waiting=$(($(grep -c " $server_socket\$" /proc/net/unix) - 1)) ;; # one is the listener
    *)
        port=$(printf '%04X' "${server_socket##*:}")
        waiting=$(grep -cE "^ *[0-9]+: 0100007F:$port [0-9A-F:]+ 01 " /proc/net/tcp)
        ;;
    esac
    [ "$waiting" -ge "$1" ]
}

case_down() {
    local before who family
    kinit_as alice
    before=$(reached)
    # shellcheck disable=SC2046 # lists of process ids
    kill -STOP "$daemon" $(spnegate_workers)
    trouble "all stopped"
    # shellcheck disable=SC2046
    kill -CONT $(spnegate_workers) "$daemon"
    wait_for 30 signed_in || fail "$server: alice is not let in after the daemon went on"
    check_equal "$server, all stopped: reached" 0 $(($(reached) - before))

    # The workers are killed while requests wait for them; what new workers serve has its record.
    # shellcheck disable=SC2046
    kill -STOP $(spnegate_workers)
    before=$(records outcome granted)
    for who in stranger alice; do
        if [ "$who" = alice ]; then
            ask_apart "$who" --negotiate --user : /secure/page.html
        else
            ask_apart "$who" /secure/page.html
        fi
    done
    wait_for 20 pending 1 || fail "$server: the requests do not reach the workers"
    # shellcheck disable=SC2046
    kill -KILL $(spnegate_workers)
    asked_apart stranger
    not_success "$server, workers killed, stranger" "$status"
    asked_apart alice
    if [ "$status" = 200 ]; then
        check_equal "$server, workers killed, alice: record" $((before + 1)) "$(records outcome granted)"
    else
        never_served "$server, workers killed, alice"
    fi
    wait_for 30 signed_in || fail "$server: alice is not let in after the workers were killed"

    # All of it is killed while requests wait for it, and then nobody listens.
    before=$(reached)
    family="$daemon $(spnegate_workers)"
    # shellcheck disable=SC2086
    kill -STOP $family
    ask_apart stranger /secure/page.html
    ask_apart alice --negotiate --user : /secure/page.html
    wait_for 20 pending 1 || fail "$server: the requests do not reach the daemon"
    # shellcheck disable=SC2086
    kill -KILL $family
    wait "$daemon" 2>/dev/null || true
    daemon=
    for who in stranger alice; do
        asked_apart "$who"
        failed_closed "$server, daemon killed, $who" "$status"
    done
    trouble "nobody listens"
    rm -f "$server_socket"
    trouble "no socket"
    check_equal "$server, daemon killed: reached" 0 $(($(reached) - before))
    spnegate_start
    wait_for 30 signed_in || fail "$server: alice is not let in by a new daemon"
}
