#!/usr/bin/env bash
# Runs all tests. Those on a real node mostly wait for it, so they run beside the others, each
# program in namespaces of its own; what they said is shown in the end.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo test --workspace --no-run || exit
target/debug/node-prepare || exit
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
node=(installations behaviour)
declare -A running
for program in "${node[@]}"; do
    # With the features of the whole workspace, so that nothing is built again.
    FLASHJOB_NODE_PREPARED=1 cargo test --workspace --test "$program" >"$logs/$program" 2>&1 &
    running[$program]=$!
done
# More than there are processors: each test waits for its control plane for most of its time.
cargo test --workspace --no-fail-fast --exclude flashjob-node -- --test-threads="$((2 * $(nproc) + 1))"
status=$?
for program in "${node[@]}"; do
    wait "${running[$program]}" || status=1
    echo "tests on a real node: $program"
    cat "$logs/$program"
done
exit "$status"
