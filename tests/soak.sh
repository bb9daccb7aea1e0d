#!/usr/bin/env bash
# Runs the end-to-end tests many times, several at once, beside a program that keeps every processor
# busy: a test that relies on a quiet machine fails here. Says how each run ended, and keeps the
# output of all. The programs are optimized, because a debug build spends a third of the time in
# itself.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

runs=${1:-20}
at_once=${2:-3}
if ! command -v stress-ng >/dev/null; then
    echo "stress-ng is missing; Debian and Ubuntu: apt-get install stress-ng" >&2
    exit 1
fi
cargo build --profile benchmark --workspace --bins || exit
test=(cargo test --profile benchmark --workspace --test end_to_end --no-run)
"${test[@]}" || exit
# Not through cargo: the runs go on with these programs while the source changes.
program=$("${test[@]}" 2>&1 | sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
logs=target/soak
rm -rf "$logs"
mkdir -p "$logs"
stress-ng --quiet --cpu "$(nproc)" &
trap 'kill "$!"' EXIT

run() {
    local start=$SECONDS
    "$program" --test-threads="$((2 * $(nproc) + 1))" >"$logs/$1" 2>&1
    local status=$?
    echo "run $1 of $runs, $((SECONDS - start)) s: $(grep '^test result' "$logs/$1")"
    return "$status"
}
export -f run
export logs program runs
seq "$runs" | xargs --max-procs="$at_once" --replace bash -c 'run {}'
status=$?
echo "the output of all runs is in $logs"
exit "$((status > 0))"
