"""What commands share: options as settings, stand-in archives, one way to end at a signal."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.archives.address.grammar import absolute, settings_of
from lib.archives.registry import REGISTRY, archive
from lib.concurrency import cancel as stopping
from lib.config.errors import nearest, suggestion
from lib.config.manager import ConfigManager, LoadedSettings
from lib.config.settings import Settings
from lib.errors import ConfigError
from lib.execution import mode as find_mode
from lib.ingest.datasets import Dataset, Job, read_datasets
from lib.ingest.planning import by_round
from lib.present.output import say

if TYPE_CHECKING:
    from emulators.s3 import S3Server


def take_options(
    *, archives: str | None = None, data_dir: str | None = None, verbose: bool | None = None
) -> None:
    """Lay options that hold for every source over the environment, for this process's children."""
    told = None if verbose is None else str(verbose).lower()
    for name, value in (("EM_ARCHIVES", archives), ("EM_DATA_DIR", data_dir), ("EM_VERBOSE", told)):
        if value is not None:
            os.environ[name] = value


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a command is to bring in or to plan.

    Attributes
    ----------
    mode
        Of execution; by default that of the settings.
    common
        Settings that every source has.
    about
        What the user says of a volume that is known by its address only.
    datasets
        A file that lists volumes with their options.
    sets
        ``key=value`` or ``source.key=value``, see `set_settings`.
    settings
        By source; stronger than all others.
    """

    addresses: list[str] | None = None
    sources: list[str] | None = None
    mode: str | None = None
    archives: str | None = None
    data_dir: str | None = None
    common: Mapping[str, Any] = field(default_factory=dict)
    level: list[str] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    datasets: str | None = None
    sets: list[str] | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Taken:
    """What options came to: the settings in force, each source's own, and the listed volumes."""

    wanted: Wanted
    loaded: LoadedSettings
    parameters: dict[str, dict[str, Any]]
    listed: list[Dataset]
    jobs: list[Job]


def take(wanted: Wanted, *, verbose: bool | None = None) -> Taken:
    """Lay options over the environment, and sort the others by source.

    Raises
    ------
    ConfigError
        One is impossible, or none of a selected source.
    """
    take_options(archives=wanted.archives, data_dir=wanted.data_dir, verbose=verbose)
    told = {
        "archives": wanted.archives,
        "data_dir": wanted.data_dir,
        "execution_mode": wanted.mode,
        "verbose": verbose,
    }
    for key, _ in map(_pair, wanted.sets or ()):
        if told.get(key) is not None:
            raise _said_twice(key, "an option of the command says it, too")
    set_settings(wanted.sets)
    listed, jobs = read_datasets(wanted.datasets) if wanted.datasets else ([], [])
    loaded = ConfigManager().load()
    find_mode(wanted.mode or loaded.settings.execution_mode)
    rounds = by_round(wanted.sources, wanted.addresses, {}, loaded.settings, jobs)
    selected = tuple(dict.fromkeys(source for given in rounds for source in given))
    parameters = source_parameters(selected, wanted.common, wanted.level, wanted.about, wanted.sets)
    implied = [settings_of(address) for address in wanted.addresses or ()]
    for source, key, _, _ in _of_sources(wanted.sets or (), selected):
        if any(of == source and key in given for of, given in implied):
            raise _said_twice(key, "the address itself says it")
    add_own(parameters, wanted.settings, selected)
    return Taken(wanted, loaded, parameters, listed, jobs)


@contextmanager
def stand_ins(loaded: LoadedSettings) -> Iterator[None]:
    """Stand-in archives for this run, where they are wanted and nobody serves them yet."""
    if not loaded.needs_samples:
        yield
        return

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
    sets: Sequence[str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Options of the command line as settings of each selected loader.

    Parameters
    ----------
    about
        What the user says of a volume that is known by its address only.
    sets
        ``key=value`` or ``source.key=value``, see `set_settings`.

    Raises
    ------
    ConfigError
        An option is none of the selected sources, or is said twice.
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
    crop: dict[str, Any] = {n: said.pop(n) for n in ("with_em", "padding") if n in said}
    if crop and "openorganelle" not in parameters:
        raise ConfigError(
            f"{', '.join(crop)}: only openorganelle has crops with EM around them",
            location=min(crop),
            advice="Give it with openorganelle:DATASET/recon-1/labels/groundtruth/CROP",
        )
    if crop:
        parameters["openorganelle"] |= crop
    if said.get("labels") and "flyem" in parameters:
        (first, *_) = said.pop("labels")
        parameters["flyem"]["labels"] = str(first).removeprefix("flyem:")
    elif said.get("labels"):
        said["labels"] = [absolute(one) for one in said["labels"]]
    if said and "address" not in parameters:
        raise ConfigError(
            f"{', '.join(sorted(said))}: an archive says this of its own volumes",
            location=min(said),
            advice="Give these options with the address of a file, a folder or a bucket",
        )
    if said:
        parameters["address"] |= said
    options = {source: set(values) for source, values in parameters.items()}
    for source, key, value, of_one in _of_sources(sets or (), selected):
        if not of_one and key in options.get(source, ()):
            raise _said_twice(key, "an option of the command says it, too")
        parameters.setdefault(source, {})[key] = value
    return {source: values for source, values in parameters.items() if values}


def add_own(
    parameters: dict[str, dict[str, Any]],
    own: Mapping[str, Mapping[str, Any]],
    selected: tuple[str, ...],
) -> None:
    """Add settings that are given by source; they are stronger.

    Raises
    ------
    ConfigError
        They are those of a source that is not asked for, and would be without effect.
    """
    for source, settings in own.items():
        if source not in selected:
            raise ConfigError(
                f"settings: {source} is none of the sources of this call ({', '.join(selected)})",
                location="settings",
                advice="Name it among the sources, or leave its settings out",
            )
        parameters[source] = {**parameters.get(source, {}), **settings}


def set_settings(sets: Sequence[str] | None) -> None:
    """Lay those of ``--set key=value`` that are no source's over the environment.

    Raises
    ------
    ConfigError
        One is not of the form ``key=value``.
    """
    for key, value in map(_pair, sets or ()):
        if key in Settings.model_fields and key != "sources":
            os.environ[f"EM_{key.upper()}"] = value


def _of_sources(
    sets: Sequence[str], selected: tuple[str, ...]
) -> Iterator[tuple[str, str, str, bool]]:
    """Each ``--set`` that is not of the whole installation.

    Source, setting and value, and whether it names the source: then it is stronger than an option.
    """
    for key, value in map(_pair, sets):
        if key in Settings.model_fields:
            continue
        name = key.removeprefix("sources.")
        source, dot, field = name.partition(".")
        if dot and source in REGISTRY:
            fields = archive(source).config_model.model_fields
            if field not in fields:
                raise _no_setting(key, [f"{source}.{one}" for one in fields])
            yield source, field, value, True
            continue
        name = name.removeprefix("common.")
        having = [s for s in selected if name in archive(s).config_model.model_fields]
        if not having:
            known = {f for s in selected for f in archive(s).config_model.model_fields}
            raise _no_setting(key, [*sorted(known), *Settings.model_fields])
        for source in having:
            yield source, name, value, False


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            f"--set {text!r}: it is not of the form key=value",
            location="set",
            advice="Write for example --set max_workers=4, or --set ebi.assemble=stack",
        )
    return key.strip().replace("-", "_"), value.strip()


def _said_twice(key: str, where: str) -> ConfigError:
    return ConfigError(
        f"--set {key}: {where}", location=key, advice="Leave one of them out, so that one holds"
    )


def _no_setting(key: str, known: Sequence[str]) -> ConfigError:
    said = suggestion(key, known) if len(known) < 12 or nearest(key, known) else ""
    return ConfigError(
        f"--set {key}: there is no such setting" + (f"; {said}" if said else ""),
        location=key,
        advice="`macroscope config` lists all of them",
    )


_received: signal.Signals | None = None


def exit_code() -> int:
    """Of a process that a signal has ended: 130 for Ctrl-C, 143 for SIGTERM, as shells have it."""
    return 128 + (_received or signal.SIGINT)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the block alike: a stop is asked for, then the exception comes.

    Python swallows an exception that lands in a callback (a finalizer, a log handler); whoever
    looks whether a stop was asked for still ends. Prefect takes SIGTERM during a flow, and hands
    it afterwards to whoever had it before. Left to the default that would be the end of the
    process, with its Prefect server, its stand-in archives and their folders still there.
    """

    def on_signal(number: int, frame: object) -> None:
        global _received
        _received = signal.Signals(number)
        stopping.request_stop()
        raise KeyboardInterrupt

    before = {one: signal.signal(one, on_signal) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


_EXTRA = ("pyftpdlib", "obstore", "aiohttp")
"""What the extra `samples` brings; most of it is imported only when a server is started."""


def stand_in_module(name: str) -> Any:
    """A module of `emulators`.

    Raises
    ------
    ConfigError
        It, or a server that it starts, is not installed.
    """
    if missing := [needed for needed in _EXTRA if find_spec(needed) is None]:
        raise ConfigError(
            f"the stand-in archives are not installed here: {', '.join(missing)} is missing",
            location="samples",
            advice="Install them with `pip install 'macroscope[samples]'`, or choose the public "
            "archives with --archives public",
        )
    return import_module(f"emulators.{name}")


BUCKET = "volumes"
FOLDER = Path("data-s3")
"""Where the server keeps its objects: a second run finds the volumes of the first."""


def run_on_local_s3(run: Callable[[], int], *, verify: bool) -> int:
    """Start the server, run, read every byte back, stop; returns the exit code."""
    with local_s3() as server:
        say(f"S3 server at {server.endpoint_url}, bucket {BUCKET}", error=True)
        code = run()
        if verify:
            # Prefect must not be imported before the run has set up its environment.
            from flows.commands.verify import verify_command

            with redirect_stdout(sys.stderr):  # standard output belongs to the run's own summary
                code = max(code, verify_command(None, deep=True, as_json=False))
    say(f"S3 server stopped; its objects lie in {FOLDER}/", error=True)
    return code


@contextmanager
def local_s3() -> Iterator[S3Server]:
    """SeaweedFS on a free port with authentication on; the settings lead the run to its bucket.

    Credentials are made for this run alone and are in no file but the server's own, which is
    readable by its owner only.
    """
    key, secret = f"local-{secrets.token_hex(4)}", secrets.token_urlsafe(24)
    with stand_in_module("s3").S3Server(BUCKET, key, secret, FOLDER) as server:
        given = {
            "EM_DATA_DIR": f"s3://{BUCKET}",
            "EM_DEST_ENDPOINT_URL": server.endpoint_url,
            "EM_DEST_KEY": key,
            "EM_DEST_SECRET": secret,
        }
        before = {name: os.environ.get(name) for name in given}
        os.environ.update(given)
        try:
            yield server
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
