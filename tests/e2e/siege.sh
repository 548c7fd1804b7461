# shellcheck shell=bash
# For 91-kills and those after it: . "$(dirname "$0")/siege.sh", after lib.sh.

# siege_up ENTRIES: a realm without a KDC; user1 to user64 have tickets that are sealed here, and all
# of them may sign in: so many that none comes near his share of the table of replays.
siege_up() {
    local i
    realm_make "$dir/realm"
    realm_service "HTTP/$host" "$dir/http.keytab"
    chmod 644 "$dir/http.keytab"
    for i in {1..64}; do
        ticketseal -k "$dir/http.keytab" -c "FILE:$dir/user$i.ccache" -u "user$i@$realm"
    done
    config_write
    sed -i "s/- principal: .*/- realm: $realm/" "$dir/spnegate.yaml"
    printf 'replay: {entries: %d}\n' "$1" >>"$dir/spnegate.yaml"
    head -c 128 /dev/zero >"$dir/mishap"
    chmod 666 "$dir/mishap"
    siege_directories
}

# siege_directories: the daemon's own, empty but for the key of a new trail; it is in $first_key.
siege_directories() {
    rm -rf "$dir/state" "$dir/audit"
    install -d -m 755 "$dir/run"
    install -d -m 700 -o nobody -g nogroup "$dir/state"
    install -d -m 755 -o nobody -g nogroup "$dir/audit"
    first_key=$("$spnegate" audit init -c "$dir/spnegate.yaml") || fail "no first key"
}

# mishap KEY=VALUE...: what libmishap.so does from now on.
mishap() {
    python3 -IBSc '
import sys
sys.path.insert(0, sys.argv[1])
from mishap import Mishap
mishap = Mishap(sys.argv[2])
for word in sys.argv[3:]:
    name, _, numbers = word.partition("=")
    getattr(mishap, name)(*map(int, numbers.split(",")))' "$e2e/tools" "$dir/mishap" "$@"
}

# trail_holds: of all the files in $dir/audit one follows the other, and each line the one before.
trail_holds() {
    checks=$((checks + 1))
    python3 -IBSc '
import sys
sys.path.insert(0, sys.argv[1])
import siege
siege.Trail(*siege.trail_files(sys.argv[2]))' "$e2e/tools" "$dir/audit" ||
        fail "the trail does not hold"
}

# trail_verifies: the daemon has stopped: what it proves of its trail itself, all files together, is
# one chain from the key that it announced before its start, without a gap, and sealed to its end.
trail_verifies() {
    local said status=0
    said=$("$spnegate" audit verify --key "$first_key" "$dir"/audit/audit.jsonl* 2>&1) || status=$?
    check_equal "audit verify: $said" 0 "$status"
    check_contains "audit verify" "as given" "$said"
    check_contains "audit verify: sealed to the end" "; 0 records after it" "$said"
}
