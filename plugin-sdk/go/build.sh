#!/usr/bin/env bash
# Builds a device plugin in Go to a component: build.sh FOLDER COMPONENT. The folder holds a package main.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
if ! command -v go >/dev/null; then
    echo "missing go: install Go 1.26 or newer (https://go.dev/doc/install)" >&2
    exit 1
fi
folder=$(cd "$1" && pwd)
component=$(realpath -m -- "$2")
target=${CARGO_TARGET_DIR:-$root/target}
mkdir -p "$(dirname "$component")"
tool=$target/debug/go-component
(cd "$root" && cargo build --quiet --locked -p flashjob-go-component --target-dir "$target")

"$tool" --wit "$root/wit/0.1.0" bindings --package flashjob.nbfc.io/plugin/bindings --exports flashjob.nbfc.io/plugin "$here/bindings"
# The generated code calls into Go's runtime by names that the linker would otherwise refuse.
(cd "$folder" && GOOS=wasip1 GOARCH=wasm go build -trimpath -buildmode=c-shared -ldflags "-s -w -checklinkname=0" -o "$component.module" .)
"$tool" --wit "$root/wit/0.1.0" component "$component.module" "$component"
rm "$component.module"
