#!/bin/sh
# Read by scripts that look into a claim of a release (`. claim-pod.sh`): kubectl as they call it, what
# its objects are labelled with, and a pod that holds a claim, as locked down as the release's own.
# KUBE_CONTEXT, KUBE_NAMESPACE (em) and RELEASE (macroscope) say where.
set -eu
kube() {
  kubectl --context "${KUBE_CONTEXT:-kind-macroscope}" --namespace "${KUBE_NAMESPACE:-em}" "$@"
}
component="app.kubernetes.io/instance=${RELEASE:-macroscope},app.kubernetes.io/component"

# as_pods_of DEPLOYMENT: claim_pod makes pods with its image and its security.
as_pods_of() {
  image="$(kube get "$1" -o 'jsonpath={.spec.template.spec.containers[0].image}')"
  security="$(kube get "$1" -o 'jsonpath={.spec.template.spec.securityContext}')"
}

# claim_pod POD CLAIM MOUNT: a pod that waits with a claim mounted; MOUNT is the mount's path, and more
# of it as YAML has it.
claim_pod() {
  kube create -f - > /dev/null <<MANIFEST
apiVersion: v1
kind: Pod
metadata: {name: $1}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  activeDeadlineSeconds: 3600
  terminationGracePeriodSeconds: 0
  securityContext: $security
  containers:
    - name: claim
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
        - {name: data, mountPath: $3}
  volumes:
    - {name: tmp, emptyDir: {}}
    - {name: data, persistentVolumeClaim: {claimName: "$2"}}
MANIFEST
  kube wait --for=condition=Ready "pod/$1" --timeout=180s > /dev/null
}
