#!/usr/bin/env bash
# Builds plugin crates to WebAssembly components: target/plugins/<name>.wasm. Arguments: names of packages; default: all that ship and all that tests need.
#
# Where the Rust toolchain has wasm32-unknown-unknown (rustup target add wasm32-unknown-unknown) it is used. Where it cannot be
# had, Debian's Rust brings the sources of the standard library, and the toolchain's cargo builds it along.
set -euo pipefail
# Without it a failed step inside $(…) goes unnoticed, and a half-unpacked toolchain would stay for good.
shopt -s inherit_errexit
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=wasm32-unknown-unknown
cd "$root"

for tool in cargo rustc flock; do
    if ! command -v "$tool" >/dev/null; then
        echo "missing $tool: install Rust 1.95 or newer with rustup (https://rustup.rs) and util-linux (apt-get install util-linux)" >&2
        exit 1
    fi
done
packages=("$@")
if [[ ${#packages[@]} == 0 ]]; then
    packages=(flashjob-plugin-esp32 flashjob-plugin-esp32s2 flashjob-plugin-esp32s3 flashjob-plugin-esp-serial flashjob-hostile-plugins flashjob-toaster-plugin)
fi
sysroot=$(rustc --print sysroot)
host=$(rustc -vV | sed -n 's/^host: //p')
tools=$sysroot/lib/rustlib/$host/bin
arguments=()
# A component is the same wherever it is built.
remaps=("$root=/src" "${CARGO_HOME:-$HOME/.cargo}=/cargo")

# The newest compiler that is unpacked already; nothing where there is none.
unpacked_toolchain() {
    local found=("$1"/wasm-toolchain-*/rustc)
    [[ ! -x ${found[0]} ]] || printf '%s\n' "${found[@]%/rustc}" | sort -V | tail -n 1
}

# Unpacks Debian's compiler into a folder of our own, as its packages conflict with Debian's rustup.
debian_toolchain() {
    local cache=${FLASHJOB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flashjob-operator} folder
    folder=$(unpacked_toolchain "$cache")
    if [[ -n $folder ]]; then
        echo "$folder"
        return
    fi
    if ! command -v apt-get >/dev/null; then
        echo "the Rust target $target is missing: rustup target add $target" >&2
        exit 1
    fi
    mkdir -p "$cache"
    exec 9>"$cache/wasm-toolchain.lock"
    flock 9
    folder=$(unpacked_toolchain "$cache")
    [[ -n $folder ]] || folder=$(unpack_toolchain "$cache")
    exec 9>&-
    echo "$folder"
}

# Runs a command as root, or says how to do without.
as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "not root and no sudo: run '$*' as root, or rustup target add $target" >&2
        return 1
    fi
}

# Downloads and unpacks next to the final folder, so that the rename is all or nothing.
unpack_toolchain() {
    local cache=$1 work std package
    work=$(mktemp -d "$cache/wasm-toolchain.XXXXXX")
    # Expanded now: the variable is gone when the subshell ends.
    # shellcheck disable=SC2064
    trap "rm -rf -- $(printf %q "$work")" EXIT
    {
        apt-cache show rustc-web >/dev/null 2>&1 || as_root apt-get update
        dpkg -s libllvm22 >/dev/null 2>&1 || as_root apt-get install -y --no-install-recommends libllvm22
        std=$(apt-cache depends libstd-rust-web-dev | sed -n 's/.*Depends: \(libstd-rust-web-[0-9.]*\)$/\1/p')
        if [[ -z $std ]]; then
            echo "no package libstd-rust-web-<version> in the lists of apt: rustup target add $target" >&2
            exit 1
        fi
        (cd "$work" && apt-get download rustc-web "$std" libstd-rust-web-dev rust-web-src)
        for package in "$work"/*.deb; do dpkg -x "$package" "$work"; done
        rm "$work"/*.deb
    } >&2
    printf '#!/bin/sh\nhere=$(dirname "$0")\nLD_LIBRARY_PATH=$(echo "$here"/usr/lib/*-linux-gnu) exec "$here/usr/bin/rustc" "$@"\n' >"$work/rustc"
    chmod +x "$work/rustc"
    # mktemp made it for its owner alone; the cache may be shared.
    chmod 755 "$work"
    mv -T "$work" "$cache/wasm-toolchain-${std##*-}"
    echo "$cache/wasm-toolchain-${std##*-}"
}

if [[ ! -d $sysroot/lib/rustlib/$target ]]; then
    folder=$(debian_toolchain)
    export RUSTC=$folder/rustc RUSTC_BOOTSTRAP=1
    arguments+=(-Zbuild-std=std,panic_abort)
    # The standard library is built along, so its sources' folder would be in every panic message.
    remaps+=("$folder=/rust")
fi
export PATH=$tools/gcc-ld:$tools:$PATH
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$tools/wasm-component-ld
# Encoded, as a folder's name may have a space; it beats RUSTFLAGS of the surroundings.
CARGO_ENCODED_RUSTFLAGS=$(printf -- '--remap-path-prefix=%s\x1f' "${remaps[@]}")
export CARGO_ENCODED_RUSTFLAGS=${CARGO_ENCODED_RUSTFLAGS%$'\x1f'}
export CARGO_TARGET_DIR=$root/target/wasm
unset CARGO_BUILD_TARGET RUSTC_WRAPPER
for package in "${packages[@]}"; do arguments+=(-p "$package"); done
cargo build --quiet --locked --lib --examples --profile component --target "$target" "${arguments[@]}" >&2

mkdir -p "$root/target/plugins"
for wasm in "$CARGO_TARGET_DIR/$target"/component/*.wasm "$CARGO_TARGET_DIR/$target"/component/examples/*.wasm; do
    # Cargo keeps a second copy of each example under a name with a hash.
    [[ -e $wasm && ! $wasm =~ -[0-9a-f]{16}\.wasm$ ]] || continue
    name=$(basename "$wasm" .wasm)
    name=${name#flashjob_plugin_}
    destination=$root/target/plugins/${name//_/-}.wasm
    cmp -s "$wasm" "$destination" || cp "$wasm" "$destination.new"
    [[ ! -e $destination.new ]] || mv "$destination.new" "$destination"
done

# Those in other languages, which cargo does not build.
if [[ $# == 0 ]]; then
    unset CARGO_TARGET_DIR RUSTC RUSTC_BOOTSTRAP CARGO_ENCODED_RUSTFLAGS
    "$root/plugin-sdk/go/build.sh" "$root/plugin-sdk/go/kettle" "$root/target/plugins/kettle.wasm"
    "$root/plugin-sdk/javascript/build.sh" "$root/plugin-sdk/javascript/lamp/lamp.js" "$root/target/plugins/lamp.wasm"
    "$root/plugin-sdk/go/build.sh" "$root/tests/hostile-plugins/go" "$root/target/plugins/hostile-go.wasm"
    "$root/plugin-sdk/javascript/build.sh" "$root/tests/hostile-plugins/javascript/hostile.js" "$root/target/plugins/hostile-javascript.wasm"
fi
ls "$root"/target/plugins/*.wasm
