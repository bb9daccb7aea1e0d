#!/usr/bin/env bash
# Removes the CustomResourceDefinitions and with them all FlashRollouts and FlashJobs, and, with
# `remove.sh everything`, the operator in NAMESPACE after them. Refuses while there are any, unless
# FORCE=1. Runs with bash 3.2, which macOS has: without ${kind,,}, and without empty arrays.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
group=application.flashjob.nbfc.io
manifests=
if [[ ${1:-} == everything ]]; then
    # Before anything is deleted, as it refuses what is no name of a namespace.
    manifests=$(deploy/install/manifests.sh flashjob-operator "${NAMESPACE:-flashjob-system}")
fi

# Namespace and name of each object of a definition.
objects() {
    kubectl get "$1" --all-namespaces --no-headers --output custom-columns=:.metadata.namespace,:.metadata.name
}

plural() {
    tr '[:upper:]' '[:lower:]' <<<"$1s"
}

# FlashRollouts before the FlashJobs, which they would make again. A cluster that does not answer, or
# refuses, is an error; a definition that is not there is not.
present=
for kind in FlashRollout FlashJob; do
    definition=$(plural "$kind").$group
    found=$(kubectl get --ignore-not-found --output name "crd/$definition")
    [[ -n $found ]] || continue
    found=$(objects "$definition")
    count=$(grep -c . <<<"$found" || true)
    ((count > 0)) || continue
    if [[ ${FORCE:-} != 1 ]]; then
        echo "refused: there are $count ${kind}s, which this would delete: see kubectl get $(plural "$kind") --all-namespaces; delete them first, or repeat the command with FORCE=1" >&2
        exit 1
    fi
    present="$present $kind"
done
# A FlashRollout may wait for its FlashJobs (a foreground deletion): all are deleted before any is
# waited for.
for kind in $present; do
    kubectl delete "$(plural "$kind").$group" --all --all-namespaces --wait=false
done
# The operator ends what is in flight, and takes its finalizer off; where there is none any more,
# nobody else does.
for kind in $present; do
    definition=$(plural "$kind").$group
    if kubectl wait --for=delete "$definition" --all --all-namespaces --timeout="${WAIT:-60s}" >/dev/null 2>&1; then
        continue
    fi
    found=$(objects "$definition")
    while read -r namespace name; do
        [[ -n $name ]] || continue
        echo "$kind $namespace/$name: nobody took its finalizers off; they are taken off now" >&2
        # It may go at this moment.
        kubectl --namespace "$namespace" patch "$definition" "$name" --type merge --patch '{"metadata":{"finalizers":null}}' >/dev/null || true
    done <<<"$found"
done
kubectl delete --ignore-not-found --filename deploy/crds
if [[ -n $manifests ]]; then
    kubectl delete --ignore-not-found --filename - <<<"$manifests"
fi
