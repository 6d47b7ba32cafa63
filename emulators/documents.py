"""JSON documents of the archives, in one place for the servers that answer with them."""

from __future__ import annotations

from emulators.dvid_documents import DVID_INSTANCE, DVID_SIZE_XYZ, DVID_UUID, dvid_info
from emulators.empiar_documents import empiar_accessions, empiar_entry
from emulators.omero_documents import (
    OMERO_IMAGES,
    dataset_images,
    image_datasets,
    img_data,
    map_annotations,
    omero_image,
    original_file_paths,
    project_annotations,
    project_datasets,
    projects,
)

__all__ = [
    "DVID_INSTANCE",
    "DVID_SIZE_XYZ",
    "DVID_UUID",
    "OMERO_IMAGES",
    "dataset_images",
    "dvid_info",
    "empiar_accessions",
    "empiar_entry",
    "image_datasets",
    "img_data",
    "map_annotations",
    "omero_image",
    "original_file_paths",
    "project_annotations",
    "project_datasets",
    "projects",
]
