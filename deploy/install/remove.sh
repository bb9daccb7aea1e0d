#!/usr/bin/env bash
# Removes the CustomResourceDefinitions and with them all FlashRollouts and FlashJobs, and, with `remove.sh everything`, the operator after them. Refuses
# while there are any, unless FORCE=1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
group=application.flashjob.nbfc.io
definition=flashjobs.$group
rollouts=flashrollouts.$group

# A cluster that does not answer, or refuses, is an error; a definition that is not there is not.
if [[ -n $(kubectl get --ignore-not-found --output name "crd/$rollouts") ]]; then
    count=$(kubectl get "$rollouts" --all-namespaces --no-headers --output name | grep -c . || true)
    if ((count > 0)) && [[ ${FORCE:-} != 1 ]]; then
        echo "refused: there are $count FlashRollouts, which this would delete: see kubectl get flashrollouts --all-namespaces; delete them first, or repeat the command with FORCE=1" >&2
        exit 1
    fi
    # Before the FlashJobs, which they would make again.
    if ((count > 0)); then
        kubectl delete "$rollouts" --all --all-namespaces
    fi
fi
definitions=$(kubectl get --ignore-not-found --output name "crd/$definition")
if [[ -n $definitions ]]; then
    jobs=$(kubectl get "$definition" --all-namespaces --no-headers --output custom-columns=:.metadata.namespace,:.metadata.name)
    count=$(grep -c . <<<"$jobs" || true)
    if ((count > 0)) && [[ ${FORCE:-} != 1 ]]; then
        echo "refused: there are $count FlashJobs, which this would delete: see kubectl get flashjobs --all-namespaces; delete them first, or repeat the command with FORCE=1" >&2
        exit 1
    fi
    if ((count > 0)); then
        # The operator ends what is in flight, and takes its finalizer off; where there is none any more, nobody else does.
        kubectl delete "$definition" --all --all-namespaces --wait=false
        if ! kubectl wait --for=delete "$definition" --all --all-namespaces --timeout="${WAIT:-60s}" >/dev/null 2>&1; then
            while read -r namespace name; do
                [[ -n $name ]] || continue
                echo "FlashJob $namespace/$name: no operator took its finalizer off; it is taken off now" >&2
                kubectl --namespace "$namespace" patch "$definition" "$name" --type merge --patch '{"metadata":{"finalizers":null}}' >/dev/null
            done < <(kubectl get "$definition" --all-namespaces --no-headers --output custom-columns=:.metadata.namespace,:.metadata.name)
        fi
    fi
fi
kubectl delete --ignore-not-found --filename deploy/crds
if [[ ${1:-} == everything ]]; then
    kubectl delete --ignore-not-found --kustomize deploy
fi
