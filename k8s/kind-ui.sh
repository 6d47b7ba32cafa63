#!/bin/sh
# The Prefect UI at http://127.0.0.1:4200 until Ctrl-C.
set -eu
echo "http://127.0.0.1:4200"
# RELEASE (macroscope), KUBE_NAMESPACE (em) and KUBE_CONTEXT (kind-macroscope) say where it is.
kube() { kubectl --context "${KUBE_CONTEXT:-kind-macroscope}" --namespace "${KUBE_NAMESPACE:-em}" "$@"; }
part="app.kubernetes.io/instance=${RELEASE:-macroscope},app.kubernetes.io/component"
kube port-forward "$(kube get service -l "$part=server" -o name)" 4200:4200
