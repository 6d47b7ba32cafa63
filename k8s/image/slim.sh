#!/bin/sh
# Take out of an environment what no pod uses.
#   sh k8s/image/slim.sh /opt/venv
set -eu
venv="$1"
site="$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')"
# test suites (50 MB), and sources of modules that are compiled already
find "$site" -type d \( -name tests -o -name test \) -prune -exec rm -rf {} +
find "$site" -type f \( -name '*.c' -o -name '*.cpp' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi' -o -name '*.a' \) -delete
# descriptions of AWS services other than those that credentials and buckets need (20 MB)
find "$site/botocore/data" -mindepth 1 -maxdepth 1 -type d \
  ! -name s3 ! -name sts ! -name sso ! -name sso-oidc ! -name signin -exec rm -rf {} +
# codecs that no reader of lib/formats asks imagecodecs for, with their libraries (40 MB); Pillow has JPEG, PNG, WebP
rm -f "$site"/PIL/_avif.* "$site"/PIL/_imagingtk.* "$site"/pillow.libs/libavif-*
for name in apng avif bcn bmp cms gif htj2k jpegls jpegxr lerc lzfse lzham lzo meshopt pcodec png \
  qoi rgbe sperr spng sz3 tiff ultrahdr webp zfp zopfli; do
  rm -f "$site"/imagecodecs/_"$name".*
done
for name in aom avif charls cpcodec gif gomp jpegxr jxrglue Lerc lzfse lzhamcomp lzhamdecomp \
  lzhamdll lzokay lzokay-c meshoptimizer openjph png16 sharpyuv SPERR SZ3c tiff uhdr webp webpdemux zfp zopfli; do
  rm -f "$site"/imagecodecs.libs/lib"$name"-*
done
# Prefect's first user interface: where it is absent the server offers the second, its default, alone (6 MB)
rm -rf "$site"/prefect/server/ui
# parts for building and testing, databases that Prefect has none of, catalogues of what was installed (9 MB)
rm -rf "$site"/numpy/distutils "$site"/numpy/f2py "$site"/numpy/_core/include "$site"/numpy/_pyinstaller \
  "$site"/sqlalchemy/testing "$site"/alembic/testing "$site"/sqlalchemy/dialects/mssql "$site"/sqlalchemy/dialects/mysql \
  "$site"/sqlalchemy/dialects/oracle "$site"/CHANGELOG.md
find "$site" -type f \( -name '*.h' -o -name '*.hpp' -o -name '*.po' -o -name '*.cdx.json' -o -path '*.dist-info/RECORD' \) -delete
# pools of threads for loops that numba runs side by side: there are none
rm -f "$site"/numba/np/ufunc/tbbpool.* "$site"/numba/np/ufunc/omppool.*
# symbols for debuggers (155 MB), in packages that bear it: libraries whose paths were rewritten for
# the wheel (*.libs, numba) do not load any more once they are stripped
for name in aiohttp asyncpg box burner_redis cryptography frozenlist greenlet h5py imagecodecs llvmlite \
  msgpack multidict numcodecs PIL propcache regex rpds sqlalchemy wrapt xxhash yaml; do
  find "$site/$name" -type f -name '*.so' -exec strip --strip-unneeded {} +
done
strip --strip-unneeded "$site"/_ruamel_yaml.*.so
# the object store of the stand-in archives: 150 MB that unpack to /tmp where they are wanted
if [ -f "$venv/bin/weed" ] && [ ! -f "$venv/lib/weed.xz" ]; then
  "$venv/bin/python" -c 'import lzma, shutil, sys
with open(sys.argv[1], "rb") as plain, lzma.open(sys.argv[2], "wb", preset=2) as packed:
    shutil.copyfileobj(plain, packed)' "$venv/bin/weed" "$venv/lib/weed.xz"
  cp k8s/image/weed.sh "$venv/bin/weed"
  chmod 755 "$venv/bin/weed"
fi
