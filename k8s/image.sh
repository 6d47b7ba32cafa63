#!/bin/sh
# Build or push the image, where asked to; prefect.yaml calls this once for each deployment.
#   EM_BUILD_IMAGE=1  sh k8s/image.sh build
#   EM_PUSH_IMAGE=1   sh k8s/image.sh push
# EM_IMAGE names it (macroscope:0.1.0), EM_ENGINE the engine (docker).
set -eu
image="${EM_IMAGE:-macroscope:0.1.0}"
engine="${EM_ENGINE:-docker}"
case "$1" in
  build) [ "${EM_BUILD_IMAGE:-0}" != 1 ] || "$engine" build --tag "$image" . ;;
  push)  [ "${EM_PUSH_IMAGE:-0}" != 1 ] || "$engine" push "$image" ;;
  *) echo "usage: image.sh build|push" >&2; exit 2 ;;
esac
echo "$image"
