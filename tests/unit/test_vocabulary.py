"""Text from outside: read into the record's words where it enters, or null with its own words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import vocabulary
from lib.about import Provenance
from lib.ingest import describe
from lib.plan import About, VolumePlan
from lib.records.manager import MetadataManager, schema_errors
from lib.storage.base import Store
from lib.storage.local import LocalStore
from tests.kit.volume_kit import a_plan


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("2018-06-11", "2018-06-11"),
        ("2018", "2018"),
        ("2018-06", "2018-06"),
        ("20180611", "2018-06-11"),
        ("2018/06/11", "2018-06-11"),
        ("2018:06:11 22:27:16", "2018-06-11T22:27:16"),
        ("2019-06-27T18:33:40", "2019-06-27T18:33:40"),
        ("2019-06-27 18:33", "2019-06-27T18:33:00"),
        ("2019-06-27T18:33:40.125", "2019-06-27T18:33:40.125"),
        ("2019-06-27T18:33:40z", "2019-06-27T18:33:40Z"),
        ("2019-06-27T18:33:40 UTC", "2019-06-27T18:33:40Z"),
        ("2019-06-27T18:33:40+0200", "2019-06-27T18:33:40+02:00"),
        ("2019-06-27T18:33:40-07", "2019-06-27T18:33:40-07:00"),
        ("2016-12-31T23:59:60Z", "2016-12-31"),
        ("2019-06-27T18:33:40+99:00", "2019-06-27"),
        ("11.06.2018", "2018-06-11"),
        ("11.06.2018 22:27:16", "2018-06-11T22:27:16"),
        ("6/27/2019", "2019-06-27"),
        ("27/6/2019", "2019-06-27"),
        ("6/6/2019", "2019-06-06"),
        ("6/7/2019", None),
        ("13.13.2019", None),
        ("06.27.2019", None),
        ("27 June 2019", "2019-06-27"),
        ("27-Jun-2019", "2019-06-27"),
        ("June 27th, 2019", "2019-06-27"),
        ("2019-02-30", None),
        ("2019-13-01", None),
        ("0000", None),
        ("yesterday", None),
        ("", None),
        ("٢٠١٩-٠٦-٢٧T١٨:٣٣", None),
    ],
)
def test_dates_are_read_as_exactly_as_they_are_stated(text: str, read: str | None) -> None:
    assert vocabulary.day(text) == read


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("CC BY 4.0", "CC-BY-4.0"),
        ("cc-by-4.0", "CC-BY-4.0"),
        ("Attribution 4.0 International (CC BY 4.0)", "CC-BY-4.0"),
        ("CC BY-NC-SA 3.0", "CC-BY-NC-SA-3.0"),
        ("Creative Commons Attribution-NonCommercial 4.0", "CC-BY-NC-4.0"),
        ("https://creativecommons.org/licenses/by-sa/4.0/", "CC-BY-SA-4.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("CC0", "CC0-1.0"),
        ("CC BY", None),
        ("all rights reserved", None),
        ("CC BY 9.9", None),
    ],
)
def test_licences_become_spdx_identifiers_or_nothing(text: str, read: str | None) -> None:
    assert vocabulary.licence(text) == read


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("10.6019/EMPIAR-11759", "10.6019/EMPIAR-11759"),
        ("https://doi.org/10.6019/EMPIAR-11759.", "10.6019/EMPIAR-11759"),
        ("doi:10.25378/janelia.24222898", "10.25378/janelia.24222898"),
        ("10.6019/", None),
        ("pending", None),
    ],
)
def test_a_doi_is_found_in_its_text(text: str, read: str | None) -> None:
    assert vocabulary.doi(text) == read


def test_what_is_not_understood_is_quoted_and_says_who_said_it() -> None:
    about = About(
        modality="EMDB",
        doi="pending",
        licence="CC BY 4.0",
        imaging_date="in spring",
        organism=" Danio\x07 rerio ",
        authors=("A. Author", "", "\x00"),
        stated={"modality": Provenance(source="api", where="experiment_type")},
    )
    assert (about.modality, about.doi, about.imaging_date) == ("other", None, None)
    assert (about.licence, about.organism, about.authors) == (
        "CC-BY-4.0", "Danio  rerio", ("A. Author",),
    )  # fmt: skip
    assert about.stated["modality"].said == "EMDB"
    assert about.stated["modality"].where == "experiment_type"
    assert about.stated["licence"].said == "CC BY 4.0"
    assert about.remarks == (
        "modality: 'EMDB' is no modality that is understood",
        "doi: 'pending' is no DOI that is understood",
        "imaging date: 'in spring' is no date that is understood",
    )
    assert About.model_validate_json(about.model_dump_json()) == about


def test_a_revised_field_is_read_like_the_first() -> None:
    about = About(imaging_date="in spring", modality="EMDB")
    later = about.revised(
        imaging_date="11.06.2018",
        stated={"imaging_date": Provenance(source="file", where="a tag")},
    )
    assert later.imaging_date == "2018-06-11"
    assert later.stated["imaging_date"].source == "file"
    assert later.stated["modality"].said == "EMDB"
    assert later.remarks == ("modality: 'EMDB' is no modality that is understood",)


_TEXT = st.none() | st.text(max_size=80) | st.sampled_from(
    ["10.1/x", "10.12345/\ud800", "2019-06-27T18:33:40", "2019-06-27T24:00:00Z", "EMDB", "CC BY"]
)  # fmt: skip


_WORDS = ("title", "description", "modality", "organism", "specimen")
_MORE = ("licence", "citation", "doi", "imaging_date", "release_date")


@given(
    words=st.fixed_dictionaries({}, optional=dict.fromkeys(_WORDS + _MORE, _TEXT)),
    authors=st.lists(st.text(max_size=20), max_size=3),
)
def test_no_text_makes_an_invalid_record(
    tmp_path_factory: pytest.TempPathFactory, words: dict[str, Any], authors: list[str]
) -> None:
    plan = a_plan((2, 3, 4)).model_copy(update={"about": About(**words, authors=authors)})
    store = LocalStore(tmp_path_factory.mktemp("store"), durable=False)
    assert schema_errors(_begun(store, plan)) == []


def _begun(store: Store, plan: VolumePlan) -> dict[str, Any]:
    return MetadataManager(store).begin(
        plan.source,
        plan.source_id,
        plan.name,
        core=describe.core(plan),
        provenance=describe.provenance(plan),
        quality={"notes": describe.notes(plan)},
    )


def test_the_record_states_who_says_what(tmp_path: Any) -> None:
    about = About(
        modality="SXT",
        licence="CC0-1.0",
        doi="none yet",
        stated={"licence": Provenance(source="archive", where="its FAQ")},
    )
    plan = a_plan((2, 3, 4)).model_copy(
        update={
            "about": about,
            "stated": {"voxel_size_nm.z": Provenance(source="assumed")},
        }
    )
    record = _begun(LocalStore(tmp_path, durable=False), plan)
    assert record["metadata"]["provenance"]["stated"] == {
        "voxel_size_nm.z": {"source": "assumed"},
        "modality": {"source": "api", "said": "SXT"},
        "licence": {"source": "archive", "where": "its FAQ"},
        "doi": {"source": "api", "said": "none yet"},
    }
    assert record["metadata"]["core"]["modality"] == "X-ray"
    assert "doi: 'none yet' is no DOI that is understood" in record["metadata"]["quality"]["notes"]


def test_the_words_change_nothing_of_what_a_volume_is() -> None:
    plan = a_plan((2, 3, 4))
    other = plan.model_copy(
        update={
            "about": About(modality="SXT"),
            "stated": {"voxel_size_nm.z": Provenance(source="assumed")},
        }
    )
    assert plan.identity() == other.identity()
