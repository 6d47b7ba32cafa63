"""`macroscope.plan`: what a run would cost, as data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from macroscope._settings import (
    Address,
    SourceSettings,
    addresses_of,
    load,
    parameters_of,
    with_stand_ins,
)

if TYPE_CHECKING:
    from lib.errors import MacroscopeError
    from lib.ingest.costs import VolumeCost


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would bring in.

    Attributes
    ----------
    volumes
        One for each volume: ``name``, ``shape_zyx``, ``dtype``, ``voxel_nm_zyx`` (nm), ``licence``,
        ``download_requests``, ``download_bytes``, ``write_bytes``, ``disk_bytes``,
        ``peak_memory_bytes``, ``expected_seconds``, ``notes``.
    total
        The sums, under the same names; ``planning_requests`` are what planning took, which a run
        takes as well.
    warnings
        What will not do: too little disk or memory.
    errors
        What could not be planned, by source.
    """

    volumes: tuple[VolumeCost, ...]
    total: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    errors: tuple[tuple[str, MacroscopeError], ...] = ()


def plan(
    *addresses: Address,
    sources: Sequence[str] | None = None,
    level: str | Sequence[str] | None = None,
    box: str | None = None,
    kind: str | None = None,
    name: str | None = None,
    voxel_size_nm: Sequence[float] | None = None,
    labels: Address | Sequence[Address] | None = None,
    with_em: bool = False,
    padding: int | None = None,
    output_format: str | None = None,
    settings: SourceSettings | None = None,
    datasets: Address | None = None,
    data_dir: Address | None = None,
    archives: str | None = None,
) -> Plan:
    """Say what a run would cost; nothing but metadata is fetched, and nothing is written.

    Parameters
    ----------
    addresses
        Volumes by their addresses: ``empiar:10310``, ``s3://bucket/x.zarr|zarr:em``, a path.
    sources
        Archives by their names, with their default volumes; all five where neither they nor
        addresses are given.
    level
        Scale level (``s0``, ``s1``, ...) of sources that have them.
    box
        Part of the volume: ``"z=0:64,y=100:300,x=0:2400nm"``.
    kind, name, voxel_size_nm
        Of a volume that is known by its address only: ``image`` or ``labels``, its name, and its
        voxel size in nm, z, y, x.
    labels
        Labels that belong to the volume of an address: their addresses (at hemibrain an instance).
    with_em, padding
        With a crop of labels of OpenOrganelle: bring the EM around it, with so many of its voxels
        on each side, and all classes of the crop as label images in it.
    output_format
        ``zarr`` (OME-Zarr 0.5) or ``npy``.
    settings
        Further settings of single sources, as in docs/configuration.md:
        ``{"flyem": {"crop_size": [256, 256, 256]}}``.
    datasets
        A file of many volumes with their options, ``datasets.yaml``.
    data_dir
        Folder or ``s3://bucket/prefix`` of the store.
    archives
        ``public``, or ``samples`` for stand-ins that are started for this call.

    Raises
    ------
    ConfigError
        A setting is wrong.
    PlanError
        Some of several sources or addresses cannot be planned; the error carries the plan of the
        others.
    MacroscopeError
        The only source or address cannot be planned: its own error, such as `NotFoundError`.

    Examples
    --------
    >>> import macroscope
    >>> planned = macroscope.plan(sources=["flyem"], archives="samples")
    >>> volume = planned.volumes[0]
    >>> volume.shape_zyx, volume.dtype, volume.voxel_nm_zyx
    ((72, 80, 96), 'uint8', (8.0, 8.0, 8.0))
    >>> planned.total["download_requests"] < 20
    True
    """
    from flows.commands.plan import plan_jobs
    from lib.concurrency import cancel
    from lib.ingest.datasets import read_datasets
    from macroscope.errors import PlanError

    wanted = addresses_of(addresses) or []
    jobs = [] if datasets is None else read_datasets(os.fspath(datasets))[1]
    loaded = load(data_dir=data_dir, archives=archives)
    parameters = parameters_of(
        loaded,
        wanted,
        sources,
        level=level,
        common={"box": box, "output_format": output_format},
        about={
            "kind": kind,
            "name": name,
            "voxel_size_nm": voxel_size_nm,
            "labels": addresses_of(labels),
            "with_em": with_em or None,
            "padding": padding,
        },
        settings=settings,
        jobs=jobs,
    )
    with cancel.fresh(), with_stand_ins(loaded, data_dir=data_dir, archives=archives) as ready:
        found, warnings, total = plan_jobs(ready, sources, wanted, parameters, jobs)
    result = Plan(
        tuple(cost for one in found for cost in one.costs),
        total,
        tuple(warnings),
        tuple((one.source, error) for one in found for error in one.errors),
    )
    if not result.errors:
        return result
    if len(result.errors) == 1 and not (result.volumes or len(found) > 1):
        raise result.errors[0][1]
    error = PlanError("; ".join(str(one) for _, one in result.errors))
    error.plan = result
    raise error
