"""The public archives' addresses, character by character: a typo here fetches nothing, or worse."""

from __future__ import annotations

from lib.config.loaders import (
    EBIConfig,
    EPFLConfig,
    FlyEMConfig,
    IDRConfig,
    OpenOrganelleConfig,
)


def test_ebi_asks_empiar() -> None:
    config = EBIConfig()
    assert config.entry_id == "11759"
    assert config.accession == "EMPIAR-11759"
    assert config.ftp_server == "ftp.ebi.ac.uk"
    assert config.https_base_url == "https://ftp.ebi.ac.uk"
    assert config.api_base_url == "https://www.ebi.ac.uk/empiar/api"


def test_epfl_keeps_the_blank_in_its_folder_name_escaped_once() -> None:
    assert EPFLConfig().download_url == (
        "https://documents.epfl.ch/groups/c/cv/cvlab-unit/www/data/"
        "%20ElectronMicroscopy_Hippocampus/volumedata.tif"
    )
    assert EPFLConfig().source_id == "EPFL-CA1-HIPPOCAMPUS"


def test_flyem_asks_the_hemibrain_grayscale_root() -> None:
    config = FlyEMConfig()
    assert config.dvid_server == "https://hemibrain-dvid.janelia.org"
    assert config.uuid == "a89eb3af216a46cdba81204d8f954786"
    assert config.instance == "grayscale"


def test_idr_asks_one_root_without_a_doubled_api_path() -> None:
    config = IDRConfig()
    assert config.image_ids == [9846137]
    assert config.ftp_host == "ftp.ebi.ac.uk"
    assert config.ftp_root_path == "/pub/databases/IDR"
    assert config.https_base_url == "https://ftp.ebi.ac.uk"
    assert config.api_base_url == "https://idr.openmicroscopy.org"
    assert config.path_mappings == {"/uod/idr/filesets": ""}


def test_openorganelle_asks_the_open_bucket() -> None:
    config = OpenOrganelleConfig()
    assert config.s3_uri == "s3://janelia-cosem-datasets"
    assert config.s3_endpoint_url is None
    assert config.s3_region == "us-east-1"
    assert config.s3_anonymous is True
    assert config.container_uri == "s3://janelia-cosem-datasets/jrc_mus-nacc-2/jrc_mus-nacc-2.zarr"
    assert config.zarr_paths == ("recon-2/em",)
    assert config.scale_levels == ("s1",)
