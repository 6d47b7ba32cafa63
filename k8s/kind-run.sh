#!/bin/sh
# Run the whole pipeline on the cluster of kind-up.sh and follow it to its end; exit code as the run's.
set -eu
# RELEASE (macroscope), KUBE_NAMESPACE (em) and KUBE_CONTEXT (kind-macroscope) say where it is.
kube() { kubectl --context "${KUBE_CONTEXT:-kind-macroscope}" --namespace "${KUBE_NAMESPACE:-em}" "$@"; }
part="app.kubernetes.io/instance=${RELEASE:-macroscope},app.kubernetes.io/component"
kube exec "$(kube get deployment -l "$part=server" -o name)" -- \
  env PREFECT_API_URL=http://127.0.0.1:4200/api prefect deployment run macroscope/full --watch
echo "what is left over (should be no daskcluster):"
kube get jobs,daskclusters,persistentvolumeclaims
