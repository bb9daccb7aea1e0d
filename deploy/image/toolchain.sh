#!/usr/bin/env bash
# Installs what compiling for another architecture needs, in an image based on Debian or Ubuntu: toolchain.sh amd64|arm64.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=deploy/image/architecture.sh
source "$here/architecture.sh" "$1"

if [[ -n $cross_packages ]]; then
    apt-get update
    # shellcheck disable=SC2086 # several packages
    apt-get install -y --no-install-recommends $cross_packages
    rm -rf /var/lib/apt/lists/*
    rustup target add "$rust_target"
fi
