"""The settings of one call: the caller's own over environment, ``.env`` and configuration file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lib.config.manager import LoadedSettings
    from lib.ingest.datasets import Job

Address = str | os.PathLike[str]
SourceSettings = Mapping[str, Mapping[str, Any]]


def load(*, data_dir: Address | None = None, archives: str | None = None) -> LoadedSettings:
    """The settings in force; what the caller gives is strongest.

    Raises
    ------
    ConfigError
        A setting is unknown or impossible.
    """
    from lib.config.manager import ConfigManager

    place = None if data_dir is None else os.fspath(data_dir)
    return ConfigManager().load({"data_dir": place, "archives": archives})


@contextmanager
def with_stand_ins(
    loaded: LoadedSettings, *, data_dir: Address | None, archives: str | None
) -> Iterator[LoadedSettings]:
    """The same settings with stand-in archives behind them, where these are wanted and not served.

    Unlike the console command this leaves the environment of the process as it is.
    """
    if not loaded.needs_samples:
        yield loaded
        return
    from flows.commands.options import stand_in_module
    from lib.config.manager import ConfigManager

    place = None if data_dir is None else os.fspath(data_dir)
    with stand_in_module("serving").Samples() as running:
        given = {"data_dir": place, "archives": archives, "services": running.endpoints}
        yield ConfigManager().load(given)


def parameters_of(
    loaded: LoadedSettings,
    addresses: Sequence[str],
    sources: Sequence[str] | None,
    *,
    level: str | Sequence[str] | None,
    common: Mapping[str, Any],
    about: Mapping[str, Any],
    settings: SourceSettings | None,
    jobs: Sequence[Job],
) -> dict[str, dict[str, Any]]:
    """Settings by source: those that all take, those of a level, and each source's own.

    Raises
    ------
    ConfigError
        A source is unknown, or takes no such setting.
    """
    from flows.commands.options import add_own, source_parameters
    from lib.ingest.planning import by_round

    rounds = by_round(sources, addresses, {}, loaded.settings, jobs)
    selected = tuple(dict.fromkeys(source for given in rounds for source in given))
    levels = [level] if isinstance(level, str) else list(level or ())
    found = source_parameters(selected, common, levels, about)
    add_own(found, settings or {}, selected)
    return found


def addresses_of(given: Address | Sequence[Address] | None) -> list[str] | None:
    """One address or several as texts; None where there is none."""
    if given is None:
        return None
    several = [given] if isinstance(given, str | os.PathLike) else given
    wrong = next((one for one in several if not isinstance(one, str | os.PathLike)), None)
    if wrong is not None:
        raise TypeError(
            f"an address is a text or a path, and {wrong!r:.60} is none; several stand one after "
            "another, a list of them with a star: ingest(*addresses)"
        )
    return [os.fspath(one) for one in several] or None
