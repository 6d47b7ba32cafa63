"""What a run would bring in: the sources that are selected, each asked for its plans at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from lib.archives.address.grammar import SettingsBySource, rounds
from lib.archives.registry import REGISTRY, default_sources
from lib.concurrency import cancel as stopping
from lib.config.errors import Refusals
from lib.config.loaders import LoaderConfig
from lib.config.manager import LoadedSettings
from lib.config.settings import Settings
from lib.errors import MacroscopeError, StoppedError
from lib.execution import check_sources
from lib.ingest.costs import VolumeCost, cost_of
from lib.ingest.datasets import Job
from lib.ingest.stages import plan_source
from lib.plan import VolumePlan
from lib.storage.base import StoreSettings
from lib.storage.local_lock import scratch_folder
from lib.storage.open import open_store

MOST_AT_ONCE = 8
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Planned:
    """One source's plans with their costs, and why others have none.

    Attributes
    ----------
    data_uri
        Folder or bucket of its volumes.
    skipped
        Volumes that exceed ``max_array_size_mb`` where these are left out.
    requests
        What planning asked of the archive, and a run asks once more.
    """

    source: str
    config: LoaderConfig
    data_uri: str
    plans: tuple[VolumePlan, ...] = ()
    skipped: tuple[VolumePlan, ...] = ()
    costs: tuple[VolumeCost, ...] = ()
    errors: tuple[MacroscopeError, ...] = ()
    requests: int = 0


def configs(
    loaded: LoadedSettings, rounds: Sequence[SettingsBySource]
) -> list[tuple[str, LoaderConfig]]:
    """Each selected source with its settings.

    Raises
    ------
    ConfigError
        Settings are wrong; those of all sources are named.
    """
    refused, found = Refusals(), []
    for source, own in (pair for given in rounds for pair in given.items()):
        with refused.noting():
            found.append((source, loaded.loader(source, own)))
    refused.raise_all()
    return found


def plan_all(
    loaded: LoadedSettings,
    rounds: Sequence[SettingsBySource],
    access: StoreSettings,
) -> list[Planned]:
    """Plans of all selected sources, in their order; a source that fails stops no other.

    Nothing but metadata is fetched. Archives are asked at the same time, each within its limits.

    Parameters
    ----------
    rounds
        Settings by source, see `lib.ingest.planning.by_round`.
    access
        How to reach the destination: names of volumes depend on what lies there.

    Raises
    ------
    ConfigError
        Settings are wrong.
    StoppedError
        A stop was requested.
    """
    chosen = configs(loaded, rounds)
    ratio = loaded.settings.assumed_compression
    with scratch_folder("plan") as scratch:

        def one(source: str, config: LoaderConfig) -> Planned:
            data_uri = str(config.output_dir or loaded.settings.data_dir)
            try:
                own = config.model_copy(update={"dry_run": True})  # without a destination, too
                found = plan_source(source, own, scratch, open_store(data_uri, access))
                costs = tuple(cost_of(plan, config, ratio) for plan in found.plans)
            except StoppedError:
                raise
            except MacroscopeError as error:
                return Planned(source, config, data_uri, errors=(error.located(archive=source),))
            return Planned(
                source,
                config,
                data_uri,
                found.plans,
                found.skipped,
                costs,
                found.failed,
                found.requests,
            )

        workers = max(1, min(MOST_AT_ONCE, len(chosen)))
        with ThreadPoolExecutor(workers, thread_name_prefix="plan") as pool:
            asked = [pool.submit(one, *pair) for pair in chosen]
            try:
                # a wait without end may miss a signal that comes just before it
                while wait(asked, timeout=_LOOK_S).not_done:
                    pass
                return [future.result() for future in asked]
            except BaseException:
                stopping.request_stop()
                raise


def by_round(
    sources: Sequence[str] | None,
    addresses: Sequence[str] | None,
    parameters: Mapping[str, Mapping[str, Any]],
    settings: Settings,
    jobs: Sequence[Job] = (),
) -> list[SettingsBySource]:
    """Settings by source, in as many rounds as one source has different settings.

    Parameters
    ----------
    sources
        By their names; all that have something to bring in where neither they nor addresses are
        given.
    parameters
        Further settings, by source; those that an address implies are stronger.
    jobs
        Datasets, each in a round of its own.

    Raises
    ------
    ConfigError
        A source is unknown, an address cannot be read, or nothing is selected.
    """
    found: list[SettingsBySource] = []
    if sources or not (addresses or jobs):
        selected = check_sources(sources or default_sources(settings.sources), REGISTRY)
        found.append({name: dict(parameters.get(name, {})) for name in selected})
    for given in rounds(addresses or ()):
        found.append({name: {**parameters.get(name, {}), **own} for name, own in given.items()})
    found += [with_parameters(job, parameters) for job in jobs]
    return found


def with_parameters(job: Job, parameters: Mapping[str, Mapping[str, Any]]) -> SettingsBySource:
    """A dataset's source with its settings; what the run says of the source is weaker."""
    return {job.source: {**parameters.get(job.source, {}), **job.settings}}
