#!/usr/bin/env bash
# Builds the programs for one architecture and lays out the files of their images:
#   build.sh [--architecture amd64|arm64] [--base IMAGE] --output FOLDER
# FOLDER/operator and FOLDER/flasher become the root folders of the two images. The Dockerfile's stage `build` runs this, and so does
# `make docker-build CONTAINER_TOOL=layout` on the machine itself.
set -euo pipefail
shopt -s inherit_errexit
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."

architecture='' base=scratch output=''
while (($#)); do
    case $1 in
        --architecture) architecture=$2 ;;
        --base) base=$2 ;;
        --output) output=$2 ;;
        *)
            echo "build.sh: unknown argument $1" >&2
            exit 1
            ;;
    esac
    shift 2
done
[[ -n $output ]] || { echo "build.sh: --output FOLDER is missing" >&2; exit 1; }
# shellcheck source=deploy/image/architecture.sh
source "$here/architecture.sh" "$architecture"

# A build for this machine shares target/release with every other; one for another machine needs its linker and its C compiler.
target_arguments=() programs=${CARGO_TARGET_DIR:-target}/release
if [[ -n $cross_packages ]]; then
    if ! command -v "$compiler" >/dev/null; then
        echo "missing $compiler: apt-get install $cross_packages, and rustup target add $rust_target" >&2
        exit 1
    fi
    name=${rust_target//-/_}
    export "CC_$name=$compiler" "CARGO_TARGET_${name^^}_LINKER=$compiler"
    target_arguments=(--target "$rust_target") programs=${CARGO_TARGET_DIR:-target}/$rust_target/release
fi
cargo build --release --locked "${target_arguments[@]}" -p flashjob-operator --bin flashjob-operator -p flashjob-flasher --bin flashjob-flasher

for image in operator flasher; do
    rm -rf "${output:?}/$image"
    "$here/rootfs.sh" --program "$programs/flashjob-$image" --compiler "$compiler" --base "$base" --output "$output/$image"
    install -D -m 644 LICENSE "$output/$image/usr/share/doc/flashjob-$image/LICENSE"
    "$here/notices.sh" "flashjob-$image" "$rust_target" >"$output/$image/usr/share/doc/flashjob-$image/NOTICES"
done
