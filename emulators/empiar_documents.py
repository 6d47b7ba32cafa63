"""Entry documents as EMPIAR's metadata API answers them.

Entry 11759 has the shape and the values of the public answer of 2025-06-11, including image sizes
that are text, that are wrong (the files hold 5496 x 5500) and pixel sizes in ångström. Persons
are nested under ``authors[].author`` but flat under ``citation[].authors[]``. Entry 99001 is
invented; it holds the container formats that 11759 lacks.
"""

from __future__ import annotations

import copy
from typing import Any

Json = dict[str, Any]

_ORGANISATION = "Max Planck Institute of Molecular Cell Biology and Genetics"


def person_document(last_name: str, organization: str, town: str, post: str, country: str) -> Json:
    return {
        "author_orcid": None,
        "first_name": "M",
        "middle_name": None,
        "last_name": last_name,
        "organization": organization,
        "street": None,
        "town_or_city": town,
        "state_or_province": None,
        "post_or_zip": post,
        "country": country,
    }


def _citation(title: str, author: str) -> Json:
    return {
        "title": title,
        "authors": [{"name": author, "author_orcid": None}],
        "editors": [],
        "published": False,
        "preprint": False,
        "j_or_nj_citation": False,
        "journal": None,
        "journal_abbreviation": None,
        "volume": None,
        "issue": None,
        "first_page": None,
        "last_page": None,
        "year": None,
        "language": None,
        "doi": None,
        "pubmedid": None,
        "publisher": "",
        "publication_location": "",
        "country": "",
        "book_chapter_title": None,
        "details": None,
    }


def imageset_document(
    name: str, format_name: str, count: int, voxel_type: str, **other: Any
) -> Json:
    return {
        "name": name,
        "directory": "data",
        "category": "reconstructed volumes",
        "header_format": format_name,
        "data_format": format_name,
        "num_images_or_tilt_series": count,
        "frames_per_image": 1,
        "frame_range_min": None,
        "frame_range_max": None,
        "voxel_type": voxel_type,
        "pixel_width": None,
        "pixel_height": None,
        "image_width": "",
        "image_height": "",
        "micrographs_file_pattern": "",
        "picked_particles_file_pattern": "",
        "picked_particles_directory": "",
        "segmentations": [],
        "details": "",
    } | other


def entry_document(accession: str, title: str, author: str, person: Json, **other: Any) -> Json:
    document = {
        "title": title,
        "status": "REL",
        "deposition_date": "2023-11-01",
        "release_date": "2024-01-15",
        "update_date": "2024-01-15",
        "obsolete_date": None,
        "entry_doi": f"10.6019/{accession}",
        "dataset_size": "1.2 GB",
        "experiment_type": "SBF-SEM",
        "scale": "tissue",
        "authors": [{"author": {"name": author, "author_orcid": None}}],
        "corresponding_author": {"author": person},
        "principal_investigator": [
            person
            | {
                "entry": accession,
                "email": "name [at] example.org",
                "telephone": None,
                "fax": None,
            }
        ],
        "cross_references": [],
        "biostudies_references": [],
        "idr_references": [],
        "empiar_references": [],
        "grant_references": [],
        "version_history": [],
        "workflow_file": None,
        "citation": [_citation(title, author)],
        "imagesets": [],
    }
    return document | other


def _zebrafish_retina() -> Json:
    title = "Developing retina in zebrafish 55 hpf larval eye."
    return entry_document(
        "EMPIAR-11759",
        title,
        "Wilsch-Bräuninger M",
        person_document("Wilsch-Bräuninger", _ORGANISATION, "Dresden", "01307", "Germany"),
        imagesets=[
            imageset_document(
                title,
                "DM3",
                16,
                "UNSIGNED BYTE",
                pixel_width=80.0,
                pixel_height=80.0,
                image_width="5628",
                image_height="5632",
                details=(
                    "Zebrafish (Danio rerio) larva; 8nm/px in xy, 50nm per section; "
                    "Magellan400 1.9kV 200pA 0.5 usec; Gatan 3ViewXP"
                ),
            )
        ],
    )


def _container_formats() -> Json:
    return entry_document(
        "EMPIAR-99001",
        "Container formats of one synthetic tissue block.",
        "Example A",
        person_document("Example", "Example Institute", "Example Town", "00000", "Germany"),
        dataset_size="2.0 MB",
        experiment_type="FIB-SEM",
        scale="cell",
        imagesets=[
            imageset_document(
                "Recorded block",
                "DM4",
                1,
                "SIGNED 16 BIT INTEGER",
                pixel_width=50.0,
                pixel_height=50.0,
                image_width="56",
                image_height="40",
                details="Saccharomyces cerevisiae; 5nm/px in xy, 10nm per section",
            ),
            imageset_document(
                "Reconstructions and tilt series",
                "MRC",
                7,
                "SIGNED BYTE",
                pixel_width=80.0,
                pixel_height=80.0,
                image_width="56",
                image_height="40",
            ),
        ],
    )


_ENTRIES: dict[str, Json] = {
    "EMPIAR-11759": _zebrafish_retina(),
    "EMPIAR-99001": _container_formats(),
}


def _entries() -> dict[str, Json]:
    from emulators.empiar_entries import documents  # it is made of the parts above

    return _ENTRIES | documents()


def empiar_accessions() -> tuple[str, ...]:
    """Accessions that the stand-in archive holds, with their prefix."""
    return tuple(_entries())


def empiar_entry(accession: str) -> Json | None:
    """Answer of ``/empiar/api/entry/{accession}/``, or ``None`` where the archive says 404.

    Parameters
    ----------
    accession
        ``11759`` or ``EMPIAR-11759``, as the real service accepts both.

    Returns
    -------
    An object of one key, the accession with its prefix. Pixel sizes are ångström.
    """
    number = accession.strip().upper().removeprefix("EMPIAR-")
    key = f"EMPIAR-{number}"
    known = _entries()
    return {key: copy.deepcopy(known[key])} if key in known else None
