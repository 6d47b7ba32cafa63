#!/bin/sh
# Uninstall (which must leave nothing behind), then delete the cluster.
set -eu
namespace="${KUBE_NAMESPACE:-em}"
if kind get clusters | grep -qx macroscope; then
  helm --kube-context kind-macroscope --namespace "$namespace" uninstall "${RELEASE:-macroscope}" --wait --timeout 10m || true
  kubectl --context kind-macroscope --namespace "$namespace" get jobs,daskclusters,pods || true
  kind delete cluster --name macroscope
fi
