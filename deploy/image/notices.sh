#!/usr/bin/env bash
# Prints the licences of the crates that are compiled into a package's program: notices.sh PACKAGE RUST_TARGET.
set -euo pipefail
shopt -s inherit_errexit
package=$1 target=$2
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Crates of the registry as `name version licence`; the workspace's own have a path behind their version.
crates() {
    cargo tree --locked -p "$package" -e normal,no-proc-macro --target "$target" --prefix none -f '{p}|{l}' |
        sed -n 's/^\([^ ]*\) v\([^ |]*\)|\(.*\)$/\1 \2 \3/p' | sed 's/ (\*)$//' | LC_ALL=C sort -u
}

# Texts are printed once each, under the crates that bring them; a crate without a text must offer the licence of this project.
crates >"$work/crates"
[[ -s $work/crates ]] || { echo "notices.sh: cargo tree names no crate of $package" >&2; exit 1; }
while read -r name version licence; do
    found=
    for file in "$registry"/*/"$name-$version"/*; do
        case ${file##*/} in
            [Ll][Ii][Cc][Ee][Nn][CcSs][Ee]* | COPYING* | COPYRIGHT* | NOTICE* | UNLICENSE*)
                [[ -f $file ]] || continue
                found=1 digest=$(sha256sum <"$file")
                cp "$file" "$work/${digest%% *}.text"
                echo "$name $version" >>"$work/${digest%% *}.crates"
                ;;
        esac
    done
    if [[ -z $found && $licence != *Apache-2.0* ]]; then
        echo "notices.sh: $name $version: has no licence text, and its licence is '$licence'" >&2
        exit 1
    fi
done <"$work/crates"

echo "$package contains the standard library of Rust (MIT OR Apache-2.0) and these crates:"
echo
cat "$work/crates"
echo
echo "Crates that are not named below bring no text of their own; they are used under the Apache License 2.0 (file LICENSE)."
for text in "$work"/*.crates; do
    printf '\n%s\n' "--------------------------------------------------------------------------------"
    LC_ALL=C sort -u "$text" | paste -sd, | sed 's/,/, /g'
    echo
    cat "${text%.crates}.text"
done
