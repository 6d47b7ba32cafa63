#!/bin/sh
# Stands in the image for the object store of the stand-in archives, which only their pod needs:
# unpacked at its first start, to where a pod may write.
set -eu
program="${TMPDIR:-/tmp}/weed-$(id -u)"
if [ ! -x "$program" ]; then
  part="$program.$$"
  here="$(dirname "$(readlink -f "$0")")"
  "$here/python" -c 'import lzma, shutil, sys
with lzma.open(sys.argv[1]) as packed, open(sys.argv[2], "wb") as plain:
    shutil.copyfileobj(packed, plain)' "$here/../lib/weed.xz" "$part"
  chmod 700 "$part"
  mv "$part" "$program"
fi
exec "$program" "$@"
