#!/usr/bin/env bash
# Prints the path of helm: the one in PATH from version 4 on, else one that is built once. Everything but the path goes to stderr.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if found=$(command -v helm) && [[ $("$found" version --short 2>/dev/null) == v4.* ]]; then
    echo "$found"
    exit
fi
for tool in go flock sha256sum; do
    if ! command -v "$tool" >/dev/null; then
        echo "missing helm 4 (https://helm.sh/docs/intro/install), or $tool to build it: install Go 1.26 or newer (https://go.dev/doc/install), and util-linux and coreutils (apt-get install util-linux coreutils)" >&2
        exit 1
    fi
done

key=$({
    cat "$here"/go.{mod,sum} "$here/build.sh"
    go env GOVERSION GOOS GOARCH
} | sha256sum | cut -c1-16)
cache=${FLASHJOB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flashjob-operator}
program=$cache/helm-$key
if [[ ! -x $program ]]; then
    mkdir -p "$cache"
    exec 9>"$cache/helm.lock"
    flock 9
    if [[ ! -x $program ]]; then
        echo "building helm, once (about 2 minutes on two cores)" >&2
        (cd "$here" && go build -trimpath -ldflags "-s -w" -o "$program.new" helm.sh/helm/v4/cmd/helm) >&2
        # Renamed, so that a file of this name is complete.
        mv "$program.new" "$program"
    fi
fi
echo "$program"
