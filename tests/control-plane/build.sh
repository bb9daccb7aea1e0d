#!/usr/bin/env bash
# Prints the folder that holds etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubectl and registry; builds what is
# missing. Programs in KUBEBUILDER_ASSETS are taken as they are. Everything but the folder's name goes to stderr.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
programs=(etcd kube-apiserver kube-controller-manager kube-scheduler kubectl)

for tool in go flock sha256sum; do
    if ! command -v "$tool" >/dev/null; then
        echo "missing $tool: install Go 1.26 or newer (https://go.dev/doc/install) and util-linux and coreutils (apt-get install util-linux coreutils)" >&2
        exit 1
    fi
done

key=$({
    cat "$here"/go.{mod,sum} "$here"/main.go "$here"/registry/{go.mod,go.sum,main.go} "$here/build.sh"
    go env GOVERSION GOOS GOARCH
    echo "${KUBEBUILDER_ASSETS:-}"
} | sha256sum | cut -c1-16)
cache=${FLASHJOB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flashjob-operator}
folder=$cache/control-plane-$key
if [[ -e $folder/registry ]]; then
    echo "$folder"
    exit
fi

mkdir -p "$cache"
exec 9>"$cache/control-plane.lock"
flock 9
if [[ ! -e $folder/registry ]]; then
    work=$(mktemp -d "$cache/control-plane.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    echo "building the control plane, once (about 5 minutes on two cores)" >&2
    version=$(cd "$here" && go list -m -f '{{.Version}}' k8s.io/kubernetes)
    IFS=. read -r major minor _ <<<"${version#v}"
    package=k8s.io/component-base/version
    flags="-s -w -X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor -X $package.gitTreeState=clean"
    (cd "$here" && go build -trimpath -ldflags "$flags" -o "$work/control-plane" .) >&2
    (cd "$here/registry" && go build -trimpath -ldflags "-s -w" -o "$work/registry.built" .) >&2
    for program in "${programs[@]}"; do
        given=${KUBEBUILDER_ASSETS:+$KUBEBUILDER_ASSETS/$program}
        if [[ -n $given && -x $given ]]; then
            ln -s "$given" "$work/$program"
        else
            ln -s control-plane "$work/$program"
        fi
    done
    # The last file in place is what says that the folder is whole.
    mv "$work/registry.built" "$work/registry"
    mv -T "$work" "$folder"
    trap - EXIT
fi
echo "$folder"
