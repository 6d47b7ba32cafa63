"""The stand-in archives, which only the extra `samples` installs."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.errors import ConfigError
from lib.present.output import say

if TYPE_CHECKING:
    from emulators.s3 import S3Server


def stand_in_module(name: str) -> Any:
    """A module of `emulators`.

    Raises
    ------
    ConfigError
        It, or a server that it starts, is not installed.
    """
    try:
        return import_module(f"emulators.{name}")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the stand-in archives are not installed here: {error.name} is missing",
            location="samples",
            advice="Install them with `pip install 'macroscope[samples]'`, or choose the public "
            "archives with --archives public",
        ) from None


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
