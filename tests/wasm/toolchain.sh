#!/usr/bin/env bash
# Prints what Rust needs to make WebAssembly components, as NAME=value lines for the environment.
#
# Where the Rust toolchain has wasm32-unknown-unknown (rustup target add wasm32-unknown-unknown) it is used. Where it cannot be
# had, Debian's Rust brings the sources of the standard library, and the toolchain's cargo builds it along.
set -euo pipefail
# Without it a failed step inside $(…) goes unnoticed, and a half-unpacked toolchain would stay for good.
shopt -s inherit_errexit
target=wasm32-unknown-unknown

for tool in cargo rustc flock; do
    if ! command -v "$tool" >/dev/null; then
        echo "missing $tool: install Rust 1.95 or newer with rustup (https://rustup.rs) and util-linux (apt-get install util-linux)" >&2
        exit 1
    fi
done
sysroot=$(rustc --print sysroot)
host=$(rustc -vV | sed -n 's/^host: //p')
tools=$sysroot/lib/rustlib/$host/bin

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
    echo "RUSTC=$folder/rustc"
    echo "RUSTC_BOOTSTRAP=1"
    echo "CARGO_UNSTABLE_BUILD_STD=std,panic_abort"
fi
echo "PATH=$tools/gcc-ld:$tools:$PATH"
echo "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$tools/wasm-component-ld"
