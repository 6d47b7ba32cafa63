"""Answers of the OMERO JSON API and web gateway about the stand-in's images.

Image 9846137 carries the names, ids and folders of the public one (IDR, study idr0086), but the
size of the small file that the stand-in serves, because file and catalogue have to agree. Every
id from 99000001 on is invented. As in OMERO, keys without a value are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
ShapeZYX = tuple[int, int, int]

_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06#"
_HOST = "https://idr.openmicroscopy.org"
_MIRON = "idr0086-miron-micrographs/20200610-ftp/experimentD/Miron_FIB-SEM/Miron_FIB-SEM_processed"
_KINDS = "idr9900-standin-tiffkinds/20260101-ftp/experimentA"
_XY = "Figure_S3B_FIB-SEM_U2OS_20x20x20nm_xy.tif"
_XZ = "Figure_S3B_FIB-SEM_U2OS_20x20x20nm_xz.tif"

_SYMBOLS = {"MICROMETER": ("µm", 0.001), "NANOMETER": ("nm", 1.0), "ANGSTROM": ("Å", 10.0)}


@dataclass(frozen=True)
class OmeroImage:
    """What the documents about one image are made from.

    ``voxel_nm_zyx`` is ``None`` where the image has no physical size; ``unit`` is the enumerated
    unit in which the API tells it.
    """

    image_id: int
    name: str
    folder: str
    file: str
    dataset_id: int
    shape_zyx: ShapeZYX
    dtype: str = "uint8"
    voxel_nm_zyx: tuple[float, float, float] | None = (20.0, 20.0, 20.0)
    unit: str = "MICROMETER"
    series: int = 0
    channels: int = 1

    @property
    def path(self) -> str:
        """Path below the study root, the same on FTP, on the mirror and in the filesets."""
        return f"{self.folder}/{self.file}"


def _kind(number: int, file: str, shape_zyx: ShapeZYX, **other: Any) -> OmeroImage:
    name = other.pop("name", file)
    return OmeroImage(99000000 + number, name, _KINDS, file, 99100, shape_zyx, **other)


OMERO_IMAGES: dict[int, OmeroImage] = {
    image.image_id: image
    for image in (
        OmeroImage(9846137, _XY, _MIRON, _XY, 10740, (24, 96, 112)),
        OmeroImage(99000001, _XZ, _MIRON, _XZ, 10740, (96, 24, 112)),
        _kind(2, "single.ome.tiff", (12, 60, 72), dtype="uint16", unit="NANOMETER"),
        _kind(3, "member_Z0.ome.tiff", (6, 48, 56)),
        _kind(4, "pyramid.ome.tiff", (6, 128, 160), voxel_nm_zyx=(40.0, 10.0, 10.0)),
        _kind(5, "big.tif", (10, 50, 70), dtype="uint16", voxel_nm_zyx=None),
        _kind(6, "series.ome.tiff", (8, 48, 64), name="series.ome.tiff [first]"),
        _kind(7, "series.ome.tiff", (5, 40, 56), name="series.ome.tiff [second]", series=1),
        _kind(8, "deflate.ome.tiff", (9, 56, 64), unit="ANGSTROM"),
        _kind(9, "lzw.ome.tiff", (9, 56, 64), dtype="int16", voxel_nm_zyx=(30.0, 5.0, 5.0)),
        _kind(10, "no_physical_size.tif", (7, 44, 52), voxel_nm_zyx=None),
        _kind(11, "two_channels.ome.tiff", (4, 40, 48), channels=2),
    )
}

_DATASETS = {10740: "U2OS_chromatin", 99100: "TIFF kinds"}
_PROJECTS = {
    10740: (1151, "idr0086-miron-micrographs/experimentD"),
    99100: (9900, "idr9900-standin-tiffkinds/experimentA"),
}


def _length(nm: float, unit: str) -> Json:
    symbol, factor = _SYMBOLS[unit]
    value = round(nm * factor, 9)
    return {"@type": "TBD#LengthI", "Unit": unit, "Symbol": symbol, "Value": value}


def _enumeration(kind: str, number: int, value: str) -> Json:
    return {"@id": number, "@type": f"TBD#{kind}", "value": value}


def _pixels(image: OmeroImage) -> Json:
    size_z, size_y, size_x = image.shape_zyx
    pixels: Json = {
        "@id": image.image_id + 1_000_000,
        "@type": f"{_SCHEMA}Pixels",
        "SizeX": size_x,
        "SizeY": size_y,
        "SizeZ": size_z,
        "SizeC": image.channels,
        "SizeT": 1,
    }
    if image.voxel_nm_zyx is not None:
        for axis, nm in zip("ZYX", image.voxel_nm_zyx, strict=True):
            pixels[f"PhysicalSize{axis}"] = _length(nm, image.unit)
    return pixels | {
        "SignificantBits": 8 if image.dtype.endswith("int8") else 16,
        "omero:sha1": f"{image.image_id:040x}",
        "Type": _enumeration("PixelsType", 6, image.dtype),
        "DimensionOrder": _enumeration("DimensionOrder", 1, "XYZCT"),
        "Channels": [
            {
                "@id": image.image_id * 10 + channel,
                "@type": f"{_SCHEMA}Channel",
                "Color": -1,
                "omero:LogicalChannelId": image.image_id * 10 + channel,
            }
            for channel in range(image.channels)
        ],
    }


def omero_image(image_id: int, host: str = _HOST) -> Json | None:
    """Answer of ``/api/v0/m/images/{id}/``, or ``None`` where the archive says 404.

    Parameters
    ----------
    image_id
        OMERO image id.
    host
        Scheme and host that the answer's own links carry.
    """
    image = OMERO_IMAGES.get(image_id)
    if image is None:
        return None
    link = f"{host}/api/v0/m/images/{image_id}"
    data: Json = {
        "@id": image_id,
        "@type": f"{_SCHEMA}Image",
        "Name": image.name,
        "omero:series": image.series,
        "url:datasets": f"{link}/datasets/",
        "url:rois": f"{link}/rois/",
        "omero:details": {
            "@type": "TBD#Details",
            "owner": {"@id": 2, "@type": f"{_SCHEMA}Experimenter", "UserName": "demo"},
            "group": {"@id": 3, "@type": f"{_SCHEMA}ExperimenterGroup", "Name": "demo"},
            "permissions": {"@type": "TBD#Permissions", "perm": "rwr---", "canAnnotate": False},
        },
        "omero:format": _enumeration("Format", 140, "TIFF"),
        "Pixels": _pixels(image),
    }
    if image_id == 9846137:
        data["AcquisitionDate"] = 1561939200000
    return {"data": data}


def _dataset(dataset_id: int, host: str) -> Json:
    return {
        "@id": dataset_id,
        "@type": f"{_SCHEMA}Dataset",
        "Name": _DATASETS[dataset_id],
        "url:images": f"{host}/api/v0/m/datasets/{dataset_id}/images/",
        "omero:childCount": sum(i.dataset_id == dataset_id for i in OMERO_IMAGES.values()),
    }


def image_datasets(image_id: int, host: str = _HOST) -> list[Json] | None:
    """``data`` of ``/api/v0/m/images/{id}/datasets/``, or ``None`` for an unknown image."""
    image = OMERO_IMAGES.get(image_id)
    return None if image is None else [_dataset(image.dataset_id, host)]


def projects() -> list[Json]:
    """``data`` of ``/api/v0/m/projects/``: one for each experiment of a study."""
    title = {
        1151: "Publication Title\nMicrographs of the U2OS nucleus\n\n"
        "Experiment Description\nFIB-SEM of human U2OS cells",
        9900: "Study Title\nKinds of TIFF\n\nStudy Description\nInvented files",
    }
    return [
        {
            "@id": number,
            "@type": f"{_SCHEMA}Project",
            "Name": name,
            "Description": title[number],
        }
        for number, name in dict(_PROJECTS.values()).items()
    ]


def project_datasets(project_id: int, host: str = _HOST) -> list[Json] | None:
    """``data`` of ``/api/v0/m/projects/{id}/datasets/``, or ``None`` for an unknown project."""
    found = [number for number, (project, _) in _PROJECTS.items() if project == project_id]
    return [_dataset(number, host) for number in found] or None


def project_annotations(project_id: int) -> Json | None:
    """Answer of ``/webclient/api/annotations/?type=map&project={id}``."""
    images = [i for i in OMERO_IMAGES.values() if _PROJECTS[i.dataset_id][0] == project_id]
    return map_annotations(images[0].image_id) if images else None


def dataset_images(dataset_id: int, host: str = _HOST) -> list[Json] | None:
    """``data`` of ``/api/v0/m/datasets/{id}/images/``, or ``None`` for an unknown dataset.

    The server adds ``meta`` (offset, limit, maxLimit, totalCount) and cuts the page.
    """
    if dataset_id not in _DATASETS:
        return None
    answers = [
        omero_image(i.image_id, host) for i in OMERO_IMAGES.values() if i.dataset_id == dataset_id
    ]
    return [answer["data"] for answer in answers if answer is not None]


def original_file_paths(image_id: int) -> Json | None:
    """Answer of ``/webgateway/original_file_paths/{id}/``, or ``None`` for an unknown image.

    ``client`` paths begin with ``uod/idr/filesets/`` and have no leading slash; what follows is
    the path below ``/pub/databases/IDR/`` on the archive's FTP server.
    """
    image = OMERO_IMAGES.get(image_id)
    if image is None:
        return None
    fileset = min(i.image_id for i in OMERO_IMAGES.values() if i.path == image.path) + 2_000_000
    return {
        "repo": [f"demo_2/2020-07/22/10-11-12.345/{image.file}"],
        "client": [f"uod/idr/filesets/{image.path}"],
        "fileset": {"id": fileset},
    }


def map_annotations(image_id: int) -> Json | None:
    """Answer of ``/webclient/api/annotations/?type=map&image={id}``."""
    image = OMERO_IMAGES.get(image_id)
    if image is None:
        return None
    real = image.dataset_id == 10740
    groups = {
        "openmicroscopy.org/mapr/organism": [
            ["Organism", "Homo sapiens" if real else "Saccharomyces cerevisiae"]
        ],
        "openmicroscopy.org/mapr/cell_line": [["Cell Line", "U2OS"]] if real else [],
        "openmicroscopy.org/omero/bulk_annotations": [
            ["Term Source 1 Accession", "NCBITaxon_9606" if real else "NCBITaxon_4932"],
            ["Cell Cycle Phase", "G1"],
            ["Imaging Method", "scanning electron microscopy"],
            ["License", "CC BY 4.0"],
            ["Data DOI", "10.17867/10000141d" if real else "10.5072/standin"],
        ],
    }
    annotations = [
        {
            "id": image_id * 10 + number,
            "ns": namespace,
            "class": "MapAnnotationI",
            "owner": {"id": 2},
            "date": "2020-07-22T10:11:12Z",
            "values": values,
            "link": {"parent": {"id": image_id, "name": image.name, "class": "ImageI"}},
        }
        for number, (namespace, values) in enumerate(groups.items())
        if values
    ]
    return {"annotations": annotations, "experimenters": [{"id": 2, "omeName": "demo"}]}


def img_data(image_id: int) -> Json | None:
    """Answer of ``/webgateway/imgData/{id}/``; ``pixel_size`` is in micrometres or null."""
    image = OMERO_IMAGES.get(image_id)
    if image is None:
        return None
    size_z, size_y, size_x = image.shape_zyx
    voxel = image.voxel_nm_zyx or (None, None, None)
    project_id, project = _PROJECTS[image.dataset_id]
    top = 255 if image.dtype == "uint8" else 65535
    return {
        "id": image_id,
        "meta": {
            "imageName": image.name,
            "imageDescription": "",
            "imageAuthor": "Public data",
            "imageTimestamp": 1595412672.0,
            "imageId": image_id,
            "pixelsType": image.dtype,
            "projectName": project,
            "projectId": project_id,
            "datasetName": _DATASETS[image.dataset_id],
            "datasetId": image.dataset_id,
        },
        "size": {"width": size_x, "height": size_y, "z": size_z, "t": 1, "c": image.channels},
        "pixel_size": {
            axis: None if nm is None else round(nm / 1000, 9)
            for axis, nm in zip("zyx", voxel, strict=True)
        },
        "pixel_range": [0, top],
        "channels": [
            {
                "active": True,
                "color": "FFFFFF",
                "label": str(channel),
                "window": {"min": 0.0, "start": 0.0, "end": float(top), "max": float(top)},
            }
            for channel in range(image.channels)
        ],
        "rdefs": {"model": "greyscale", "defaultZ": size_z // 2, "defaultT": 0},
        "perms": {"canAnnotate": False, "canEdit": False, "canDelete": False, "canLink": False},
        "tiles": False,
        "init_zoom": 0,
    }
