"""What is known of OpenOrganelle's data sets, beside what their own documents say."""

from __future__ import annotations

import re
from typing import Any

from lib.about import Provenance
from lib.formats.zarr.hierarchy import ZarrArray
from lib.plan import About

_ABOUT = {
    "jrc_mus-nacc-2": About(
        title="Mouse nucleus accumbens",
        modality="FIB-SEM",
        organism="Mus musculus",
        specimen="nucleus accumbens",
        licence="CC-BY-4.0",
        doi="10.25378/janelia.24222898",
        citation="Wu et al. 2017, doi:10.1073/pnas.1701078114; "
        "Xu et al. 2021, doi:10.1038/s41586-021-03992-4",
        imaging_date="2015-03-09",
        origin=Provenance(source="archive", where="https://doi.org/10.25378/janelia.24222898"),
    )
}


def known_about(dataset: str) -> About | None:
    """What this table knows of a data set; nothing of most."""
    return _ABOUT.get(dataset)


def about_array(dataset: str, array: ZarrArray, path: str) -> About:
    """What the table knows; else what the array's own metadata and its group's name say.

    EM groups are named {modality}-{dtype}: fibsem-int16, fibsem-uint8, tem-uint8. Neither licence
    nor DOI of one data set is said of another; that of the images is not that of labels.
    """
    known = _ABOUT.get(dataset)
    if known is not None:
        return known.revised(doi=None) if array.labels else known
    words: dict[str, Any] = dict(array.words)
    stated = {}
    found = re.search(r"(?:^|/)em/(fibsem|sbfsem|sbem|sstem|tem|stem)-", path)
    if found and "modality" not in words:
        words["modality"] = found[1]
        stated["modality"] = Provenance(source="name", where="name of the group")
    return About(
        **words,
        origin=Provenance(source="file", where=".zattrs of the multiscale"),
        stated=stated,
    )
