#!/usr/bin/env bash
# Behind `make docker-build`, `docker-push` and `docker-buildx`: make.sh build|push|buildx. Reads IMG, TARGET (operator or flasher),
# CONTAINER_TOOL, PLATFORMS, BASE, BUILD and VERSION from the environment; only IMG is needed.
#
# CONTAINER_TOOL is docker, podman, buildah or `layout`; empty, it is the first that works here. `layout` needs no engine: it compiles on
# this machine and writes an archive that any of them, and containerd, can load. With an engine, bash 3.2 suffices, which macOS has.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
command=$1 target=${TARGET:-operator}
image=${IMG:?set IMG, such as IMG=registry.example.com/flashjob-operator:0.1.0}
platforms=${PLATFORMS:-linux/amd64,linux/arm64}
archive=${OUTPUT:-target/image/$target.tar}
case $target in
    operator | flasher) ;;
    *)
        echo "TARGET=$target: there is no such image; choose operator or flasher" >&2
        exit 1
        ;;
esac
# Never empty: bash before 4.4 takes an empty array for an unset variable.
arguments=(--target "$target")
for name in BASE BUILD VERSION; do
    [[ -z ${!name:-} ]] || arguments+=(--build-arg "$name=${!name}")
done

# Docker's client may be there without its engine.
works() {
    case $1 in
        docker) docker version --format '{{.Server.Version}}' ;;
        *) "$1" version ;;
    esac >/dev/null 2>&1
}

choose_tool() {
    local tool
    for tool in docker podman buildah; do
        if works "$tool"; then echo "$tool" && return; fi
    done
    echo "no container tool works here: install one (apt-get install buildah, or podman, or Docker), or write the image to $archive without one: make docker-build CONTAINER_TOOL=layout IMG=$image" >&2
    return 1
}

# Compiles on this machine and writes the layout for the platforms given.
write_layout() {
    local platform architecture builds=()
    if [[ ${BASE:-scratch} != scratch ]]; then
        echo "CONTAINER_TOOL=layout: BASE=$BASE cannot be pulled without a container engine; leave BASE out, or use docker, podman or buildah" >&2
        return 1
    fi
    for platform in ${1//,/ }; do
        architecture=${platform#linux/}
        # The folder stands for the root folder of stage `build`, where the results are in /image.
        deploy/image/build.sh --architecture "$architecture" --output "target/image/$architecture/image"
        builds+=(--build "$architecture=target/image/$architecture")
    done
    mkdir -p "$(dirname "$archive")"
    cargo run --quiet --locked -p flashjob-xtask -- image --reference "$image" \
        --output "$archive" "${builds[@]}" "${arguments[@]}"
    echo "$archive: load it with 'ctr -n k8s.io images import', 'podman load -i' or 'docker load -i' (25 or newer), or push it with 'skopeo copy oci-archive:$archive docker://$image'"
}

# Builds from the Dockerfile. buildah 1.28 tells the Dockerfile its architecture only where the platform is named.
build() { # platforms, further arguments
    local platforms=$1
    shift
    "$tool" build --platform "$platforms" "${arguments[@]}" "$@" . && return
    if [[ $tool != docker ]]; then
        echo "if $tool did not find the image of the build stage: its short name is not resolved here; name it with its registry: make … BUILD=REGISTRY/rust:1.95-bookworm" >&2
    fi
    return 1
}

# shellcheck source=deploy/image/architecture.sh
source deploy/image/architecture.sh ""
this_platform=linux/$architecture

tool=${CONTAINER_TOOL:-$(choose_tool)}
if [[ $tool != layout ]] && ! works "$tool"; then
    case $tool in
        docker) reason="no Docker engine answers: start it" ;;
        podman | buildah) reason="it is not installed or does not run: apt-get install $tool" ;;
        *) reason="is not docker, podman, buildah or layout: choose one of them" ;;
    esac
    echo "CONTAINER_TOOL=$tool: $reason, or write the image to $archive without an engine: CONTAINER_TOOL=layout" >&2
    exit 1
fi

case $tool-$command in
    layout-build) write_layout "$this_platform" ;;
    layout-buildx) write_layout "$platforms" ;;
    layout-push)
        echo "CONTAINER_TOOL=layout: pushes nothing; push the archive with 'skopeo copy oci-archive:$archive docker://$image'" >&2
        exit 1
        ;;
    *-push) "$tool" push "$image" ;;
    *-build) build "$this_platform" --tag "$image" ;;
    # Docker's store holds one platform of an image alone, so what is built for several goes to the registry at once.
    docker-buildx) docker buildx build --platform "$platforms" "${arguments[@]}" --tag "$image" --push . ;;
    *-buildx)
        "$tool" manifest rm "$image" >/dev/null 2>&1 || true
        build "$platforms" --manifest "$image"
        "$tool" manifest push --all "$image" "docker://$image"
        ;;
    *)
        echo "make.sh: unknown command $command; expected build, push or buildx" >&2
        exit 1
        ;;
esac
