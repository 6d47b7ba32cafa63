"""The flows, and what must be in the environment before Prefect is imported for the first time.

Prefect reads its settings once. A run from the command line talks to the server that the
environment or the user's profile names; without one it brings its own (`flows.commands.server`).
Importing any flow settles the way to the network first.
"""

from __future__ import annotations

import atexit
import os
from contextlib import ExitStack

from lib.present.output import make_records_visible
from lib.transport.environment import exempt_loopback

_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_CLI_COLORS": "false",
}


def prepare() -> None:
    """Set what is not set. Values that the user has set always stay."""
    make_records_visible()
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    homeless = not os.access(os.path.expanduser("~"), os.W_OK)
    if homeless and not {"PREFECT_API_URL", "PREFECT_HOME"} & os.environ.keys():
        from lib.storage.local_lock import scratch_folder

        ends = ExitStack()
        os.environ["PREFECT_HOME"] = str(ends.enter_context(scratch_folder("home")))
        atexit.register(ends.close)


def prepare_network() -> None:
    """Let every client of this process and of its children find the same way out.

    This machine is never reached through a proxy, and Prefect's client, which reads
    ``SSL_CERT_FILE`` only, trusts the authorities that the user named for the archives.
    """
    exempt_loopback()
    bundles = (os.environ.get(name, "") for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"))
    bundle = next((path for path in bundles if os.path.isfile(path)), None)
    if bundle is not None:
        os.environ.setdefault("SSL_CERT_FILE", bundle)


prepare_network()
