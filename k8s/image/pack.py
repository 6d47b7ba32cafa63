"""Put packages of nothing but Python into archives that Python imports from, as bytecode.

    python k8s/image/pack.py SITE-PACKAGES PACKAGE...

Only for packages that open no file of their own. A line in macroscope.pth puts each on the path.
"""

import compileall
import shutil
import sys
import zipfile
from pathlib import Path
from py_compile import PycInvalidationMode

site = Path(sys.argv[1]).resolve()
for name in sys.argv[2:]:
    package, archive = site / name, site / f"{name}.zip"
    # unchecked: an archive's dates are in local time, which a pod may read otherwise
    mode = PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(
        package, quiet=1, legacy=True, force=True, invalidation_mode=mode
    ):
        sys.exit(f"{name} cannot be compiled")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for path in sorted(package.rglob("*")):
            # folders as well, without which those that have no __init__ are not found
            if "__pycache__" not in path.parts and (path.is_dir() or path.suffix == ".pyc"):
                packed.write(path, path.relative_to(site))
    shutil.rmtree(package)
    with (site / "macroscope.pth").open("a") as paths:
        paths.write(f"{archive}\n")
