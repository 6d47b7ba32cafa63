"""Options that several commands have, as settings; stand-in archives where they are wanted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lib.archives.registry import archive
from lib.config.manager import LoadedSettings
from lib.errors import ConfigError


def take_options(
    *, archives: str | None = None, data_dir: str | None = None, verbose: bool | None = None
) -> None:
    """Lay options that hold for every source over the environment, for this process's children."""
    told = None if verbose is None else str(verbose).lower()
    for name, value in (("EM_ARCHIVES", archives), ("EM_DATA_DIR", data_dir), ("EM_VERBOSE", told)):
        if value is not None:
            os.environ[name] = value


@contextmanager
def stand_ins(loaded: LoadedSettings) -> Iterator[None]:
    """Stand-in archives for this run, where they are wanted and nobody serves them yet."""
    if not loaded.needs_samples:
        yield
        return
    from flows.commands.stand_ins import stand_in_module

    with stand_in_module("serving").Samples() as running:
        os.environ["EM_SERVICES"] = json.dumps(running.endpoints)
        try:
            yield
        finally:
            del os.environ["EM_SERVICES"]


def source_parameters(
    selected: tuple[str, ...],
    common: Mapping[str, Any],
    level: list[str] | None,
    about: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Options of the command line as settings of each selected loader.

    Parameters
    ----------
    about
        What the user says of a volume that is known by its address only.
    """
    given = {name: value for name, value in common.items() if value is not None}
    parameters: dict[str, dict[str, Any]] = {source: dict(given) for source in selected}
    if level:
        leveled = [s for s in selected if "scale_level" in archive(s).config_model.model_fields]
        if not leveled:
            raise ConfigError(
                f"--level: {', '.join(selected)} has no scale levels", location="scale_level"
            )
        for source in leveled:
            parameters[source]["scale_level"] = level[0] if len(level) == 1 else level
    said = {name: value for name, value in (about or {}).items() if value is not None}
    if said and "address" not in parameters:
        raise ConfigError(
            f"{', '.join(sorted(said))}: an archive says this of its own volumes",
            location=min(said),
            advice="Give these options with the address of a file, a folder or a bucket",
        )
    if said:
        parameters["address"] |= said
    return {source: values for source, values in parameters.items() if values}
