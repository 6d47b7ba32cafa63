#!/bin/sh
# Fetch a folder of the store's claim to this machine, for example to look at it:
#   sh k8s/store-get.sh data ./volumes && EM_DATA_DIR=./volumes/data macroscope view
# KUBE_CONTEXT, KUBE_NAMESPACE (em), RELEASE (macroscope) and CLAIM (its own) say from where.
set -eu
folder="${1:?which folder of the store: data, data/ebi, metadata, logs}"
target="${2:-.}"
namespace="${KUBE_NAMESPACE:-em}"
kube() { kubectl --context "${KUBE_CONTEXT:-kind-macroscope}" --namespace "$namespace" "$@"; }
part="app.kubernetes.io/instance=${RELEASE:-macroscope},app.kubernetes.io/component"
worker="$(kube get deployment -l "$part=worker" -o name)"
claim="${CLAIM:-$(kube get persistentvolumeclaim -l "$part=store" -o 'jsonpath={.items[0].metadata.name}')}"
image="$(kube get "$worker" -o 'jsonpath={.spec.template.spec.containers[0].image}')"
security="$(kube get "$worker" -o 'jsonpath={.spec.template.spec.securityContext}')"
pod="store-get-$$"
trap 'kube delete pod "$pod" --ignore-not-found --wait=false > /dev/null' EXIT INT TERM

kube create -f - > /dev/null <<MANIFEST
apiVersion: v1
kind: Pod
metadata: {name: $pod}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  activeDeadlineSeconds: 3600
  terminationGracePeriodSeconds: 0
  securityContext: $security
  containers:
    - name: store
      image: $image
      args: [sleep, "3600"]
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      resources:
        requests: {cpu: 10m, memory: 32Mi}
        limits: {memory: 64Mi}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: data, mountPath: /store, readOnly: true}
  volumes:
    - {name: tmp, emptyDir: {}}
    - {name: data, persistentVolumeClaim: {claimName: "$claim"}}
MANIFEST
kube wait --for=condition=Ready "pod/$pod" --timeout=180s > /dev/null
mkdir -p "$target"
# .partial and .locks are of runs at work
kube exec "$pod" -- tar -C /store --exclude=.partial --exclude=.locks -cf - "$folder" | tar -C "$target" -xf -
echo "$target/$folder"
