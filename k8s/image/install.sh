#!/bin/sh
# Install the locked packages into a new virtual environment, every file checked against its hash.
#   sh k8s/image/install.sh /opt/venv
# LOCK names what is installed: image, or samples for the stand-in archives as well; PYTHON names the interpreter that the environment is for, PIP the installer.
set -eu
venv="$1"
"${PYTHON:-python}" -m venv --without-pip "$venv"
${PIP:-python -m pip} --python "$venv/bin/python" install --quiet --no-cache-dir --no-compile \
  --disable-pip-version-check --require-hashes --no-deps -r "requirements/${LOCK:-image}.lock"
