#!/bin/sh
# The Prefect UI at http://127.0.0.1:4200 until Ctrl-C.
set -eu
echo "http://127.0.0.1:4200"
exec kubectl --context "${KUBE_CONTEXT:-kind-macroscope}" --namespace em port-forward service/macroscope-server 4200:4200
