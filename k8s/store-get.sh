#!/bin/sh
# Fetch a folder of the store's claim to this machine, for example to look at it:
#   sh k8s/store-get.sh data ./volumes && EM_DATA_DIR=./volumes/data macroscope view
# KUBE_CONTEXT, KUBE_NAMESPACE (em), RELEASE (macroscope) and CLAIM (its own) say from where.
set -eu
folder="${1:?which folder of the store: data, data/ebi, metadata, logs}"
target="${2:-.}"
. "$(dirname "$0")/claim-pod.sh"
worker="$(kube get deployment -l "$component=worker" -o name)"
claim="${CLAIM:-$(kube get persistentvolumeclaim -l "$component=store" -o 'jsonpath={.items[0].metadata.name}')}"
as_pods_of "$worker"
pod="store-get-$$"
trap 'kube delete pod "$pod" --ignore-not-found --wait=false > /dev/null' EXIT INT TERM

claim_pod "$pod" "$claim" "/store, readOnly: true"
mkdir -p "$target"
# .partial and .locks are of runs at work
kube exec "$pod" -- tar -C /store --exclude=.partial --exclude=.locks -cf - "$folder" | tar -C "$target" -xf -
echo "$target/$folder"
