# shellcheck shell=bash
# What every bench starts with: . "$(dirname "$0")/lib.sh"
#
# The same ground as the end-to-end tests (tests/e2e/lib.sh), but the release build, no KDC, and
# ratios: what is compared is measured in turns, in several rounds of one run, and the median of the
# rounds' ratios is held against the budget. A processor that others use makes single rounds wrong,
# hardly ever the median.
#
# From the environment: SPNEGATE, TOOLS, HEIMDAL as there; BENCH_ROUNDS.

bench=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
builds=$(cd "$bench/../.." && pwd)/build
export SPNEGATE=${SPNEGATE:-$builds/release/src/cmd/spnegate}
export TOOLS=${TOOLS:-$builds/release/tests/e2e}
. "$bench/../e2e/lib.sh"

rounds=${BENCH_ROUNDS:-21}
missed=0
socket=$dir/run/spnegate.sock
caches=()

# bench_realm PRINCIPALS: http.keytab, and tickets of so many principals; one principal alone would
# soon hold its share of the replay table.
bench_realm() {
    local i
    realm_make "$dir/realm"
    realm_service "HTTP/$host" "$dir/http.keytab"
    chmod 644 "$dir/http.keytab"
    for ((i = 0; i < $1; i++)); do
        ticketseal -k "$dir/http.keytab" -c "FILE:$dir/user$i.ccache" -u "user$i@$realm"
        caches+=(--ccache "FILE:$dir/user$i.ccache")
    done
}

# bench_config: as in the tests, but everybody of the realm may pass.
bench_config() {
    config_write
    sed -i "s/- principal: .*/- realm: $realm/" "$dir/spnegate.yaml"
}

# bench_start: the daemon with a replay table that is an hour old. In the first minutes of a new one
# the authenticator is opened by us as well, which is not what a daemon does day by day.
bench_start() {
    spnegate_start
    spnegate_stop
    python3 -IS - "$dir/state/replay.table" <<'END'
import struct, sys
MADE_AT = 16 + 8 + 8 + 32  # magic, groups, ready, key
with open(sys.argv[1], "r+b") as table:
    table.seek(MADE_AT)
    made = struct.unpack("<Q", table.read(8))[0]
    table.seek(MADE_AT)
    table.write(struct.pack("<Q", made - 3600 * 10**6))
END
    spnegate_start
}

# noop_start NAME OPTION...: the program noop at $dir/NAME.sock; its workers are in noops[NAME].
declare -A noops
noop_start() {
    "$tools/../bench/noop" -w 2 -t 4 "${@:2}" "$dir/$1.sock" >"$dir/$1.log" 2>&1 &
    local pid=$!
    pids+=("$pid")
    wait_for 10 test -S "$dir/$1.sock" || fail "the program noop did not start"
    wait_for 10 noop_forked "$pid" || fail "the program noop did not start"
    noops[$1]=$(cat "/proc/$pid/task/$pid/children")
}
noop_forked() {
    [ "$(wc -w <"/proc/$1/task/$1/children")" = 2 ]
}

# load OPTION... ADDRESS: fails unless every answer was right; the figures are in $figures.
load() {
    figures=$("$tools/../bench/load" --json "${caches[@]}" "$@") || fail "load $*: $figures"
}

# figure NAME: of the last load.
figure() {
    [[ $figures =~ \"$1\":([0-9.]+) ]] || fail "no figure $1: $figures"
    printf '%s\n' "${BASH_REMATCH[1]}"
}

# cpu_ns PID...: what these processes have used of the processors so far.
cpu_ns() {
    local pid total=0 used _ file
    for pid in "$@"; do
        for file in "/proc/$pid/task/"*/schedstat; do
            read -r used _ <"$file"
            total=$((total + used))
        done
    done
    printf '%d\n' "$total"
}

# cost PIDS OPTION... ADDRESS: nanoseconds of these processes for one request of this load.
cost() {
    local who before after
    read -ra who <<<"$1"
    shift
    before=$(cpu_ns "${who[@]}")
    load "$@"
    after=$(cpu_ns "${who[@]}")
    cost=$(((after - before) / $(figure requests)))
}

# note NAME VALUE: one round's value.
note() {
    printf '%s\n' "$2" >>"$dir/noted.$1"
}

median() {
    sort -n "$dir/noted.$1" | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'
}

ratio() {
    awk -v a="$1" -v b="$2" 'BEGIN { printf "%.4f\n", a / b }'
}

# budget TEXT NAME LIMIT: the median of the ratios noted as NAME against its limit.
budget() {
    local value low high verdict=kept
    value=$(median "$2")
    low=$(sort -n "$dir/noted.$2" | head -n 1)
    high=$(sort -n "$dir/noted.$2" | tail -n 1)
    if awk -v v="$value" -v l="$3" 'BEGIN { exit v <= l }'; then
        verdict=MISSED
        missed=$((missed + 1))
    fi
    printf '%-44s %5.2f  (%.2f to %.2f; budget %.2f) %s\n' "$1" "$value" "$low" "$high" "$3" "$verdict"
    checks=$((checks + 1))
}

# microseconds NAME: the median of nanoseconds noted.
microseconds() {
    awk -v v="$(median "$1")" 'BEGIN { printf "%.1f us", v / 1000 }'
}

# verdict: the end of a bench.
verdict() {
    spnegate_stop
    [ "$missed" = 0 ] || exit 1
}
