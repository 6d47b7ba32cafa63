"""Settings come in layers; each value knows its origin, and nothing unknown is let in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from yaml import safe_dump as yaml_text

from lib.config.loaders import (
    LOADER_CONFIGS,
    EBIConfig,
    FlyEMConfig,
    LoaderConfig,
    OpenOrganelleConfig,
)
from lib.config.manager import ConfigManager, LoadedSettings
from lib.config.settings import Settings
from lib.config.sources import Keys
from lib.errors import ConfigError

ROOT = Path(__file__).parents[3]
SECRET = "wJalrXUtnFEMI"
SERVICES = {
    "EBI": {"ftp_server": "127.0.0.1:2121", "https_base_url": "http://127.0.0.1:8001"},
    "FLYEM": {"dvid_server": "http://127.0.0.1:8005"},
}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No .env and no config/config.yaml but those that a test writes."""
    monkeypatch.chdir(tmp_path)


def load(
    parameters: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    yaml: str | None = None,
    dotenv: str | None = None,
) -> LoadedSettings:
    if yaml is not None:
        Path("config").mkdir(exist_ok=True)
        Path("config/config.yaml").write_text(yaml, encoding="utf-8")
    if dotenv is not None:
        Path(".env").write_text(dotenv, encoding="utf-8")
    return ConfigManager().load(parameters, environ or {})


def crop(loaded: LoadedSettings) -> tuple[tuple[int, int, int], str]:
    config = loaded.settings.sources["flyem"]
    assert isinstance(config, FlyEMConfig)
    return config.crop_size, loaded.origins.get("sources.flyem.crop_size", "default")


# --- precedence

LAYERS: list[tuple[str, dict[str, Any], tuple[int, int, int], str]] = [
    ("parameter", {"parameters": {"sources": {"flyem": {"crop_size": (5, 5, 5)}}}}, (5, 5, 5), ""),
    ("environment", {"environ": {"FLYEM_CROP_SIZE": "4,4,4"}}, (4, 4, 4), " FLYEM_CROP_SIZE"),
    (".env", {"dotenv": "FLYEM_CROP_SIZE=3,3,3\n"}, (3, 3, 3), ""),
    ("config/config.yaml", {"yaml": "sources: {flyem: {crop_size: [2, 2, 2]}}"}, (2, 2, 2), ""),
    ("default", {}, (1000, 1000, 1000), ""),
]


@pytest.mark.parametrize("strongest", range(len(LAYERS)))
def test_a_stronger_layer_wins_and_is_named_as_the_origin(strongest: int) -> None:
    given: dict[str, Any] = {}
    for _, layer, _, _ in LAYERS[strongest:]:
        given |= layer
    origin, _, value, suffix = LAYERS[strongest]
    assert crop(load(**given)) == (value, origin + suffix)


def test_layers_are_merged_key_by_key() -> None:
    loaded = load(
        yaml="sources: {flyem: {crop_size: [2, 2, 2], instance: other}}",
        environ={"FLYEM_CROP_SIZE": "4,4,4"},
    )
    config = loaded.loader("flyem")
    assert isinstance(config, FlyEMConfig)
    assert (config.crop_size, config.instance) == ((4, 4, 4), "other")


def test_a_common_value_reaches_every_loader() -> None:
    loaded = load(environ={"EM_OUTPUT_FORMAT": "npy", "MAX_WORKERS": "3"})
    for config in loaded.settings.sources.values():
        assert (config.output_format, config.max_workers) == ("npy", 3)
    assert loaded.origins["sources.idr.output_format"] == "environment EM_OUTPUT_FORMAT"


def test_within_a_layer_the_loaders_own_value_wins_whatever_the_order() -> None:
    for yaml in (
        "sources: {ebi: {max_workers: 7}}\ncommon: {max_workers: 3}",
        "common: {max_workers: 3}\nsources: {ebi: {max_workers: 7}}",
    ):
        sources = load(yaml=yaml).settings.sources
        assert (sources["ebi"].max_workers, sources["idr"].max_workers) == (7, 3)


def test_a_common_value_of_a_stronger_layer_wins_over_a_loaders_own() -> None:
    loaded = load(yaml="sources: {ebi: {max_workers: 7}}", environ={"MAX_WORKERS": "3"})
    assert loaded.settings.sources["ebi"].max_workers == 3


def test_nulls_and_empty_variables_mean_not_given() -> None:
    loaded = load(
        {"data_dir": None, "sources": {"flyem": {"crop_size": None}}},
        {"EM_DATA_DIR": "", "FLYEM_CROP_SIZE": " "},
        yaml="data_dir:\nsources: {flyem: {crop_size: [2, 2, 2]}, ebi: }\ncommon:\n",
    )
    assert crop(loaded) == ((2, 2, 2), "config/config.yaml")
    assert loaded.settings.data_dir == "data"


# --- every name that users have

NAMES: dict[str, tuple[str, str, Any]] = {
    "EM_EXECUTION_MODE": ("parallel", "execution_mode", "parallel"),
    "EM_DATA_DIR": ("/somewhere", "data_dir", "/somewhere"),
    "EM_METADATA_DIR": ("/records", "metadata_dir", "/records"),
    "EM_LOGS_DIR": ("/logs", "logs_dir", "/logs"),
    "EM_ARCHIVES": ("samples", "archives", "samples"),
    "EM_SERVICES": (json.dumps(SERVICES), "services", json.dumps(SERVICES)),
    "EM_DASK": ("local", "dask", "local"),
    "EM_DASK_WORKERS": ("4", "dask_workers", 4),
    "EM_DASK_OPTIONS": ('{"queue": "q"}', "dask_options", '{"queue": "q"}'),
    "EM_DASK_ADDRESS": ("tcp://10.0.0.1:8786", "dask_address", "tcp://10.0.0.1:8786"),
    "EM_DASK_MIN_MB": ("200", "dask_min_mb", 200.0),
    "EPFL_HEAVY": ("true", "sources.epfl.heavy", True),
    "EM_SUBFLOWS": ("deployments", "subflows", "deployments"),
    "EM_DEST_ENDPOINT_URL": ("127.0.0.1:8333", "dest_endpoint_url", "http://127.0.0.1:8333"),
    "EM_DEST_REGION": ("eu-west-2", "dest_region", "eu-west-2"),
    "EM_DEST_ANONYMOUS": ("true", "dest_anonymous", True),
    "EM_DEST_PROFILE": ("lab", "dest_profile", "lab"),
    "EM_DEST_LEASE_SECONDS": ("30", "dest_lease_seconds", 30.0),
    "EM_DEST_DURABLE": ("false", "dest_durable", False),
    "EM_DEST_ADDRESSING_STYLE": ("path", "dest_addressing_style", "path"),
    "EM_DEST_CA_BUNDLE": ("/ca.pem", "dest_ca_bundle", "/ca.pem"),
    "EM_DEST_CREDENTIALS_BLOCK": (
        "aws-credentials/store",
        "dest_credentials_block",
        "aws-credentials/store",
    ),
    "EM_OUTPUT_FORMAT": ("npy", "sources.epfl.output_format", "npy"),
    "EM_KEEP_RAW": ("false", "sources.epfl.keep_raw", False),
    "MAX_WORKERS": ("5", "sources.epfl.max_workers", 5),
    "EBI_ENTRY_ID": ("EMPIAR-10094", "sources.ebi.entry_id", "10094"),
    "EBI_PROTOCOL": ("https", "sources.ebi.protocol", "https"),
    "EPFL_VOXEL_SIZE_NM": ("5,5,5.1", "sources.epfl.voxel_size_nm", (5.0, 5.0, 5.1)),
    "FLYEM_INSTANCE": ("grayscale_1", "sources.flyem.instance", "grayscale_1"),
    "FLYEM_CROP_SIZE": ("[256, 128, 64]", "sources.flyem.crop_size", (256, 128, 64)),
    "FLYEM_MAX_CONNECTIONS": ("1", "sources.flyem.max_connections", 1),
    "IDR_IMAGE_IDS": ("9846137,9846138", "sources.idr.image_ids", [9846137, 9846138]),
    "IDR_PATH_MAPPINGS": ('{"/a": "b"}', "sources.idr.path_mappings", {"/a": "b"}),
    "OPENORGANELLE_DATASET_ID": (
        "jrc_hela-2",
        "sources.openorganelle.dataset_id",
        "jrc_hela-2",
    ),
    "OPENORGANELLE_SCALE_LEVEL": ("s3,s4", "sources.openorganelle.scale_level", ["s3", "s4"]),
}


def value_of(loaded: LoadedSettings, dotted: str) -> Any:
    if dotted.startswith("sources."):
        _, name, key = dotted.split(".")
        return getattr(loaded.settings.sources[name], key)
    return getattr(loaded.settings, dotted)


@pytest.mark.parametrize("name", NAMES)
def test_an_environment_name_sets_its_key(name: str) -> None:
    text, dotted, value = NAMES[name]
    loaded = load(environ={name: text})
    assert value_of(loaded, dotted) == value
    assert loaded.origins[dotted] == f"environment {name}"


@pytest.mark.parametrize("name", NAMES)
def test_the_same_name_works_in_dotenv(name: str) -> None:
    text, dotted, value = NAMES[name]
    loaded = load(dotenv=f"{name}='{text}'\nPREFECT_API_URL=http://elsewhere\n")
    assert value_of(loaded, dotted) == value
    assert loaded.origins[dotted] == ".env"


@pytest.mark.parametrize("where", ["environ", "dotenv", "path"])
def test_another_yaml_file_can_be_named(where: str) -> None:
    Path("other.yaml").write_text("logs_dir: elsewhere", encoding="utf-8")
    if where == "environ":
        loaded = load(environ={"EM_CONFIG_PATH": "other.yaml"}, yaml="logs_dir: wrong")
    elif where == "dotenv":
        loaded = load(dotenv="EM_CONFIG_PATH=other.yaml", yaml="logs_dir: wrong")
    else:
        loaded = ConfigManager().load(environ={}, path="other.yaml")
    assert loaded.settings.logs_dir == "elsewhere"
    assert loaded.origins["logs_dir"] == "other.yaml"


def test_a_named_yaml_file_that_is_absent_is_an_error() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(environ={"EM_CONFIG_PATH": "absent.yaml"})


# --- refusals


@pytest.mark.parametrize(
    ("given", "key", "near"),
    [
        ({"yaml": "execution_mod: staged"}, "execution_mod", "execution_mode"),
        ({"yaml": "common: {max_worker: 3}"}, "common.max_worker", "max_workers"),
        ({"yaml": "sources: {eby: {}}"}, "sources.eby", "ebi"),
        ({"yaml": "sources: {ebi: {entry: 1}}"}, "sources.ebi.entry", "entry_id"),
        ({"parameters": {"data_dirs": "x"}}, "data_dirs", "data_dir"),
        ({"environ": {"EM_DATA_DIRR": "x"}}, "EM_DATA_DIRR", "EM_DATA_DIR"),
        ({"environ": {"EM_MODE": "parallel"}}, "EM_MODE", "EM_EXECUTION_MODE"),
        ({"environ": {"EM_DATA": "x"}}, "EM_DATA", "EM_DATA_DIR"),
        ({"environ": {"EBI_ENTRYID": "1"}}, "EBI_ENTRYID", "EBI_ENTRY_ID"),
        ({"environ": {"FLYEM_CROPSIZE": "1"}}, "FLYEM_CROPSIZE", "FLYEM_CROP_SIZE"),
        ({"dotenv": "IDR_IMAGE_ID=1"}, "IDR_IMAGE_ID", "IDR_IMAGE_IDS"),
    ],
)
def test_an_unknown_name_is_refused_with_the_near_one(
    given: dict[str, Any], key: str, near: str
) -> None:
    with pytest.raises(ConfigError, match=rf"did you mean .*'{near}'.*\?") as caught:
        load(**given)
    assert caught.value.location == key
    assert caught.value.message.startswith(f"{key}: ")


@pytest.mark.parametrize(
    ("given", "key", "origin"),
    [
        ({"environ": {"FLYEM_CROP_SIZE": "0,1,1"}}, "crop_size", "environment FLYEM_CROP_SIZE"),
        ({"environ": {"MAX_WORKERS": "-1"}}, "max_workers", "environment MAX_WORKERS"),
        ({"dotenv": "EM_OUTPUT_FORMAT=hdf5"}, "output_format", ".env"),
        ({"yaml": "common: {timeout_seconds: soon}"}, "timeout_seconds", "config/config.yaml"),
    ],
)
def test_an_impossible_loader_value_names_key_and_origin(
    given: dict[str, Any], key: str, origin: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"(from {origin})")) as caught:
        load(**given)
    assert re.fullmatch(rf"(sources\.\w+|common)\.{key}", caught.value.location or "")


@pytest.mark.parametrize(
    ("yaml", "key", "allowed"),
    [
        ("execution_mode: fast", "execution_mode", "staged, background, parallel, sequential"),
        ("archives: mine", "archives", "'public' or 'samples'"),
        ("dask: perhaps", "dask", "'auto', 'kubernetes', 'local', 'off'"),
        ("subflows: both", "subflows", "'inline' or 'deployments'"),
        ("data_dir: gs://bucket", "data_dir", "s3://bucket"),
        ("dest_addressing_style: any", "dest_addressing_style", "'path'"),
        ("dest_credentials_block: mine", "dest_credentials_block", "pattern"),
        ("dest_endpoint_url: 'ftp://x'", "dest_endpoint_url", "http or https"),
        ("dest_key: abc", "dest_key", "dest_secret"),
        (
            "{dest_key: a, dest_secret: b, dest_credentials_block: s3-bucket/x}",
            "dest_credentials_block",
            "contradicts dest_key",
        ),
    ],
)
def test_an_impossible_setting_is_refused_by_its_key(yaml: str, key: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(yaml=yaml)
    assert caught.value.location == key
    assert allowed in caught.value.message


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("a: [", "not valid YAML"),
        ("data_dir: a\ndata_dir: b", "'data_dir' is there twice"),
        ("- a list", "must be a mapping"),
        ("sources: [ebi]", "sources: must be a mapping"),
        ("sources: {ebi: 11759}", "sources.ebi: must be a mapping"),
        ("data_dir: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_broken_file_is_refused(yaml: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load(yaml=yaml)


def test_the_service_links_of_kubernetes_are_not_taken_for_settings() -> None:
    links = {
        "EM_PREFECT_SERVICE_HOST": "10.0.0.1",
        "EM_PREFECT_SERVICE_PORT": "4200",
        "EM_PREFECT_SERVICE_PORT_HTTP": "4200",
        "EM_PREFECT_PORT": "tcp://10.0.0.1:4200",
        "EM_PREFECT_PORT_4200_TCP": "tcp://10.0.0.1:4200",
        "EM_PREFECT_PORT_4200_TCP_ADDR": "10.0.0.1",
        "IDR_PORT": "tcp://10.0.0.2:21",
    }
    assert load(environ=links).settings == load().settings


# --- values are read as they are written

TRICKY = ("010324", "0x1F", "0b11", "1_000", "1e5", "1.50", "2024-01-15", "yes", "off", "Null1")
IDS = {
    "ebi.entry_id": ("010324", "007", "0"),
    "epfl.source_id": TRICKY,
    "flyem.uuid": ("010324", "123e45", "0000", "20240115", "1e5"),
    "flyem.instance": TRICKY,
    "openorganelle.dataset_id": TRICKY,
    "openorganelle.s3_region": TRICKY,
}


@pytest.mark.parametrize(("key", "text"), [(key, text) for key in IDS for text in IDS[key]])
def test_an_id_is_the_text_that_was_written(key: str, text: str) -> None:
    source, field = key.split(".")
    more = ", zarr_path: recon-1/em" if source == "openorganelle" else ""
    loaded = load(yaml=f"sources: {{{source}: {{{field}: {text}{more}}}}}")
    assert value_of(loaded, f"sources.{key}") == text
    variables = {f"{source.upper()}_{field.upper()}": text}
    if more:
        variables["OPENORGANELLE_ZARR_PATH"] = "recon-1/em"
    assert value_of(load(environ=variables), f"sources.{key}") == text


@pytest.mark.parametrize("text", ["2024", "12:30", "on", "2024-01-15"])
def test_a_folder_is_the_text_that_was_written(text: str) -> None:
    settings = load(yaml=f"data_dir: {text}\nlogs_dir: {text}").settings
    assert (settings.data_dir, settings.logs_dir) == (text, text)


def test_an_id_that_json_gives_as_a_number_is_its_digits() -> None:
    given = {"flyem": {"uuid": 1234567}, "ebi": {"entry_id": 10324}, "epfl": {"source_id": 7}}
    sources = load({"sources": given}).settings.sources
    assert [getattr(sources[name], key) for name in given for key in given[name]] == [
        "1234567",
        "10324",
        "7",
    ]
    with pytest.raises(ConfigError, match="uuid"):
        load({"sources": {"flyem": {"uuid": 1e5}}})


def test_a_number_is_decimal_and_nothing_else() -> None:
    loaded = load(yaml="common: {max_workers: 010}\nsources: {idr: {image_ids: [0123, 8]}}")
    assert value_of(loaded, "sources.ebi.max_workers") == 10
    assert value_of(loaded, "sources.idr.image_ids") == [123, 8]
    for text in ("12:30", "0x10", "true", "2024-01-15"):
        with pytest.raises(ConfigError, match="max_workers"):
            load(yaml=f"common: {{max_workers: {text}}}")


def test_every_default_can_be_written_in_yaml() -> None:
    """Numbers, words, lists, mappings and switches, as YAML itself writes them."""
    defaults = load().settings
    given = {
        name: {
            key: list(value) if isinstance(value, tuple) else value
            for key in type(config).model_fields
            if (value := getattr(config, key)) is not None
        }
        for name, config in defaults.sources.items()
    }
    assert load(yaml=yaml_text({"sources": given})).settings == defaults
    top = {key: getattr(defaults, key) for key in type(defaults).model_fields if key != "sources"}
    given = {key: value for key, value in top.items() if value is not None}
    assert load(yaml=yaml_text(given)).settings == defaults


@pytest.mark.parametrize(
    ("text", "value"), [("yes", True), ("on", True), ("False", False), ("off", False)]
)
def test_a_switch_takes_the_words_of_yaml(text: str, value: bool) -> None:
    assert load(yaml=f"common: {{keep_raw: {text}}}").settings.sources["idr"].keep_raw is value


# --- interpolation


@pytest.mark.parametrize(
    ("text", "environ", "value"),
    [
        ("${PLACE}", {"PLACE": "/there"}, "/there"),
        ("${PLACE:/here}", {}, "/here"),
        ("${PLACE:/here}", {"PLACE": ""}, "/here"),
        ("${PLACE:/here}", {"PLACE": "/there"}, "/there"),
        ("${PLACE:s3://bucket/x}", {}, "s3://bucket/x"),
        ("/a/${ONE}/${TWO:2}", {"ONE": "1"}, "/a/1/2"),
        ("${PLACE:}", {}, "data"),
        ("/a/$${PLACE}", {}, "/a/${PLACE}"),
        ("/a/$PLACE", {"PLACE": "x"}, "/a/$PLACE"),
    ],
)
def test_variables_are_filled_in(text: str, environ: dict[str, str], value: str) -> None:
    assert load(yaml=f"data_dir: '{text}'", environ=environ).settings.data_dir == value


def test_variables_are_filled_in_everywhere_and_from_dotenv() -> None:
    loaded = load(
        yaml="sources: {idr: {image_ids: ['${FIRST}', 8]}, ebi: {max_workers: '${N:3}'}}",
        dotenv="FIRST=7\n",
    )
    assert value_of(loaded, "sources.idr.image_ids") == [7, 8]
    assert value_of(loaded, "sources.ebi.max_workers") == 3


def test_an_unset_variable_without_default_is_named() -> None:
    with pytest.raises(ConfigError, match="variable PLACE is not set") as caught:
        load(yaml="sources: {ebi: {output_dir: '${PLACE}'}}")
    assert caught.value.location == "sources.ebi.output_dir"


@pytest.mark.parametrize("text", ["${}", "${1X}", "${A B}", "${PLACE:-/here}"])
def test_a_malformed_reference_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not of the form"):
        load(yaml=f"data_dir: '{text}'", environ={"PLACE": "x"})


# --- stand-ins


@pytest.mark.parametrize("form", ["json", "path", "document"])
def test_services_lead_the_loaders_to_stand_ins(form: str) -> None:
    Path("services.json").write_text(json.dumps(SERVICES), encoding="utf-8")
    if form == "document":
        loaded = load({"services": SERVICES})
    else:
        text = json.dumps(SERVICES) if form == "json" else "services.json"
        loaded = load(environ={"EM_SERVICES": text})
    assert loaded.settings.archives == "samples"
    assert value_of(loaded, "sources.ebi.ftp_server") == "127.0.0.1:2121"
    assert loaded.origins["sources.ebi.ftp_server"] == "services"
    assert crop(loaded) == ((96, 80, 72), "samples")


def test_the_addresses_of_stand_ins_win_over_the_file_but_sizes_do_not() -> None:
    loaded = load(
        yaml="sources: {flyem: {crop_size: [9, 9, 9], dvid_server: real.test}}",
        environ={"EM_SERVICES": json.dumps(SERVICES)},
    )
    assert value_of(loaded, "sources.flyem.dvid_server") == "http://127.0.0.1:8005"
    assert crop(loaded) == ((9, 9, 9), "config/config.yaml")


def test_what_the_user_says_wins_over_stand_ins() -> None:
    environ = {
        "EM_SERVICES": json.dumps(SERVICES),
        "FLYEM_CROP_SIZE": "4,4,4",
        "FLYEM_DVID_SERVER": "127.0.0.1:1",
    }
    loaded = load(environ=environ)
    assert crop(loaded) == ((4, 4, 4), "environment FLYEM_CROP_SIZE")
    assert value_of(loaded, "sources.flyem.dvid_server") == "http://127.0.0.1:1"
    again = loaded.loader("flyem", {"dvid_server": "127.0.0.1:2", "crop_size": [5, 5, 5]})
    assert isinstance(again, FlyEMConfig)
    assert (again.dvid_server, again.crop_size) == ("http://127.0.0.1:2", (5, 5, 5))


def test_public_archives_asked_for_by_name_leave_stand_ins_aside() -> None:
    environ = {"EM_SERVICES": json.dumps(SERVICES), "EM_ARCHIVES": "public"}
    loaded = load(environ=environ)
    assert value_of(loaded, "sources.ebi.ftp_server") == "ftp.ebi.ac.uk"
    assert crop(loaded) == ((1000, 1000, 1000), "default")


def test_without_known_stand_ins_no_loader_goes_to_the_public_archive() -> None:
    loaded = load(environ={"EM_ARCHIVES": "samples"})
    assert loaded.needs_samples
    with pytest.raises(ConfigError, match="nothing says where they are"):
        loaded.loader("ebi")
    partly = load(environ={"EM_SERVICES": json.dumps(SERVICES)})
    assert not partly.needs_samples
    assert isinstance(partly.loader("ebi"), EBIConfig)
    with pytest.raises(ConfigError, match="no endpoint of epfl"):
        partly.loader("epfl")
    assert partly.loader("epfl", {"download_url": "127.0.0.1:9"})


@pytest.mark.parametrize(
    ("services", "said"),
    [
        ("absent.json", "cannot be read"),
        ("{", "not valid JSON"),
        ('{"EBI": {"ftp_serve": "x"}}', "did you mean 'ftp_server'?"),
        ('{"EBY": {}}', "did you mean 'ebi'?"),
        ('{"EBI": "x"}', "must be a mapping"),
    ],
)
def test_a_wrong_services_document_is_refused(services: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load(environ={"EM_SERVICES": services})


# --- loaders


def test_overrides_are_the_strongest_layer() -> None:
    loaded = load(environ={"EBI_ENTRY_ID": "1", "EBI_MAX_WORKERS": "3"})
    config = loaded.loader("ebi", {"entry_id": "2", "max_workers": None})
    assert isinstance(config, EBIConfig)
    assert (config.entry_id, config.max_workers) == ("2", 3)


def test_of_a_config_given_only_what_was_set_counts() -> None:
    loaded = load(environ={"OPENORGANELLE_S3_ENDPOINT_URL": "127.0.0.1:9", "MAX_WORKERS": "3"})
    given = OpenOrganelleConfig(dataset_id="jrc_hela-2", zarr_path="recon-1/em")
    config = loaded.loader("openorganelle", given)
    assert isinstance(config, OpenOrganelleConfig)
    assert config.dataset_id == "jrc_hela-2"
    assert config.s3_endpoint_url == "http://127.0.0.1:9"
    assert config.max_workers == 3


def test_an_impossible_override_is_refused_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"sources\.ebi\.max_workers: 0 is refused"):
        load().loader("ebi", {"max_workers": 0})
    with pytest.raises(ConfigError, match="no such setting"):
        load().loader("ebi", FlyEMConfig(crop_size=(1, 1, 1)))
    with pytest.raises(ConfigError, match="did you mean 'ebi'"):
        load().loader("ebo")


def test_volumes_go_to_the_data_folder_unless_the_loader_says_otherwise() -> None:
    loaded = load(environ={"EM_DATA_DIR": "/a", "IDR_OUTPUT_DIR": "/b"})
    assert loaded.loader("ebi").output_dir == "/a"
    assert loaded.loader("idr").output_dir == "/b"
    assert loaded.origins["sources.ebi.output_dir"] == "environment EM_DATA_DIR"


def test_a_bucket_takes_the_metadata_along() -> None:
    loaded = load(environ={"EM_DATA_DIR": "s3://bucket/prefix/"})
    assert loaded.settings.metadata_dir == "s3://bucket/prefix/metadata"
    assert load(environ={"EM_DATA_DIR": "/a"}).settings.metadata_dir == "metadata"


def test_on_kubernetes_subflows_are_deployments_unless_said_otherwise() -> None:
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    assert load().settings.subflows == "inline"
    assert load(environ=pod).settings.subflows == "deployments"
    assert load(environ=pod | {"EM_SUBFLOWS": "inline"}).settings.subflows == "inline"


def test_a_sixth_archive_needs_only_its_model() -> None:
    class SixthConfig(LoaderConfig):
        plate: int = 1

    manager = ConfigManager({**LOADER_CONFIGS, "sixth": SixthConfig})
    loaded = manager.load(environ={"SIXTH_PLATE": "4", "MAX_WORKERS": "3"})
    config = loaded.loader("sixth")
    assert isinstance(config, SixthConfig)
    assert (config.plate, config.max_workers) == (4, 3)
    with pytest.raises(ConfigError, match="SIXTH_PLATE"):
        manager.load(environ={"SIXTH_PLAT": "4"})


# --- what is shown


def test_every_value_is_explained_with_its_origin() -> None:
    loaded = load(environ={"FLYEM_CROP_SIZE": "4,4,4"}, yaml="dask: 'off'")
    rows = {key: (value, origin) for key, value, origin in loaded.explain()}
    assert rows["sources.flyem.crop_size"] == ("4,4,4", "environment FLYEM_CROP_SIZE")
    assert rows["dask"] == ("off", "config/config.yaml")
    assert rows["logs_dir"] == ("logs", "default")
    assert rows["sources.ebi.box"] == ("", "default")
    expected = set(Settings.model_fields) - {"sources"}
    for name, model in LOADER_CONFIGS.items():
        expected |= {f"sources.{name}.{key}" for key in model.model_fields}
    assert set(rows) == expected


def test_a_secret_is_never_shown() -> None:
    loaded = load(
        environ={
            "EM_DEST_KEY": SECRET,
            "EM_DEST_SECRET": SECRET,
            "OPENORGANELLE_S3_KEY": SECRET,
            "OPENORGANELLE_S3_SECRET": SECRET,
        }
    )
    assert loaded.settings.dest_secret is not None
    assert loaded.settings.dest_secret.get_secret_value() == SECRET
    rows = {key: value for key, value, _ in loaded.explain()}
    assert rows["dest_secret"] == rows["sources.openorganelle.s3_secret"] == "***"
    settings = loaded.settings
    shown = f"{loaded!r} {settings!r} {settings.model_dump()} {settings.model_dump_json()} {rows}"
    assert SECRET not in shown
    assert SECRET not in repr(loaded.given)


def test_a_refusal_never_shows_a_secret() -> None:
    for environ in ({"EM_DEST_SECRET": SECRET}, {"OPENORGANELLE_S3_SECRET": SECRET}):
        with pytest.raises(ConfigError) as caught:
            load(environ=environ)
        assert SECRET not in str(caught.value)


def test_source_and_destination_have_separate_credentials() -> None:
    loaded = load(environ={"EM_DEST_KEY": "A", "EM_DEST_SECRET": "B"})
    config = loaded.loader("openorganelle")
    assert isinstance(config, OpenOrganelleConfig)
    assert config.s3_anonymous and config.s3_key is None


# --- the files that users copy


def uncommented(text: str) -> str:
    return re.sub(r"^(\s*)#(?=[A-Za-z_0-9]+[:=])", r"\1", text, flags=re.MULTILINE)


def test_the_shipped_yaml_changes_nothing() -> None:
    shipped = (ROOT / "config/config.yaml").read_text(encoding="utf-8")
    assert load(yaml=shipped).settings == load(yaml="").settings


def test_the_shipped_yaml_shows_every_setting_with_its_default() -> None:
    shipped = uncommented((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    loaded = load(yaml=shipped)
    assert loaded.settings == load(yaml="").settings
    commons = set(Keys(frozenset(), {}).common)
    for key, model in LOADER_CONFIGS.items():
        own = re.split(rf"^  {key}:$", shipped, flags=re.MULTILINE)[1].split("\n\n")[0]
        for field in set(model.model_fields) - set(LoaderConfig.model_fields):
            assert re.search(rf"^    {field}:", own, re.MULTILINE), (key, field)
    for field in commons:
        assert re.search(rf"^  {field}:", shipped, re.MULTILINE), field
    for field in set(Settings.model_fields) - {"sources"}:
        assert re.search(rf"^{field}:", shipped, re.MULTILINE), field


def test_the_shipped_dotenv_example_names_only_settings() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert load(dotenv=example).settings == load(dotenv="").settings
    Path("config").mkdir()
    for name in ("config/config.yaml", "services.json"):
        Path(name).write_text("{}", encoding="utf-8")
    plain = load(dotenv="").settings
    filled = load(dotenv=uncommented(example)).settings
    changed = {"services", "sources"}  # sources: crop_size and the like are given in full there
    assert filled.model_dump(exclude=changed) == plain.model_dump(exclude=changed)
    assert filled.sources == plain.sources
