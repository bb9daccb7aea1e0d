#!/usr/bin/env bash
# Prints the folder that holds what a real node runs: kubelet, kube-proxy, containerd, containerd-shim-runc-v2, ctr, pause, MetalLB's
# controller (metallb-controller) and its definitions (metallb-crds/). Builds it once. Everything but the folder's name goes to stderr.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kubernetes=$here/../control-plane

for tool in go cc flock sha256sum; do
    if ! command -v "$tool" >/dev/null; then
        echo "missing $tool: install Go 1.26 or newer (https://go.dev/doc/install), and a C compiler, util-linux and coreutils (apt-get install build-essential util-linux)" >&2
        exit 1
    fi
done

key=$({
    cat "$kubernetes"/go.{mod,sum} "$kubernetes/node/main.go" "$here"/{containerd,metallb}/go.{mod,sum} "$here/pause/pause.c" "$here/build.sh"
    go env GOVERSION GOOS GOARCH
} | sha256sum | cut -c1-16)
cache=${FLASHJOB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flashjob-operator}
folder=$cache/node-$key
if [[ -d $folder ]]; then
    echo "$folder"
    exit
fi

mkdir -p "$cache"
exec 9>"$cache/node.lock"
flock 9
if [[ ! -d $folder ]]; then
    work=$(mktemp -d "$cache/node.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    {
        echo "building kubelet, kube-proxy, containerd and MetalLB's controller, once (about 6 minutes on two cores)"
        cd "$kubernetes"
        version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
        IFS=. read -r major minor _ <<<"${version#v}"
        package=k8s.io/component-base/version
        flags="-s -w -X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor -X $package.gitTreeState=clean"
        go build -trimpath -ldflags "$flags" -o "$work/node" ./node
        ln -s node "$work/kubelet"
        ln -s node "$work/kube-proxy"
        cd "$here/containerd"
        # The storage and the file systems that need C libraries, or that no test uses.
        go build -trimpath -tags "no_btrfs no_devmapper no_zfs no_aufs" -ldflags "-s -w" -o "$work/" tool
        cd "$here/metallb"
        go build -trimpath -ldflags "-s -w" -o "$work/metallb-controller" go.universe.tf/metallb/controller
        cp -R --no-preserve=mode "$(go list -m -f '{{.Dir}}' go.universe.tf/metallb)/config/crd/bases" "$work/metallb-crds"
        cc -static -Os -Wall -Wextra -Werror -o "$work/pause" "$here/pause/pause.c"
    } >&2
    chmod 755 "$work"
    # Renamed as a whole, so that a folder of this name is complete.
    mv -T "$work" "$folder"
    trap - EXIT
fi
echo "$folder"
