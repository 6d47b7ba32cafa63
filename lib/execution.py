"""The four execution modes as data, and the questions that flows ask about them.

A mode is a row of stages. Whoever runs a mode asks `ready` what may start now, starts it, and asks
again when something has finished; finished means ended, well or not, because one source failing
does not stop the others. Nothing here starts anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from lib.errors import ConfigError

TaskRunner = Literal["threads", "sequential"]
DaskChoice = Literal[
    "kubernetes", "local", "off", "slurm", "lsf", "pbs", "sge", "address", "gateway"
]
DaskSetting = Literal[
    "auto", "kubernetes", "local", "off", "slurm", "lsf", "pbs", "sge", "address", "gateway"
]
Subflows = Literal["inline", "deployments"]
Weight = Literal["light", "heavy"]


@dataclass(frozen=True, slots=True)
class Stage:
    """Sources that may start when the stages named in ``after`` have ended.

    Attributes
    ----------
    in_order
        True: one after another, as listed; False: all at once.
    takes
        Where sources go that no stage names: light ones, heavy ones, or both.
    """

    name: str
    sources: tuple[str, ...]
    after: tuple[str, ...] = ()
    in_order: bool = False
    takes: tuple[Weight, ...] = ()


@dataclass(frozen=True, slots=True)
class Mode:
    """A way to order the sources; ``workers`` tasks run at once in its task runner."""

    name: str
    stages: tuple[Stage, ...]
    task_runner: TaskRunner
    workers: int
    description: str

    @property
    def sources(self) -> tuple[str, ...]:
        """Every source that the mode names, stage by stage."""
        return tuple(source for stage in self.stages for source in stage.sources)


@dataclass(frozen=True, slots=True)
class Step:
    """One source and the sources that must have ended before it starts."""

    source: str
    after: frozenset[str]


_EVERY: tuple[Weight, ...] = ("light", "heavy")

MODES: dict[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode(
            "staged",
            (
                Stage("light", ("ebi", "flyem", "idr"), takes=("light",)),
                Stage("openorganelle", ("openorganelle",), after=("light",)),
                Stage("epfl", ("epfl",), after=("openorganelle",)),
                Stage("heavy", (), after=("epfl",), in_order=True, takes=("heavy",)),
            ),
            "threads",
            3,
            "the light sources together, then the heavy ones, each alone",
        ),
        Mode(
            "background",
            (
                Stage("background", ("epfl",)),
                Stage("light", ("idr", "flyem", "ebi"), in_order=True, takes=("light",)),
                Stage("heavy", ("openorganelle",), ("light",), in_order=True, takes=("heavy",)),
            ),
            "threads",
            2,
            "the long download at once, the others one after another beside it",
        ),
        Mode(
            "parallel",
            (Stage("all", ("ebi", "epfl", "flyem", "idr", "openorganelle"), takes=_EVERY),),
            "threads",
            5,
            "everything at once",
        ),
        Mode(
            "sequential",
            (
                Stage(
                    "all",
                    ("ebi", "epfl", "flyem", "idr", "openorganelle"),
                    in_order=True,
                    takes=_EVERY,
                ),
            ),
            "sequential",
            1,
            "one source after another",
        ),
    )
}


def mode(name: str) -> Mode:
    """Look up a mode.

    Raises
    ------
    ConfigError
        There is no such mode; the valid names are in the message.
    """
    try:
        return MODES[name]
    except KeyError:
        raise ConfigError(
            f"execution_mode: there is no mode {name!r}; valid are {', '.join(MODES)}",
            location="execution_mode",
        ) from None


def check_sources(selected: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    """The selected sources, each once.

    Raises
    ------
    ConfigError
        A source is unknown, or none is selected; the valid names are in the message.
    """
    chosen = tuple(dict.fromkeys(selected))
    valid = f"valid are {', '.join(sorted(known))}"
    for source in chosen:
        if source not in known:
            from lib.config.errors import suggestion  # its models are slow to import

            near = suggestion(source, known)
            hint = f"{near} {valid}" if near.startswith("did") else valid
            raise ConfigError(f"sources: there is no {source!r}; {hint}", location="sources")
    if not chosen:
        raise ConfigError(f"sources: none is selected; {valid}", location="sources")
    return chosen


def schedule(mode: Mode, selected: Iterable[str], heavy: Collection[str] = ()) -> tuple[Step, ...]:
    """What each selected source waits for.

    Stages of which nothing is selected fall through: whoever would wait for them waits for what
    they would have waited for. Sources that the mode does not name join the stage that takes
    their weight, at its end.

    Parameters
    ----------
    heavy
        The heavy ones among the sources that the mode does not name.
    """
    chosen = tuple(dict.fromkeys(selected))
    named = set(mode.sources)
    ends: dict[str, frozenset[str]] = {}
    steps: list[Step] = []
    for stage in mode.stages:
        extra = tuple(
            source
            for source in chosen
            if source not in named and ("heavy" if source in heavy else "light") in stage.takes
        )
        members = tuple(source for source in stage.sources if source in chosen) + extra
        waits = frozenset[str]().union(*(ends[name] for name in stage.after))
        for source in members:
            steps.append(Step(source, waits))
            if stage.in_order:
                waits = frozenset({source})
        ends[stage.name] = waits if stage.in_order or not members else frozenset(members)
    return tuple(steps)


def ready(
    steps: Iterable[Step], finished: Collection[str], started: Collection[str] = ()
) -> list[str]:
    """The sources that may start now, in the schedule's order."""
    return [
        step.source
        for step in steps
        if step.source not in started
        and step.source not in finished
        and step.after <= frozenset(finished)
    ]


def on_kubernetes(environ: Mapping[str, str]) -> bool:
    """Whether this process runs in a pod (the kubelet sets KUBERNETES_SERVICE_HOST)."""
    return bool(environ.get("KUBERNETES_SERVICE_HOST"))


def is_heavy(volume_bytes: int, shards: int, *, wanted: bool | None, min_bytes: float) -> bool:
    """Whether a volume is worth a Dask cluster of its own.

    It is the whole volume that decides, not what is left to make, so that each attempt at it runs
    in the same place: memory of a flow's pod is given for the one or for the other.

    Parameters
    ----------
    volume_bytes
        Of the voxels of its finest level, not compressed.
    shards
        Of that level; a single one cannot be shared between workers.
    wanted
        The source's own setting (``heavy``), which is stronger; None where it has none.
    min_bytes
        The threshold (``dask_min_mb``).
    """
    if wanted is not None:
        return wanted
    return volume_bytes >= min_bytes and shards > 1


def dask_choice(setting: DaskSetting, heavy: bool, on_kubernetes: bool) -> DaskChoice:
    """Where one volume's units of work run; off means threads.

    Light volumes never get a cluster: it would take longer to start than they take. ``auto`` means
    a temporary cluster on Kubernetes and threads elsewhere.
    """
    if not heavy or setting == "off":
        return "off"
    if setting == "auto":
        return "kubernetes" if on_kubernetes else "off"
    return setting


def default_subflows(on_kubernetes: bool) -> Subflows:
    """Where subflows run unless EM_SUBFLOWS says otherwise."""
    return "deployments" if on_kubernetes else "inline"
