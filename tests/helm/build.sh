#!/usr/bin/env bash
# Prints the path of helm: the one in PATH from version 4 on, else one that is built once.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if found=$(command -v helm) && [[ $("$found" version --short 2>/dev/null) == v4.* ]]; then
    echo "$found"
else
    exec "$here/../go-program.sh" "$here" helm.sh/helm/v4/cmd/helm
fi
