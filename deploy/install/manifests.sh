#!/usr/bin/env bash
# Prints all that is installed, with this image: manifests.sh IMG [NAMESPACE]. Needs kubectl, and no cluster. Like remove.sh it runs with
# bash 3.2, which macOS has.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
image=${1:?usage: manifests.sh IMG [NAMESPACE]}
namespace=${2:-flashjob-system}
if ! [[ $namespace =~ ^[a-z0-9]([-a-z0-9]*[a-z0-9])?$ ]]; then
    echo "NAMESPACE=$namespace: is not the name of a namespace; choose one of lower case letters, digits and -" >&2
    exit 1
fi
folder=target/install
mkdir -p "$folder"
cat >"$folder/kustomization.yaml" <<YAML
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../../deploy]
patches:
- patch: |
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: flashjob-operator, namespace: flashjob-system}
    spec: {template: {spec: {containers: [{name: operator, image: "$image"}]}}}
YAML
# Not by a kustomization's `namespace`: that would also move the Role out of kube-node-lease, where the Leases of nodes are.
kubectl kustomize "$folder" |
    sed -E "s/^( *(namespace|name)): flashjob-system\$/\1: $namespace/"
