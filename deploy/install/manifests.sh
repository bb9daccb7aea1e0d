#!/usr/bin/env bash
# Prints all that is installed, with this image: manifests.sh IMG. Needs kubectl, and no cluster.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
image=${1:?usage: manifests.sh IMG}
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
kubectl kustomize "$folder"
