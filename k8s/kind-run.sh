#!/bin/sh
# Run the whole pipeline on the cluster of kind-up.sh and follow it to its end; exit code as the run's.
set -eu
context="${KUBE_CONTEXT:-kind-macroscope}"
kubectl --context "$context" --namespace em exec deploy/macroscope-server -- \
  env PREFECT_API_URL=http://127.0.0.1:4200/api prefect deployment run macroscope/full --watch
echo "what is left over (should be no daskcluster):"
kubectl --context "$context" --namespace em get jobs,daskclusters,persistentvolumeclaims
