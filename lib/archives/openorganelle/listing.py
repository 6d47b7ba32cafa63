"""The data sets of OpenOrganelle's bucket, and the volumes of one; found by listing.

And what is known of them, beside what their own documents say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lib.about import Provenance
from lib.archives.listed import Item, described, holder, refused
from lib.bytesource.bucket_tree import S3Tree
from lib.bytesource.tree import join
from lib.errors import MacroscopeError, NotFoundError, StoppedError
from lib.formats import registry
from lib.formats.format import Options, VolumeDescription
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


def _known(dataset: str) -> dict[str, str | None]:
    """What a row says by this table, which knows nothing of most data sets."""
    about = _ABOUT.get(dataset, About())
    return {
        "title": about.title,
        "organism": about.organism,
        "technique": about.modality,
        "licence": about.licence,
    }


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


_CONTAINERS = (".zarr", ".n5")


def datasets(tree: S3Tree, prefix: str) -> list[str]:
    """Names of the folders of the bucket: each is a data set."""
    return sorted(key.strip("/").rpartition("/")[2] for key in tree.list(prefix).prefixes)


def list_datasets(tree: S3Tree, prefix: str) -> list[Item]:
    """A row for each data set."""
    return [_dataset(name) for name in datasets(tree, prefix)]


def search_datasets(tree: S3Tree, prefix: str, words: list[str]) -> list[Item]:
    """The data sets of whose name, title or specimen all words are part."""
    found = []
    for item in list_datasets(tree, prefix):
        about = _ABOUT.get(item.name)
        texts = [item.name]
        if about is not None:
            texts += [str(t) for t in (about.title, about.organism, about.specimen, about.modality)]
        told = " ".join(texts).casefold()
        if all(word.casefold() in told for word in words):
            found.append(item)
    return found


def list_dataset(
    tree: S3Tree, bucket: str, prefix: str, dataset: str, inside: str = ""
) -> list[Item]:
    """A row for each multiscale and array in the containers of a data set.

    Parameters
    ----------
    inside
        Path in the data set's own ``.zarr``; empty: all containers.

    Raises
    ------
    NotFoundError
        There is no such data set; the error lists what there is.
    """
    folder = join(prefix, dataset)
    own = f"{folder}/{dataset}.zarr"
    keys = [key.strip("/") for key in tree.list(folder).prefixes]
    containers = [key for key in keys if key.endswith(_CONTAINERS)]
    if not containers:
        raise NotFoundError(
            f"there is no data set {dataset}",
            archive="openorganelle",
            location=f"s3://{bucket}/{folder}",
            advice=f"There are: {', '.join(datasets(tree, prefix)) or 'none'}",
        )
    if inside:
        containers = [own]
    found: list[Item] = []
    for key in sorted(containers, key=lambda one: one != own):
        found += _container(tree, bucket, key, dataset if key == own else None, inside)
    return found


def _container(
    tree: S3Tree, bucket: str, key: str, dataset: str | None, inside: str
) -> Iterator[Item]:
    try:
        formats = [registry.tree_format(name) for name in registry.TREE_FORMATS]
        fitting = [fmt for fmt in formats if fmt.fits(tree, key)]
        volumes = [
            (fmt.name, one) for fmt in fitting for one in fmt.describe(tree, key, inside, Options())
        ]
    except StoppedError:
        raise
    except MacroscopeError as error:
        if inside:  # the user's own word: a row would say that it is there
            raise
        yield refused(f"s3://{bucket}/{key}", key.rpartition("/")[2], error.message, "folder")
        return
    for fmt, volume in volumes:
        path = _without_level(volume)
        ours = dataset is not None and fmt == "zarr2"
        address = f"openorganelle:{dataset}/{path}" if ours else f"s3://{bucket}/{key}|{fmt}:{path}"
        item = described(address, f"{key.rpartition('/')[2]}/{path}", volume)
        if item.kind != "labels":
            known = _known(dataset or "").items()
            item = item.model_copy(
                update={name: value for name, value in known if getattr(item, name) is None}
            )
        yield item


def _without_level(volume: VolumeDescription) -> str:
    """The path of the multiscale, whose level is an option."""
    if volume.level and volume.levels and volume.path.endswith(f"/{volume.level}"):
        return volume.path.removesuffix(f"/{volume.level}")
    return volume.path


def _dataset(name: str) -> Item:
    return holder(f"openorganelle:{name}", name, "dataset", **_known(name))
