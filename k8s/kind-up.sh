#!/bin/sh
# From nothing to macroscope on a kind cluster of its own, with stand-in archives.
# RELEASE (macroscope) and KUBE_NAMESPACE (em) name the installation. Needs docker (or CONTAINER_ENGINE), kind, kubectl and helm. Can run again: it then brings up to date.
set -eu
cd "$(dirname "$0")/.."
image="${MACROSCOPE_IMAGE:-macroscope:0.1.0}"
namespace="${KUBE_NAMESPACE:-em}"
engine="${CONTAINER_ENGINE:-docker}"

for program in "$engine" kind kubectl helm; do
  command -v "$program" > /dev/null || { echo "kind-up needs $program" >&2; exit 2; }
done

kind get clusters | grep -qx macroscope || kind create cluster --config k8s/kind.yaml --wait 120s
kubectl config use-context kind-macroscope

"$engine" build --build-arg LOCK=samples --tag "$image" .
kind load docker-image "$image" --name macroscope

kubectl create namespace "$namespace" --dry-run=client -o yaml | kubectl apply -f -
kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted --overwrite
kubectl apply --server-side -f helm/macroscope/crds
helm upgrade --install "${RELEASE:-macroscope}" helm/macroscope --namespace "$namespace" --values k8s/kind-values.yaml \
  --set-string image.repository="${image%:*}" --set-string image.tag="${image##*:}" \
  --wait --timeout 10m
