#!/bin/sh
# Build or push the image, where asked to; prefect.yaml calls this once for each deployment.
#   MACROSCOPE_BUILD_IMAGE=1  sh k8s/image.sh build
#   MACROSCOPE_PUSH_IMAGE=1   sh k8s/image.sh push
# MACROSCOPE_LOCK=samples builds it with the stand-in archives.
# MACROSCOPE_IMAGE names it (macroscope:0.1.0), CONTAINER_ENGINE the engine (docker).
set -eu
image="${MACROSCOPE_IMAGE:-macroscope:0.1.0}"
engine="${CONTAINER_ENGINE:-docker}"
case "$1" in
  build) [ "${MACROSCOPE_BUILD_IMAGE:-0}" != 1 ] || "$engine" build --build-arg "LOCK=${MACROSCOPE_LOCK:-image}" --tag "$image" . ;;
  push)  [ "${MACROSCOPE_PUSH_IMAGE:-0}" != 1 ] || "$engine" push "$image" ;;
  *) echo "usage: image.sh build|push" >&2; exit 2 ;;
esac
echo "$image"
