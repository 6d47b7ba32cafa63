"""Known vulnerabilities in what `requirements/run.lock` pins: `make audit`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements" / "run.lock"


def main() -> int:
    """Print what is found; 1 where something is, 0 where the database cannot be reached."""
    words = ["--format", "json", "--require-hashes", "--disable-pip", "--progress-spinner", "off"]
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", *words, "-r", str(LOCK)], capture_output=True, text=True
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        packages = []
    audited = [package for package in packages if "skip_reason" not in package]
    if not audited:
        print("not audited: the database of vulnerabilities cannot be reached from here")
        return 0
    found = [package for package in audited if package["vulns"]]
    for package in found:
        names = ", ".join(vulnerability["id"] for vulnerability in package["vulns"])
        print(f"{package['name']} {package['version']}: {names}")
    print(f"{len(audited)} of {len(packages)} packages audited, {len(found)} with known faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
