# Names of an architecture, to be sourced: architecture.sh [amd64|arm64]. Sets architecture (default: this machine's), rust_target,
# compiler and, where that is a cross compiler, cross_packages (Debian's packages that bring it).
# shellcheck shell=bash disable=SC2034 # used by those who source this
architecture=${1:-}
if [[ -z $architecture ]]; then
    case $(uname -m) in
        aarch64 | arm64) architecture=arm64 ;;
        *) architecture=amd64 ;;
    esac
fi
case $architecture in
    amd64) gnu=x86_64-linux-gnu packages="gcc-x86-64-linux-gnu libc6-dev-amd64-cross" ;;
    arm64) gnu=aarch64-linux-gnu packages="gcc-aarch64-linux-gnu libc6-dev-arm64-cross" ;;
    *)
        echo "architecture $architecture: is not built; choose amd64 or arm64" >&2
        exit 1
        ;;
esac
rust_target=${gnu%-linux-gnu}-unknown-linux-gnu
if [[ $(uname -m) == "${gnu%%-*}" ]]; then
    compiler=cc cross_packages=
else
    compiler=$gnu-gcc cross_packages=$packages
fi
