#!/usr/bin/env bash
# Says which tools are missing, and how to get them.
set -euo pipefail
missing=0
need() { # command, how to get it
    if ! command -v "$1" >/dev/null; then
        echo "missing $1: $2" >&2
        missing=1
    fi
}
if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
    echo "bash $BASH_VERSION is too old: install bash 4.4 or newer (on macOS: brew install bash), and put it first in PATH" >&2
    missing=1
fi
need cargo "install Rust 1.95 or newer with rustup (https://rustup.rs)"
need go "install Go 1.26 or newer (https://go.dev/doc/install)"
need cc "install a C compiler (apt-get install build-essential)"
need flock "install util-linux (apt-get install util-linux)"
need setpriv "install util-linux (apt-get install util-linux)"
need node "install Node.js 18 or newer (https://nodejs.org, or apt-get install nodejs)"
need npm "it comes with Node.js (or apt-get install npm)"
exit $missing
