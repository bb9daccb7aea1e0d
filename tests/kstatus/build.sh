#!/usr/bin/env bash
# Prints the path of the program that says what kstatus makes of an object; it is built once.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "$here/../go-program.sh" "$here" .
