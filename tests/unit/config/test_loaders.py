"""Loader settings take what people write, refuse the rest by key, and never show a secret."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from lib.config.errors import build
from lib.config.loaders import (
    LOADER_CONFIGS,
    EBIConfig,
    EPFLConfig,
    FlyEMConfig,
    IDRConfig,
    LoaderConfig,
    OpenOrganelleConfig,
)
from lib.errors import ConfigError

SECRET = "wJalrXUtnFEMI"


@pytest.mark.parametrize("name", LOADER_CONFIGS)
def test_every_field_of_every_loader_is_described(name: str) -> None:
    fields = LOADER_CONFIGS[name].model_fields
    assert [key for key, field in fields.items() if not field.description] == []


@pytest.mark.parametrize("name", LOADER_CONFIGS)
def test_a_model_survives_its_own_dump(name: str) -> None:
    model = LOADER_CONFIGS[name]
    assert model.model_validate(model().model_dump(mode="json")) == model()


@pytest.mark.parametrize("name", LOADER_CONFIGS)
def test_a_model_cannot_be_changed(name: str) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        LOADER_CONFIGS[name]().max_workers = 9


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("archive.test:443", "https://archive.test:443"),
        ("archive.test", "https://archive.test"),
        ("http://archive.test/", "http://archive.test"),
        ("https://archive.test:8443/mirror/", "https://archive.test:8443/mirror"),
        ("[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_an_http_endpoint_is_host_port_or_url(given: str, normal: str) -> None:
    assert FlyEMConfig(dvid_server=given).dvid_server == normal
    assert EBIConfig(https_base_url=given).https_base_url == normal


@pytest.mark.parametrize("given", ["127.0.0.1:2121", "ftp://127.0.0.1:2121/"])
def test_an_ftp_endpoint_is_host_port(given: str) -> None:
    assert EBIConfig(ftp_server=given).ftp_server == "127.0.0.1:2121"
    assert IDRConfig(ftp_host=given).ftp_host == "127.0.0.1:2121"


def test_epfl_server_alone_means_the_public_path_there() -> None:
    url = EPFLConfig(download_url="127.0.0.1:9000").download_url
    public = EPFLConfig().download_url
    assert url == public.replace("https://documents.epfl.ch", "http://127.0.0.1:9000")
    assert EPFLConfig(download_url="http://h/%20a/b.tif").download_url == "http://h/%20a/b.tif"


REFUSALS: list[tuple[type[LoaderConfig], dict[str, Any], str, str]] = [
    (EBIConfig, {"output_format": "tiff"}, "output_format", "'zarr' or 'npy'"),
    (EBIConfig, {"max_workers": 0}, "max_workers", "greater than 0"),
    (EBIConfig, {"max_workers": -2}, "max_workers", "greater than 0"),
    (EBIConfig, {"max_workers": True}, "max_workers", "a number is needed"),
    (EBIConfig, {"max_workers": "many"}, "max_workers", "valid integer"),
    (EBIConfig, {"timeout_seconds": 0}, "timeout_seconds", "greater than 0"),
    (EBIConfig, {"timeout_seconds": "inf"}, "timeout_seconds", "finite"),
    (EBIConfig, {"max_missing_fraction": 1.5}, "max_missing_fraction", "less than or equal to 1"),
    (EBIConfig, {"max_missing_fraction": "nan"}, "max_missing_fraction", "or equal to 0"),
    (EBIConfig, {"dry_run": "perhaps"}, "dry_run", "valid boolean"),
    (EBIConfig, {"box": "q=0:3"}, "box", "not of the form"),
    (EBIConfig, {"box": "z=9:3"}, "box", "start before it stops"),
    (EBIConfig, {"downsample_factor": 3}, "downsample_factor", "power of two"),
    (EBIConfig, {"downsample_factor": 1}, "downsample_factor", "power of two"),
    (EBIConfig, {"large_array_mode": "guess"}, "large_array_mode", "'stream', 'downsample'"),
    (EBIConfig, {"chunk_zyx": "64,64"}, "chunk_zyx", "Field required"),
    (EBIConfig, {"chunk_zyx": [64, 0, 64]}, "chunk_zyx", "greater than 0"),
    (EBIConfig, {"output_dir": ""}, "output_dir", "folder or s3"),
    (EBIConfig, {"output_dir": "gs://bucket"}, "output_dir", "s3://bucket"),
    (EBIConfig, {"output_dir": "s3://bucket/../other"}, "output_dir", "without '.'"),
    (EBIConfig, {"entry_id": "EMD-1"}, "entry_id", "EMPIAR accession"),
    (EBIConfig, {"assemble": "some"}, "assemble", "'auto', 'stack' or 'files'"),
    (EBIConfig, {"protocol": "gopher"}, "protocol", "'auto', 'ftp' or 'https'"),
    (EBIConfig, {"ftp_server": "http://ftp.test"}, "ftp_server", "must be ftp"),
    (EBIConfig, {"ftp_server": "ftp.test/empiar"}, "ftp_server", "without a path"),
    (EBIConfig, {"api_base_url": "not an address"}, "api_base_url", "no blanks"),
    (EBIConfig, {"api_base_url": "file:///etc/passwd"}, "api_base_url", "not an address"),
    (EBIConfig, {"api_base_url": "file://host/etc"}, "api_base_url", "http or https"),
    (EBIConfig, {"api_base_url": "host:99999"}, "api_base_url", "not an address"),
    (EBIConfig, {"api_base_url": ""}, "api_base_url", "not an address"),
    (EPFLConfig, {"voxel_size_nm": [5, 5, 0]}, "voxel_size_nm", "greater than 0"),
    (EPFLConfig, {"voxel_size_nm": {"x": 5, "y": 5}}, "voxel_size_nm", "exactly z, y and x"),
    (EPFLConfig, {"chunk_size_mb": -1}, "chunk_size_mb", "greater than 0"),
    (EPFLConfig, {"source_id": "../x"}, "source_id", "match pattern"),
    (FlyEMConfig, {"crop_size": "0,1,1"}, "crop_size", "greater than 0"),
    (FlyEMConfig, {"crop_size": [-1, 1, 1]}, "crop_size", "greater than 0"),
    (FlyEMConfig, {"crop_size": "[1, 2"}, "crop_size", "valid JSON"),
    (FlyEMConfig, {"crop_origin": "1,2,here"}, "crop_origin", "valid integer"),
    (FlyEMConfig, {"uuid": "main branch"}, "uuid", "match pattern"),
    (FlyEMConfig, {"instance": "a/b"}, "instance", "match pattern"),
    (FlyEMConfig, {"random_seed": -1}, "random_seed", "greater than or equal to 0"),
    (IDRConfig, {"image_ids": []}, "image_ids", "name at least one"),
    (IDRConfig, {"image_ids": [5, 5]}, "image_ids", "twice"),
    (IDRConfig, {"image_ids": [-5]}, "image_ids", "greater than 0"),
    (IDRConfig, {"path_mappings": {"/a": "../b"}}, "path_mappings", "without '.'"),
    (IDRConfig, {"path_mappings": "{"}, "path_mappings", "valid JSON"),
    (OpenOrganelleConfig, {"s3_uri": "http://bucket"}, "s3_uri", "s3://bucket"),
    (OpenOrganelleConfig, {"s3_uri": "s3://b/x.zarr/em"}, "s3_uri", "zarr_path"),
    (OpenOrganelleConfig, {"zarr_path": "../em"}, "zarr_path", "without '.'"),
    (OpenOrganelleConfig, {"zarr_path": []}, "zarr_path", "at least one"),
    (OpenOrganelleConfig, {"scale_level": "fine"}, "scale_level", "level such as s1"),
    (OpenOrganelleConfig, {"scale_level": []}, "scale_level", "at least one"),
    (
        OpenOrganelleConfig,
        {"s3_uri": "s3://b/jrc_hela-2.zarr", "dataset_id": "jrc_mus-nacc-2"},
        "dataset_id",
        "contradicts",
    ),
    (OpenOrganelleConfig, {"voxel_size": [4, 4]}, "voxel_size", "Field required"),
]


@pytest.mark.parametrize(("model", "values", "key", "allowed"), REFUSALS)
def test_an_impossible_value_is_refused_by_its_key(
    model: type[LoaderConfig], values: dict[str, Any], key: str, allowed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build(model, values, archive="some")
    assert caught.value.location == key
    assert caught.value.message.startswith(f"{key}: ")
    assert allowed in caught.value.message
    assert caught.value.archive == "some"


@pytest.mark.parametrize("name", LOADER_CONFIGS)
def test_an_unknown_key_is_refused_with_the_near_one(name: str) -> None:
    with pytest.raises(ConfigError, match=r"max_worker: .*did you mean 'max_workers'\?"):
        build(LOADER_CONFIGS[name], {"max_worker": 3})


def test_every_refused_key_is_told_not_only_the_first() -> None:
    with pytest.raises(ConfigError) as caught:
        build(EBIConfig, {"max_workers": 0, "output_format": "x", "color": 1})
    for key in ("max_workers", "output_format", "color"):
        assert f"{key}: " in caught.value.message


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    url = f"https://me:{SECRET}@archive.test/x?X-Amz-Signature={SECRET}"
    with pytest.raises(ConfigError, match="credentials") as caught:
        build(EBIConfig, {"https_base_url": url})
    assert SECRET not in str(caught.value)


def test_a_query_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="query") as caught:
        build(EPFLConfig, {"download_url": f"https://a.test/x.tif?sig={SECRET}"})
    assert SECRET not in str(caught.value)


def test_accessions_have_one_form() -> None:
    for given in ("11759", "EMPIAR-11759", "empiar-11759", 11759):
        assert EBIConfig.model_validate({"entry_id": given}).accession == "EMPIAR-11759"


@pytest.mark.parametrize("given", ["256,128,64", "[256, 128, 64]", [256, 128, 64], (256, 128, 64)])
def test_a_triple_is_text_or_json_or_a_list(given: Any) -> None:
    assert FlyEMConfig(crop_size=given).crop_size == (256, 128, 64)


def test_a_voxel_size_by_name_is_put_into_z_y_x() -> None:
    named = {"x": 4.0, "y": 4.0, "z": 2.96}
    assert OpenOrganelleConfig.model_validate({"voxel_size": named}).voxel_size == (2.96, 4.0, 4.0)


def test_an_idr_dataset_alone_does_not_drag_the_default_image_in() -> None:
    assert IDRConfig(dataset_id=10740).image_ids == []
    assert IDRConfig(dataset_id=10740, image_ids=[7]).image_ids == [7]
    assert IDRConfig.model_validate({"image_ids": "7, 8"}).image_ids == [7, 8]
    assert IDRConfig.model_validate({"image_ids": 7}).image_ids == [7]


@pytest.mark.parametrize(
    ("dataset", "path"),
    [
        ("jrc_mus-nacc-2", "recon-2/em"),
        ("jrc_hela-2", "recon-1/em"),
        ("jrc_macrophage-2", "recon-1/em"),
        ("jrc_jurkat-1", "recon-1/em"),
        ("jrc_cos7-1", "recon-1/em"),
    ],
)
def test_the_dataset_id_alone_is_enough(dataset: str, path: str) -> None:
    config = OpenOrganelleConfig(dataset_id=dataset)
    assert config.container_uri == f"s3://janelia-cosem-datasets/{dataset}/{dataset}.zarr"
    assert config.zarr_paths == (path,)


def test_the_em_of_another_dataset_is_looked_for() -> None:
    assert OpenOrganelleConfig(dataset_id="jrc_new-1").zarr_paths == ()


def test_a_whole_zarr_address_names_its_dataset() -> None:
    config = OpenOrganelleConfig(s3_uri="s3://b/jrc_hela-2/jrc_hela-2.zarr/")
    assert config.dataset_id == "jrc_hela-2"
    assert config.container_uri == "s3://b/jrc_hela-2/jrc_hela-2.zarr"


def test_paths_and_levels_are_one_or_several() -> None:
    config = OpenOrganelleConfig(
        zarr_path=["recon-2/em/", "recon-2/labels"], scale_level=["s2", "s4"]
    )
    assert config.zarr_paths == ("recon-2/em", "recon-2/labels")
    assert config.scale_levels == ("s2", "s4")
    assert OpenOrganelleConfig(scale_level="s2,s4").scale_levels == ("s2", "s4")
    assert OpenOrganelleConfig(scale_level="all").scale_levels is None
    assert OpenOrganelleConfig(zarr_path="recon-1/em").zarr_path == "recon-1/em"


def test_a_key_means_signed_requests() -> None:
    signed = OpenOrganelleConfig.model_validate({"s3_key": "AKIA", "s3_secret": SECRET})
    assert signed.s3_anonymous is False
    assert signed.s3_secret is not None
    assert signed.s3_secret.get_secret_value() == SECRET
    with pytest.raises(ConfigError, match="s3_anonymous: true contradicts s3_key"):
        build(OpenOrganelleConfig, {"s3_key": "A", "s3_secret": SECRET, "s3_anonymous": True})
    with pytest.raises(ConfigError, match="one without the other"):
        build(OpenOrganelleConfig, {"s3_secret": SECRET})


def test_a_secret_is_never_shown_but_reaches_a_worker() -> None:
    config = OpenOrganelleConfig.model_validate({"s3_key": SECRET, "s3_secret": SECRET})
    shown = f"{config!r} {config} {config.model_dump()} {config.model_dump_json()}"
    assert SECRET not in shown
    assert "s3_secret" not in config.model_dump()
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize(
    "values", [{"s3_secret": SECRET}, {"s3_key": SECRET, "s3_secret": 5}, {"s3_key": [SECRET]}]
)
def test_a_refusal_never_shows_a_secret(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as ours:
        build(OpenOrganelleConfig, values)
    with pytest.raises(ValidationError) as theirs:
        OpenOrganelleConfig.model_validate(values)
    assert SECRET not in str(ours.value)
    assert SECRET not in str(theirs.value)


@pytest.mark.parametrize("name", LOADER_CONFIGS)
def test_the_choices_of_a_loader_choose_the_same_volumes_again(name: str) -> None:
    """They come back from JSON, without secrets, servers, and how a run goes about it."""
    model = LOADER_CONFIGS[name]
    given = {"box": "z=0:3", "codec": "zstd", "max_workers": 7, "output_dir": "/elsewhere"}
    config = model(**given)
    choices = json.loads(json.dumps(config.choices()))
    again = model(**choices)
    assert again.choices() == choices
    assert (again.box, again.codec, again.max_workers) == ("z=0:3", "zstd", 2)
    hidden = {"output_dir", "max_connections", *model.OPERATOR_ONLY}
    assert not hidden & choices.keys()
    assert not [key for key in choices if "secret" in key or key.endswith(("_url", "_server"))]
