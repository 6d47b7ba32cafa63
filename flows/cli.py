"""The console command ``macroscope``.

Exit codes: 0 all went well, 1 something failed and was named, 2 the command or a setting is wrong,
130 Ctrl-C, 143 SIGTERM.
Modules that pull in Prefect are imported inside the commands: ``--help`` must be quick, and
Prefect's settings have to be in the environment before its first import.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.arguments import (
    Addresses,
    Archives,
    BoxText,
    Citation,
    DataDir,
    Datasets,
    Format,
    Json,
    Kind,
    LabelAddresses,
    Level,
    Licence,
    Padding,
    Quiet,
    Sets,
    Sources,
    Title,
    Verbose,
    VolumeName,
    VoxelSize,
    WithEm,
    complete_at_first_tab,
    complete_modes,
    complete_named,
    complete_searched,
    epilog,
)
from lib.errors import ConfigError, MacroscopeError
from lib.execution import MODES
from lib.present.output import say, say_json

if TYPE_CHECKING:
    from flows.commands.options import Wanted

app = typer.Typer(
    name="macroscope",
    help="Electron-microscopy volumes from public archives into one analysis-ready store.",
    no_args_is_help=True,
    epilog="`macroscope COMMAND --help` ends with examples; docs/tutorial.md is a first volume.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        from lib import __version__

        say(f"macroscope {__version__}")
        raise typer.Exit


@app.callback()
def macroscope(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show it and exit."),
    ] = False,
) -> None:
    """Electron-microscopy volumes from public archives into one analysis-ready store."""


@app.command(epilog=epilog("run"))
def run(
    address: Addresses = None,
    source: Sources = None,
    mode: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(MODES)}.", autocompletion=complete_modes),
    ] = None,
    archives: Archives = None,
    level: Level = None,
    box: BoxText = None,
    output_format: Format = None,
    data_dir: DataDir = None,
    kind: Kind = None,
    labels: LabelAddresses = None,
    with_em: WithEm = False,
    padding: Padding = None,
    name: VolumeName = None,
    voxel_size: VoxelSize = None,
    title: Title = None,
    licence: Licence = None,
    citation: Citation = None,
    datasets: Datasets = None,
    sets: Sets = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and its costs, as `macroscope plan`.")
    ] = False,
    local_s3: Annotated[
        bool,
        typer.Option(
            "--local-s3",
            help="Into a bucket of an S3 server started for this run; verified, then stopped.",
        ),
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Bring in volumes, prove them, and catalogue the store.

    What is complete already is recognised; what was begun is gone on with.
    """
    wanted = _wanted(locals())
    from flows.commands.options import run_on_local_s3
    from flows.commands.plan import plan_command
    from flows.commands.run import run_command

    def command() -> int:
        if dry_run:
            return plan_command(wanted, as_json=as_json)
        return run_command(wanted, as_json=as_json, quiet=quiet, verbose=verbose)

    if local_s3 and data_dir is not None:
        raise ConfigError("--local-s3 contradicts --data-dir", location="data_dir")
    raise typer.Exit(run_on_local_s3(command, verify=not dry_run) if local_s3 else command())


@app.command(epilog=epilog("plan"))
def plan(
    address: Addresses = None,
    source: Sources = None,
    archives: Archives = None,
    level: Level = None,
    box: BoxText = None,
    output_format: Format = None,
    data_dir: DataDir = None,
    kind: Kind = None,
    labels: LabelAddresses = None,
    with_em: WithEm = False,
    padding: Padding = None,
    name: VolumeName = None,
    voxel_size: VoxelSize = None,
    datasets: Datasets = None,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Show what a run would cost; only metadata is fetched.

    Requests, bytes, memory, disk and time of each volume, and what will not do.
    """
    wanted = _wanted(locals())
    from flows.commands.plan import plan_command

    raise typer.Exit(plan_command(wanted, as_json=as_json))


def _wanted(given: Mapping[str, Any]) -> Wanted:
    """What a command is to bring in or to plan, by the names of its parameters."""
    from flows.commands.options import Wanted

    same = ("mode", "archives", "data_dir", "level", "datasets", "sets")
    about = {key: given.get(key) for key in ("name", "padding", "title", "licence", "citation")}
    return Wanted(
        addresses=given["address"],
        sources=given["source"],
        common={key: given[key] for key in ("box", "output_format", "kind")},
        about={
            **about,
            "labels": given["labels"] or None,
            "voxel_size_nm": given["voxel_size"],
            "with_em": given["with_em"] or None,
        },
        **{key: given[key] for key in same if key in given},
    )


@app.command("list", epilog=epilog("list"))
def list_(
    address: Annotated[
        str | None,
        typer.Argument(
            autocompletion=complete_named,
            help="An archive (empiar:, idr:, openorganelle:, flyem:), an entry or data set of one, "
            "a folder, a bucket, a container or a file; empty: the archives.",
        ),
    ] = None,
    archives: Archives = None,
    as_json: Json = False,
) -> None:
    """Show what is there: volumes, folders, and what to copy.

    Name, kind, shape, voxel, levels, bytes, licence, and why something cannot be brought in.
    """
    from flows.commands.listing import list_command

    raise typer.Exit(list_command(address, archives=archives, as_json=as_json))


@app.command(epilog=epilog("search"))
def search(
    words: Annotated[list[str], typer.Argument(help="Words that must all fit.")],
    archive: Annotated[
        list[str] | None,
        typer.Option(
            "--archive",
            "-a",
            autocompletion=complete_searched,
            help="empiar, idr, openorganelle, bioimages or reach (the table of public volumes); "
            "may be given several times.",
        ),
    ] = None,
    most: Annotated[int, typer.Option(min=1, max=100, help="Hits of each archive.")] = 10,
    archives: Archives = None,
    as_json: Json = False,
) -> None:
    """Look for volumes in the archives by words.

    Title, organism, technique, size, licence and address; an archive that cannot be asked is named.
    """
    from flows.commands.listing import search_command

    raise typer.Exit(
        search_command(words, chosen=archive, most=most, archives=archives, as_json=as_json)
    )


@app.command(epilog=epilog("consolidate"))
def consolidate(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Write catalogue, validation and report of the whole store."""
    from flows.commands.run import consolidate_command

    raise typer.Exit(consolidate_command(data_dir=data_dir, as_json=as_json))


@app.command(epilog=epilog("verify"))
def verify(
    place: Annotated[
        str | None, typer.Argument(help="Folder or s3://bucket/prefix; default: the data folder.")
    ] = None,
    deep: Annotated[
        bool | None,
        typer.Option("--deep/--quick", help="Read every byte again; default on folders only."),
    ] = None,
    source: Sources = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Make anew what is damaged, and nothing else."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Prove finished volumes by their records, or repair them.

    Every field of every record is held against the store: digests, grids, shapes, OME metadata,
    statistics, raw files.
    """
    from flows.commands.verify import verify_command

    raise typer.Exit(
        verify_command(place, deep=deep, as_json=as_json, sources=source, repair=repair)
    )


@app.command(epilog=epilog("view"))
def view(
    volume: Annotated[
        list[str] | None, typer.Argument(help="Volume or source; without any a page of all.")
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on the loopback; 0: a free one.")
    ] = 0,
    browser: Annotated[bool, typer.Option(help="Open the link, or only print it.")] = True,
    data_dir: DataDir = None,
) -> None:
    """Show volumes in Neuroglancer, until Ctrl-C."""
    from flows.commands.listing import view_command

    raise typer.Exit(view_command(volume or [], port=port, open_browser=browser, data_dir=data_dir))


@app.command(epilog=epilog("config"))
def config(as_json: Json = False) -> None:
    """Show every setting in force, and what set it."""
    from lib.config.manager import survey

    found = survey()
    if as_json:
        say_json([{"key": k, "value": v, "origin": o} for k, v, o in found.rows])
    else:
        width = max((len(key) for key, _, _ in found.rows), default=0)
        for key, value, origin in found.rows:
            say(f"{key:<{width}}  {value or '-'}  ({origin})")
    if found.problem is not None:
        raise found.problem


@app.command(epilog=epilog("samples"))
def samples(
    root: Annotated[
        Path | None, typer.Option(help="Folder for the sample data; default: a temporary one.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    public_host: Annotated[
        str | None, typer.Option(help="Name under which clients reach it.")
    ] = None,
    base_port: Annotated[
        int, typer.Option(min=0, max=65500, help="First of a fixed range of ports; 0: free ones.")
    ] = 0,
) -> None:
    """Serve stand-ins of the five archives until Ctrl-C.

    Prints where they are as JSON, for EM_SERVICES.
    """
    from flows.commands.options import stand_in_module

    serving = stand_in_module("serving")
    root = root and root.expanduser()
    serving.serve_forever(
        serving.Samples(root, host=host, public_host=public_host, base_port=base_port)
    )


@app.command(epilog=epilog("up"))
def up(
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the Prefect server and its UI.")
    ] = 4200,
    archives: Annotated[str, typer.Option(help="samples: start stand-ins; public.")] = "samples",
) -> None:
    """Start a Prefect server with its UI, a work pool and a worker.

    All on this machine, in the background, below .macroscope; stand-in archives too.
    """
    from flows.commands.local import up as start

    raise typer.Exit(start(port=port, archives=archives))


@app.command(
    epilog=epilog("deploy"),
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def deploy(context: typer.Context) -> None:
    """Register all deployments with a Prefect server.

    It is the one that PREFECT_API_URL names.

    Takes the options of `python -m flows.register`, which --help after -- shows.
    """
    from flows.register import main as register

    raise typer.Exit(register(context.args))


@app.command(epilog=epilog("down"))
def down() -> None:
    """End what `macroscope up` started."""
    from flows.commands.local import down as end

    raise typer.Exit(end())


def main() -> None:
    """Entry point: named errors become one line and an exit code."""
    complete_at_first_tab()
    try:
        app(prog_name="macroscope")  # as python -m macroscope, too: completion is by this name
    except ConfigError as error:
        say(f"macroscope: {error}", error=True)
        sys.exit(2)
    except MacroscopeError as error:
        say(f"macroscope: {error}", error=True)
        sys.exit(1)
    except OSError as error:  # of this folder, or of where the output goes
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        from lib.storage.durable import named_os_error

        where = str(error.filename or "standard output")
        say(f"macroscope: {named_os_error(error, where, 'write')}", error=True)
        sys.exit(1)
    except KeyboardInterrupt:  # typer has its own way out, which this one agrees with
        from flows.commands.options import exit_code

        sys.exit(exit_code())


if __name__ == "__main__":
    main()
