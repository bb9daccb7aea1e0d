#!/usr/bin/env bash
# Lays out the root folder of an image that holds one program:
#   rootfs.sh --program FILE --output FOLDER [--compiler cc] [--base IMAGE]
# On scratch the program's shared libraries, the dynamic loader, certificates, users and the licences of all these come along; any other
# base image has its own, and they are left alone. Needs Debian or Ubuntu, whose packages say which licence a file has.
set -euo pipefail
shopt -s inherit_errexit

fail() {
    echo "rootfs.sh: $*" >&2
    exit 1
}

program='' output='' compiler=cc base=scratch
while (($#)); do
    case $1 in
        --program) program=$2 ;;
        --output) output=$2 ;;
        --compiler) compiler=$2 ;;
        --base) base=$2 ;;
        *) fail "unknown argument $1" ;;
    esac
    shift 2
done
[[ -n $program && -n $output ]] || fail "--program FILE and --output FOLDER are needed"
[[ -f $program ]] || fail "$program: there is no such file"
for tool in readelf dpkg-query "$compiler"; do
    command -v "$tool" >/dev/null || fail "missing $tool: build on Debian or Ubuntu (apt-get install binutils gcc), or with docker, podman or buildah"
done

# Copies a file with the mode that every user may read it by.
place() { # mode, file, path in the image
    install -D -m "$1" "$2" "$output/$3"
}

# Copies the licence of the Debian package that a file is from.
place_licence() {
    local file name found path
    file=$(realpath "$1")
    # Merged /usr: the package may know the file by another path.
    while IFS=: read -r name path; do
        path=${path##*: }
        if [[ ${path# } -ef $file ]]; then found=$name && break; fi
    done < <(dpkg-query -S "*/${file##*/}" 2>/dev/null)
    [[ -n ${found:-} ]] || fail "$1: no Debian package has this file, so its licence is not known"
    place 644 "/usr/share/doc/$found/copyright" "usr/share/doc/$found/copyright"
}

# Prints the libraries that a program or library names, without the loader.
needed() {
    readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | grep -v '^ld-linux' || true
}

# Copies what the program needs, and what that needs, from where the compiler links it.
place_libraries() {
    local folder queue=("$1") file name path
    local -A placed=()
    folder=lib/$("$compiler" -print-multiarch)
    while ((${#queue[@]})); do
        file=${queue[0]} queue=("${queue[@]:1}")
        for name in $(needed "$file"); do
            [[ -z ${placed[$name]:-} ]] || continue
            path=$("$compiler" "-print-file-name=$name")
            [[ $path == /* ]] || fail "$file: needs the library $name, which is not installed"
            placed[$name]=1 queue+=("$path")
            place 644 "$path" "$folder/$name"
            place_licence "$path"
        done
    done
}

# The loader lies where the program says, not among the libraries, and is a program itself.
place_loader() {
    local loader path
    loader=$(readelf -l "$1" | sed -n 's/.*program interpreter: \(.*\)\]/\1/p')
    [[ -n $loader ]] || return 0
    path=$("$compiler" "-print-file-name=${loader##*/}")
    [[ $path == /* ]] || fail "$1: needs the loader $loader, which is not installed"
    place 755 "$path" "${loader#/}"
}

# The certificates of Debian's package alone: this machine may trust authorities that are nobody else's business.
place_certificates() {
    local source=/usr/share/ca-certificates/mozilla target=etc/ssl/certs/ca-certificates.crt
    [[ -d $source ]] || fail "$source: missing; apt-get install ca-certificates"
    mkdir -p "$output/etc/ssl/certs"
    (export LC_ALL=C && cat "$source"/*.crt) >"$output/$target"
    place 644 /usr/share/doc/ca-certificates/copyright usr/share/doc/ca-certificates/copyright
}

place_users() {
    printf '%s\n' 'root:x:0:0:root:/:/sbin/nologin' 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin' >"$output/etc/passwd"
    printf '%s\n' 'root:x:0:' 'nonroot:x:65532:' >"$output/etc/group"
    # Without it, older C libraries ask DNS first and never read /etc/hosts, which Kubernetes writes.
    echo 'hosts: files dns' >"$output/etc/nsswitch.conf"
}

umask 022
mkdir -p "$output"
place 755 "$program" "usr/local/bin/${program##*/}"
if [[ $base == scratch ]]; then
    place_loader "$program"
    place_libraries "$program"
    place_certificates
    place_users
fi
