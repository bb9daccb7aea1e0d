#!/usr/bin/env bash
# Builds a device plugin in JavaScript to a component: build.sh MODULE COMPONENT. What the module imports must lie below
# this checkout, or below the folder that MODULE_ROOT names.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
for tool in node npm; do
    if ! command -v "$tool" >/dev/null; then
        echo "missing $tool: install Node.js 18 or newer (https://nodejs.org, or apt-get install nodejs npm)" >&2
        exit 1
    fi
done
# What is installed is what package-lock.json names.
if ! cmp -s "$here/package-lock.json" "$here/node_modules/installed"; then
    (cd "$here" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) >&2
    cp "$here/package-lock.json" "$here/node_modules/installed"
fi
folder=${MODULE_ROOT:-$root}
"$here/node_modules/.bin/componentize-qjs" --sync --minify --module-root "$folder" --wit "$root/wit/0.1.0" --js "$1" --output "$2" >&2
