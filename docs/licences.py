"""Which licences the installed packages have, held against what this project may be shipped with.

``python -m docs.licences`` lists them; `tests/unit/docs/test_licences.py` fails on one that may
not be.
"""

from __future__ import annotations

import re
from importlib.metadata import distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement

from docs.dependencies import licence

ROOT = Path(__file__).parents[1]
ALLOWED = re.compile(
    r"MIT|BSD|0BSD|Apache|ISC|PSF|Python-2\.0|Python Software Foundation|HPND|MPL|Mozilla|Unlicense"
    r"|Public Domain|CC0|ZPL|Zope|Zlib|BSL|CNRI|Historical Permission|LicenseRef-(?:MIT|BSD)"
    r"|Artistic-1\.0-Perl",
    re.IGNORECASE,
)
REFUSED = re.compile(r"\bA?GPL|\bLGPL|GNU |Commons Clause|non.?commercial|\bNC\b|SSPL|BUSL", re.I)

# Not told by their metadata, or told in words of their own; looked up in the package's files.
LOOKED_UP = {
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
    "text-unidecode": "Artistic-1.0-Perl OR GPL-2.0-or-later",  # in Prefect, through python-slugify
}


def shipped() -> list[str]:
    """Names of what `requirements/run.lock` installs here."""
    names = []
    for line in (ROOT / "requirements" / "run.lock").read_text().splitlines():
        if not line.startswith((" ", "#")) and "==" in line:
            wanted = Requirement(line.rstrip("\\ "))
            if wanted.marker is None or wanted.marker.evaluate(default_environment()):
                names.append(wanted.name)
    return names


def stated(name: str) -> str:
    """The licence of an installed package, in its own words."""
    return LOOKED_UP.get(name) or licence(distribution(name))


def problem(name: str) -> str | None:
    """Why a package must not be shipped; None where it may."""
    words = stated(name)
    alternatives = re.split(r"\s+OR\s+", words)  # the receiver of a dual licence chooses
    if any(ALLOWED.search(one) and not REFUSED.search(one) for one in alternatives):
        return None
    return f"{name}: {words}"


def main() -> None:
    """Print a line for each package."""
    for name in shipped():
        print(f"{name:<36} {stated(name)}")


if __name__ == "__main__":
    main()
