#!/usr/bin/env bash
# Builds plugin crates to WebAssembly components: target/plugins/<name>.wasm. Arguments: names of packages; default: all that ship and all that tests need.
#
# Where the Rust toolchain has wasm32-unknown-unknown (rustup target add wasm32-unknown-unknown) it is used. Where it cannot be
# had, Debian's Rust brings the sources of the standard library, and the toolchain's cargo builds it along.
set -euo pipefail
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
    packages=(flashjob-plugin-esp32 flashjob-plugin-esp32s2 flashjob-hostile-plugins flashjob-toaster-plugin)
fi
sysroot=$(rustc --print sysroot)
host=$(rustc -vV | sed -n 's/^host: //p')
tools=$sysroot/lib/rustlib/$host/bin
arguments=()

# Unpacks Debian's compiler into a folder of our own, as its packages conflict with Debian's rustup.
debian_toolchain() {
    local cache=${FLASHJOB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flashjob-operator} folder
    folder=$cache/wasm-toolchain
    if [[ ! -x $folder/rustc ]]; then
        if ! command -v apt-get >/dev/null; then
            echo "the Rust target $target is missing: rustup target add $target" >&2
            exit 1
        fi
        mkdir -p "$cache"
        exec 9>"$cache/wasm-toolchain.lock"
        flock 9
        if [[ ! -x $folder/rustc ]]; then
            local work sudo=
            work=$(mktemp -d "$cache/wasm-toolchain.XXXXXX")
            [[ $(id -u) == 0 ]] || sudo=sudo
            {
                apt-cache show rustc-web >/dev/null 2>&1 || $sudo apt-get update
                $sudo apt-get install -y --no-install-recommends libllvm22
                local std
                std=$(apt-cache depends libstd-rust-web-dev | sed -n 's/.*Depends: \(libstd-rust-web-[0-9.]*\)$/\1/p' | head -1)
                (cd "$work" && apt-get download rustc-web "$std" libstd-rust-web-dev rust-web-src)
                for package in "$work"/*.deb; do dpkg -x "$package" "$work"; done
                rm "$work"/*.deb
            } >&2
            printf '#!/bin/sh\nhere=$(dirname "$0")\nLD_LIBRARY_PATH="$here/usr/lib/x86_64-linux-gnu" exec "$here/usr/bin/rustc" "$@"\n' >"$work/rustc"
            chmod +x "$work/rustc"
            mv -T "$work" "$folder"
        fi
        exec 9>&-
    fi
    echo "$folder"
}

if [[ ! -d $sysroot/lib/rustlib/$target ]]; then
    folder=$(debian_toolchain)
    export RUSTC=$folder/rustc RUSTC_BOOTSTRAP=1
    arguments+=(-Zbuild-std=std,panic_abort)
fi
export PATH=$tools/gcc-ld:$tools:$PATH
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$tools/wasm-component-ld
# A component is the same wherever it is built.
export RUSTFLAGS="--remap-path-prefix=$root=/src --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
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
ls "$root"/target/plugins/*.wasm
