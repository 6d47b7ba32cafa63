"""Make a Prefect server know macroscope: work pool, concurrency limits, deployments.

``python -m flows.register`` can run again at any time: what is there is brought up to date. The
chart runs it after each install and upgrade, k8s/base as a Job, ``macroscope deploy`` on a desk.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.workers.process import ProcessWorker
from pydantic import ValidationError

from lib.archives.registry import REGISTRY, archive, recommended_limits
from lib.config.errors import Refusals
from lib.config.manager import ConfigManager
from lib.errors import ConfigError, TransportError
from lib.ingest.datasets import Dataset, check, jobs_of, refusal
from tasks.limits import limit_name

_log = logging.getLogger(__name__)

_IMAGE_SCRIPT = "k8s/image.sh"
_FILES = resources.files("flows.resources")  # prefect.yaml and the job template, in a wheel too
OVERRIDABLE = ("enabled", "job_variables", "parameters", "schedules", "concurrency_limit", "tags")
# begins the slugs of schedules that are made here; what a person adds in the UI has none
_SLUG = "registered"


def wait_for_api(client: SyncPrefectClient, seconds: float) -> None:
    """Return once the API answers. Raises `TransportError`: it did not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while (error := client.api_healthcheck()) is not None:
        if time.monotonic() > deadline:
            raise TransportError(
                f"the Prefect API did not answer within {seconds:g} s: {error}",
                location=str(client.api_url),
                advice="See that the server runs and that this address is right",
            )
        time.sleep(1)


def ensure_pool(
    client: SyncPrefectClient,
    name: str,
    kind: str,
    template: dict[str, Any],
    *,
    resume: bool = False,
) -> None:
    """Create the work pool, or bring its job template up to date.

    Parameters
    ----------
    resume
        Let a paused pool work again. An uninstall pauses it, and a database that is kept would keep
        that too; in an upgrade a pause is somebody's wish, so it stays and is only logged.

    Raises
    ------
    ConfigError
        There is a pool of this name, but of another type, or of another namespace's installation.
    """
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=template))
        return
    if pool.type != kind:
        raise ConfigError(
            f"work pool {name!r} is of type {pool.type!r}, not {kind!r}",
            location="work pool",
            advice="Choose another name, or delete it: prefect work-pool delete " + name,
        )
    theirs, ours = _namespace(pool.base_job_template), _namespace(template)
    if theirs != ours and theirs and not pool.is_paused:
        raise ConfigError(
            f"work pool {name!r} makes its Jobs in namespace {theirs!r}, not {ours!r}: another "
            "installation uses it, and the clean-up of each would end the other's runs",
            location="work pool",
            advice="Give each installation a Prefect server or workspace; where the other is gone: "
            f"prefect work-pool pause {name}, then register again",
        )
    change = WorkPoolUpdate(base_job_template=template)
    if pool.is_paused and resume:
        change.is_paused = False
        _log.warning("work pool %s was paused, as an uninstall leaves it: resumed", name)
    elif pool.is_paused:
        _log.warning(
            "work pool %s is paused, no run will start: prefect work-pool resume %s", name, name
        )
    client.update_work_pool(name, change)


def _namespace(template: Mapping[str, Any]) -> str | None:
    """The namespace of a job template of ours; None of one that Prefect's worker made by itself."""
    variables = template.get("variables", {}).get("properties", {})
    found: str | None = variables.get("namespace", {}).get("default")
    return found if "data_volume" in variables else None


def job_template(kind: str, path: Path | None) -> dict[str, Any]:
    """The pool's job template: from ``path``, or the one that this kind of pool has by default."""
    if path is None and kind == "process":
        return ProcessWorker.get_default_base_job_template()
    template: dict[str, Any] = json.loads((path or _FILES / "job-template.json").read_text())
    return template


def with_registry(document: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """A prefect.yaml with a deployment for each archive of the registry that it does not name.

    They are like that of the first source it does name, but for entrypoint, description and tags.
    """
    items = list(document["deployments"])
    known = {deployment_key(item) for item in items}
    pattern = next(item for item in items if "source" in item["tags"])
    for name in names:
        if f"{name}/ingest" not in known:
            own = {
                "entrypoint": f"flows.sources.{name}",
                "description": archive(name).title,
                "tags": ["macroscope", "source", name],
                "parameters": {},
            }
            items.append({**pattern, **own})
    return {**document, "deployments": items}


def merge_overrides(
    document: Mapping[str, Any], overrides: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """A prefect.yaml with some deployments changed.

    Parameters
    ----------
    document
        The parsed prefect.yaml.
    overrides
        Deployment (``ebi/ingest``) to what differs: ``enabled`` (False leaves it out),
        ``job_variables`` and ``parameters`` (merged), ``schedules``, ``concurrency_limit``,
        ``tags`` (replaced).

    Raises
    ------
    ConfigError
        An unknown deployment or an unknown key.
    """
    known = {deployment_key(item): item for item in document["deployments"]}
    for key, change in overrides.items():
        if key not in known:
            raise ConfigError(f"no deployment {key!r}; there are {', '.join(sorted(known))}")
        if unknown := sorted(set(change) - set(OVERRIDABLE)):
            raise ConfigError(f"{key}: cannot override {', '.join(unknown)}", location=key)
    merged = [
        _merge_one(item, overrides.get(key, {}))
        for key, item in known.items()
        if overrides.get(key, {}).get("enabled", True)
    ]
    return {**document, "deployments": merged}


def deployment_key(item: Mapping[str, Any]) -> str:
    """``ebi/ingest`` for the entry that deploys flow ``flows.ebi.ebi`` as ``ingest``."""
    return f"{item['entrypoint'].rsplit('.', 1)[-1]}/{item['name']}"


def _merge_one(item: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(item)
    pool = dict(merged.get("work_pool") or {})
    pool["job_variables"] = {**(pool.get("job_variables") or {}), **change.get("job_variables", {})}
    merged["work_pool"] = pool
    merged["parameters"] = {**(merged.get("parameters") or {}), **change.get("parameters", {})}
    for key in ("concurrency_limit", "tags"):
        if key in change:
            merged[key] = change[key]
    if "schedules" in change:
        merged["schedules"] = _with_slugs(change["schedules"])
    return merged


def _with_slugs(schedules: Iterable[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    return [{"slug": f"{_SLUG}-{n}", **one} for n, one in enumerate(schedules or (), start=1)]


def retire_schedules(
    client: SyncPrefectClient,
    keys: Iterable[str],
    overrides: Mapping[str, Mapping[str, Any]],
) -> None:
    """Take away the schedules that an earlier registration made and this one does not name.

    ``prefect deploy`` leaves what is there where it is given no schedule, and knows nothing of a
    deployment that is left out: both would go on starting runs. A deployment that is not enabled
    keeps its history and loses all its schedules; elsewhere those that a person added stay.

    Parameters
    ----------
    keys
        All deployments that there could be, as ``ebi/ingest``.
    overrides
        As for `merge_overrides`.
    """
    for key in keys:
        change = overrides.get(key, {})
        enabled = change.get("enabled", True)
        wanted = {one["slug"] for one in _with_slugs(change.get("schedules"))} if enabled else set()
        try:
            found = client.read_deployment_by_name(key)
        except ObjectNotFound:
            continue
        for schedule in found.schedules:
            slug = schedule.slug or ""
            if not enabled or (slug.startswith(f"{_SLUG}-") and slug not in wanted):
                _log.warning("%s: a schedule that is no longer asked for is taken away", key)
                client.delete_deployment_schedule(found.id, schedule.id)
            elif slug not in wanted:
                _log.warning(
                    "%s has a schedule that this registration does not name, and keeps it; to end "
                    "it: prefect deployment schedule delete %s %s",
                    key,
                    key,
                    schedule.id,
                )


def _datasets(listed: Sequence[Mapping[str, Any]]) -> list[Dataset]:
    refused, found = Refusals(), []
    for number, one in enumerate(listed, start=1):
        with refused.noting():
            try:
                found.append(Dataset.model_validate(one))
            except ValidationError as error:
                first = error.errors()[0]
                detail = {**first, "loc": ("datasets", number - 1, *first["loc"])}
                raise refusal(detail, f"dataset {number}") from None
    refused.raise_all()
    return found


def deploy(
    document: Mapping[str, Any], pool: str, overrides: Mapping[str, Mapping[str, Any]]
) -> int:
    """Run ``prefect --no-prompt deploy --all`` over a prefect.yaml.

    Returns
    -------
    int
        Its exit code.
    """
    environ = {**os.environ, "PREFECT_DEPLOYMENTS_DEFAULT_WORK_POOL_NAME": pool}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prefect.yaml"
        path.write_text(yaml.safe_dump(merge_overrides(document, overrides), sort_keys=False))
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        done = subprocess.run(
            [*command, "--prefect-file", str(path)], cwd=_home(), env=environ, check=False
        )
    return done.returncode


def for_folder(document: dict[str, Any], home: Path) -> dict[str, Any]:
    """A prefect.yaml without the steps whose script a folder does not have.

    A wheel brings no image to build, and no ``k8s/image.sh``.
    """
    if (home / _IMAGE_SCRIPT).is_file():
        return document
    kept = {
        stage: [step for step in document.get(stage) or () if _IMAGE_SCRIPT not in str(step)]
        for stage in ("build", "push")
    }
    return {**document, **kept}


def _home() -> Path:
    """The folder in which runs work: where they find ``.env`` and ``config/config.yaml``.

    The checkout where there is one, else the current folder.
    """
    checkout = Path(__file__).parents[1]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def politeness() -> dict[str, int]:
    """Global concurrency limits: the connections that each archive's service is asked to bear."""
    found = recommended_limits()
    return {limit_name(one): found[one].connections for one in sorted(found)}


def _limit(text: str) -> tuple[str, int]:
    name, _, slots = text.partition("=")
    if not name or not slots.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=SLOTS")
    return name, int(slots)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flows.register", description=__doc__)
    parser.add_argument("--pool", default="macroscope", help="work pool")
    parser.add_argument("--type", default="process", choices=("process", "kubernetes"))
    parser.add_argument("--template", type=Path, help="base job template (JSON)")
    parser.add_argument("--overrides", type=Path, help="what differs from prefect.yaml (YAML)")
    parser.add_argument(
        "--config",
        type=Path,
        help="configuration of the runs (YAML): what they would refuse is refused here",
    )
    parser.add_argument(
        "--limit",
        type=_limit,
        action="append",
        default=[],
        metavar="NAME=SLOTS",
        help="global concurrency limit; macroscope-<service> ones have defaults",
    )
    parser.add_argument(
        "--resume", action="store_true", help="let a pool that is paused work again (an install)"
    )
    parser.add_argument("--wait-seconds", type=float, default=300, help="for the API")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the registration; returns the exit code."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    template = job_template(args.type, args.template)
    overrides = {} if args.overrides is None else yaml.safe_load(args.overrides.read_text()) or {}
    if args.config is not None:
        loaded = ConfigManager().load(environ={}, dotenv=None, path=args.config)
        refused = Refusals()  # now what scheduled runs would refuse at night
        for key, change in overrides.items():
            parameters = change.get("parameters") or {}
            with refused.noting():
                check(jobs_of(_datasets(parameters.get("datasets") or ())), loaded)
            if isinstance(config := parameters.get("config"), Mapping):
                with refused.noting():
                    loaded.loader(key.partition("/")[0], config)
        refused.raise_all()
    if not PREFECT_API_URL.value():  # Prefect would start a server, which ends with this command
        raise ConfigError(
            "no Prefect server is named",
            location="PREFECT_API_URL",
            advice="Start one and name it: `macroscope up`, then `source .macroscope/client.env`",
        )
    with get_client(sync_client=True) as client:
        wait_for_api(client, args.wait_seconds)
        ensure_pool(client, args.pool, args.type, template, resume=args.resume)
        for name, slots in {**politeness(), **dict(args.limit)}.items():
            client.upsert_global_concurrency_limit_by_name(name, slots)
        # every deployment that there is, for the folder in which runs work
        document = with_registry(yaml.safe_load((_FILES / "prefect.yaml").read_text()), REGISTRY)
        document = for_folder(document, _home())
        if (code := deploy(document, args.pool, overrides)) == 0:
            retire_schedules(client, map(deployment_key, document["deployments"]), overrides)
    return code


if __name__ == "__main__":
    sys.exit(main())
