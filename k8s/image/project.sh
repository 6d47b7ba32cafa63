#!/bin/sh
# Put the project itself on the environment's path, where it lies, and compile everything: each pod
# would otherwise compile again what it imports, since it may not write beside it.
#   cd /opt/macroscope && sh k8s/image/project.sh /opt/venv
# PIP names the installer; LOCK says whether the stand-in archives are wanted (see install.sh).
set -eu
venv="$1"
pip="${PIP:-python -m pip}"
site="$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')"
tools="$(mktemp -d)"
$pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes --no-deps \
  --target "$tools" -r requirements/build.lock
# metadata and the console command come from pyproject.toml; the code stays in this folder
PYTHONPATH="$tools" $pip --python "$venv/bin/python" install --quiet --no-cache-dir --no-compile \
  --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
rm -rf "$tools" ./*.egg-info build "$site"/__editable__*macroscope*
pwd > "$site/macroscope.pth"
# collections of which a pod imports a few at most: not worth their bytecode
rare='/((pygments/(lexers|styles)|apprise|dask/(array|dataframe|bag)|numba/cuda|dateparser|docker|fsspec/implementations|markdown|oauthlib|rich_rst)/|PIL/[A-Z][a-z]*ImagePlugin)'
[ "${LOCK:-image}" = samples ] || rm -rf emulators
"$venv/bin/python" -m compileall -q -j 0 -x "$rare" "$site" .
# generated code that repeats itself, as bytecode in archives that Python imports from (50 MB)
"$venv/bin/python" k8s/image/pack.py "$site" kubernetes_asyncio beartype
