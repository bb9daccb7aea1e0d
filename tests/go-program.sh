#!/usr/bin/env bash
# Builds a Go program once, and prints its path: go-program.sh FOLDER PACKAGE. FOLDER has its go.mod, and names it. Everything but the path
# goes to stderr.
set -euo pipefail
folder=$1 package=$2 script=$(realpath "${BASH_SOURCE[0]}")
for tool in go flock sha256sum; do
    if ! command -v "$tool" >/dev/null; then
        echo "missing $tool: install Go 1.26 or newer (https://go.dev/doc/install), and util-linux and coreutils (apt-get install util-linux coreutils)" >&2
        exit 1
    fi
done

cd "$folder"
key=$({
    find . -type f -exec sha256sum {} + | LC_ALL=C sort
    sha256sum <"$script"
    go env GOVERSION GOOS GOARCH
} | sha256sum | cut -c1-16)
name=${PWD##*/}
cache=${FLASHJOB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flashjob-operator}
program=$cache/$name-$key
if [[ ! -x $program ]]; then
    mkdir -p "$cache"
    exec 9>"$cache/$name.lock"
    flock 9
    if [[ ! -x $program ]]; then
        echo "building $name, once (some 2 minutes on two cores)" >&2
        go build -trimpath -ldflags "-s -w" -o "$program.new" "$package" >&2
        # Renamed, so that a file of this name is complete.
        mv "$program.new" "$program"
    fi
fi
echo "$program"
