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
rare='/(pygments/(lexers|styles)|apprise/plugins|dask/(dataframe|bag)|numba/cuda|numpy/f2py|dateparser/data|sqlalchemy/(testing|dialects/(mssql|mysql|oracle))|alembic/testing|docker|rich_rst|PIL/[A-Z][a-z]*ImagePlugin)'
[ "${LOCK:-image}" = samples ] || rm -rf emulators
# generated code, of which bytecode alone suffices (20 MB)
generated="$site/kubernetes_asyncio/client"
"$venv/bin/python" -m compileall -q -b -j 0 "$generated"
find "$generated" -name '*.py' -delete
find "$generated" -type d -name __pycache__ -prune -exec rm -rf {} +
"$venv/bin/python" -m compileall -q -j 0 -x "$rare" "$site" .
