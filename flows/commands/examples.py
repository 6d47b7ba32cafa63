"""What stands at the end of each command's help: two examples, and where the rest is written."""

from __future__ import annotations

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
