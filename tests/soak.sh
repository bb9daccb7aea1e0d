#!/usr/bin/env bash
# Runs the end-to-end tests many times beside a program that keeps every processor busy: a test that
# relies on a quiet machine fails here. Says how each run ended, and keeps the output of all.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

runs=${1:-20}
if ! command -v stress-ng >/dev/null; then
    echo "stress-ng is missing; Debian and Ubuntu: apt-get install stress-ng" >&2
    exit 1
fi
cargo test --workspace --test end_to_end --no-run || exit
logs=target/soak
rm -rf "$logs"
mkdir -p "$logs"
stress-ng --quiet --cpu "$(nproc)" &
trap 'kill "$!"' EXIT
failed=0
for ((run = 1; run <= runs; run++)); do
    start=$SECONDS
    cargo test --workspace --test end_to_end -- --test-threads="$((2 * $(nproc) + 1))" >"$logs/$run" 2>&1 ||
        failed=$((failed + 1))
    echo "run $run of $runs, $((SECONDS - start)) s: $(grep '^test result' "$logs/$run")"
done
echo "$failed of $runs runs failed; their output is in $logs"
exit $((failed > 0))
