#!/usr/bin/env bash
# Builds plugin crates to WebAssembly components: target/plugins/<name>.wasm. Arguments: names of packages; default: all that ship and all that tests need.
# toolchain.sh finds the compiler.
set -euo pipefail
shopt -s inherit_errexit
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=wasm32-unknown-unknown
cd "$root"

packages=("$@")
if [[ ${#packages[@]} == 0 ]]; then
    packages=(flashjob-plugin-esp32 flashjob-plugin-esp32s2 flashjob-plugin-esp32s3 flashjob-plugin-esp-serial flashjob-plugin-http-push flashjob-plugin-mcumgr flashjob-hostile-plugins flashjob-toaster-plugin flashjob-kiln-plugin)
fi
environment=$("$here/toolchain.sh")
while IFS= read -r line; do export "${line?}"; done <<<"$environment"
# A component is the same wherever it is built.
remaps=("$root=/src" "${CARGO_HOME:-$HOME/.cargo}=/cargo")
# Where the standard library is built along, its sources' folder would be in every panic message.
[[ -z ${RUSTC:-} ]] || remaps+=("${RUSTC%/rustc}=/rust")
arguments=()
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
