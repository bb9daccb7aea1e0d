#!/usr/bin/env bash
# Fuzzes by coverage: tests/fuzz/run.sh SECONDS [TARGET…]; default: each target for so long. Inputs that lead to new code are kept in
# target/fuzz/<target>; one that breaks something is stored in tests/fuzz/corpus/<target> beside what is there, and the command fails.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
seconds=${1:-60}
shift || true
for tool in cargo c++; do
    if ! command -v "$tool" >/dev/null; then
        echo "missing $tool: install Rust 1.95 or newer with rustup (https://rustup.rs) and a C++ compiler (apt-get install g++)" >&2
        exit 1
    fi
done
targets=("$@")
if [[ ${#targets[@]} == 0 ]]; then
    targets=(configuration reference endpoint credentials challenge manifest layout signature component answer)
fi
# Only this project's own code is instrumented, so that the dependencies that are built for the tests do.
(cd "$root" && RUSTC_WORKSPACE_WRAPPER=$here/instrumented-rustc.sh cargo build --quiet --locked -p flashjob-fuzz --features libfuzzer --bin fuzz)
for target in "${targets[@]}"; do
    if [[ ! -d $here/corpus/$target ]]; then
        echo "no target $target; there are: $(ls "$here/corpus" | tr '\n' ' ')" >&2
        exit 1
    fi
    found=$root/target/fuzz/$target
    mkdir -p "$found"
    echo "fuzzing $target for $seconds s" >&2
    FLASHJOB_FUZZ_TARGET=$target "$root/target/debug/fuzz" "$found" "$here/corpus/$target" -max_total_time="$seconds" -timeout=20 \
        -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 -verbosity=0 -artifact_prefix="$here/corpus/$target/"
done
