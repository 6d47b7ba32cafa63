"""What the commands take: arguments and options, each with its help and its completion.

At the end of each command's help stand two examples, and where the rest is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, get_args

import typer
from typer import _completion_shared as completion

from lib.execution import MODES


def _sources(incomplete: str) -> list[str]:
    from lib.archives.registry import REGISTRY

    return [name for name in REGISTRY if name.startswith(incomplete)]


def _values(setting: str) -> Callable[[str], list[str]]:
    """Completion of an option by the values that the setting of that name may have."""

    def complete(incomplete: str) -> list[str]:
        from lib.config.loader_base import LoaderConfig
        from lib.config.settings import Settings

        field = LoaderConfig.model_fields.get(setting) or Settings.model_fields[setting]
        return [value for value in get_args(field.annotation) if value.startswith(incomplete)]

    return complete


def complete_modes(incomplete: str) -> list[str]:
    return [name for name in MODES if name.startswith(incomplete)]


def complete_searched(incomplete: str) -> list[str]:
    from lib.ingest.listing import searched

    return [name for name in searched() if name.startswith(incomplete)]


def complete_named(incomplete: str) -> list[str]:
    """Named archives; a shell completes paths by itself where nothing fits."""
    from lib.archives.address.grammar import named_archives

    return [f"{name}:" for name in named_archives() if name.startswith(incomplete)]


def complete_at_first_tab() -> None:
    """Mend typer's script for zsh, which loses the first Tab of each session.

    zsh reads the installed file at that Tab, and runs it in place of the function that it defines.
    """
    scripts = completion._completion_scripts
    last = "compdef %(complete_func)s %(prog_name)s\n"
    now = '[[ "${funcstack[1]}" != "_%(prog_name)s" ]] || %(complete_func)s "$@"\n'
    if scripts["zsh"].endswith(last):
        scripts["zsh"] += now


def _addresses(incomplete: str) -> list[str]:
    """As `complete_named`, but nothing for nothing: the shell then shows the files here."""
    return complete_named(incomplete) if incomplete else []


Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        "-s",
        help="Only this source; may be given several times.",
        autocompletion=_sources,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only what went wrong.")]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Tell of every shard, here and in the log."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Level = Annotated[
    list[str] | None, typer.Option(help="Scale level (s0, s1, ...) of sources that have them.")
]
BoxText = Annotated[
    str | None, typer.Option("--box", help="Part of the volume: z=0:64,y=100:300,x=0:2400nm.")
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="zarr (OME-Zarr 0.5) or npy.",
        autocompletion=_values("output_format"),
    ),
]
DataDir = Annotated[str | None, typer.Option(help="Folder or s3://bucket/prefix of the volumes.")]
Archives = Annotated[
    str | None,
    typer.Option(
        help="public: the real archives; samples: stand-ins, started for this run.",
        autocompletion=_values("archives"),
    ),
]


Addresses = Annotated[
    list[str] | None,
    typer.Argument(
        autocompletion=_addresses,
        help="Volumes by their addresses: a path, https://, s3://, gs://, ftp://, empiar:10310; "
        "what lies inside follows a |, as x.zarr|zarr:em/s0.",
    ),
]
Datasets = Annotated[
    str | None,
    typer.Option(help="A list of addresses with their options (YAML): docs/how-to/many.md."),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any setting, as max_workers=4 or ebi.assemble=stack; may be given several times.",
    ),
]
Kind = Annotated[
    str | None,
    typer.Option(help="image, labels, or auto (see a plan).", autocompletion=_values("kind")),
]
LabelAddresses = Annotated[
    list[str] | None,
    typer.Option("--labels", help="Labels of the image, by their address; may be given again."),
]
WithEm = Annotated[
    bool, typer.Option("--with-em", help="With a crop of labels: the EM around it as well.")
]
Padding = Annotated[int | None, typer.Option(help="Voxels of that EM on each side of the crop.")]
VolumeName = Annotated[str | None, typer.Option("--name", help="Name of a volume by address.")]
VoxelSize = Annotated[
    str | None, typer.Option(help="Voxel size in nm, z,y,x, of a volume by address.")
]
Title = Annotated[str | None, typer.Option(help="Title of a volume by address.")]
Licence = Annotated[str | None, typer.Option(help="Licence (SPDX id) of a volume by address.")]
Citation = Annotated[str | None, typer.Option(help="What to cite for a volume by address.")]


_EXAMPLES = {
    "run": (
        ("macroscope run --source idr", "one source, with its default volume"),
        (
            'macroscope run s3://bucket/x.zarr --box "z=0:64,y=0:256,x=0:256"',
            "a part of a volume by its address",
        ),
    ),
    "plan": (
        ("macroscope plan --archives public", "what all sources would cost"),
        ("macroscope plan --source openorganelle --level s3 --json", "for scripts"),
    ),
    "list": (
        ("macroscope list empiar:10310", "the volumes of an entry"),
        ("macroscope list s3://bucket/x.zarr --json", "what a container holds, for scripts"),
    ),
    "search": (
        ("macroscope search mitochondria FIB-SEM", "in all archives"),
        ("macroscope search hela --archive openorganelle", "in one"),
    ),
    "consolidate": (
        ("macroscope consolidate", "catalogue, validation and report of the data folder"),
        ("macroscope consolidate --data-dir s3://bucket/em", "the same of a bucket"),
    ),
    "verify": (
        ("macroscope verify", "every byte of the data folder"),
        ("macroscope verify s3://bucket/em --quick", "records and grids of a bucket"),
    ),
    "view": (
        ("macroscope view", "a page of the data folder, to filter and open"),
        ("macroscope view idr --no-browser", "one source; print the link only"),
    ),
    "config": (
        ("macroscope config", "what is set, and by what"),
        ("EM_BOX=z=0:64 macroscope config --json", "what a variable would change"),
    ),
    "samples": (
        ("macroscope samples > services.json", "stand-ins of all archives, until Ctrl-C"),
        ("EM_SERVICES=services.json macroscope run", "a run that uses them"),
    ),
    "up": (
        ("macroscope up", "server, work pool, worker and stand-ins"),
        ("macroscope up --archives public --port 4300", "for the real archives, elsewhere"),
    ),
    "deploy": (
        ("macroscope deploy", "all deployments, to the server that PREFECT_API_URL names"),
        ("macroscope deploy -- --help", "its options"),
    ),
    "down": (
        ("macroscope down", "worker, stand-ins and server"),
        ("macroscope down && macroscope up", "start anew; runs and password stay"),
    ),
}
_WHERE = """\
Settings come from options, EM_* variables, .env and config/config.yaml;
`macroscope config` lists all with their values, docs/configuration.md
explains them, docs/tutorial.md says which files a run writes."""


def epilog(command: str) -> str:
    """The end of a command's help, laid out as it stands here."""
    pairs = _EXAMPLES[command]
    width = max(len(line) for line, _ in pairs)
    lines = [f"  {line:<{width}}  {what}" for line, what in pairs]
    if max(map(len, lines)) > 78:
        lines = [f"  {line}\n      {what}" for line, what in pairs]
    # \b keeps a paragraph's line breaks
    return "\b\nExamples:\n" + "\n".join(lines) + "\n\n\b\n" + _WHERE
