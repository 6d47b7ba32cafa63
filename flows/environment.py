"""What must be in the environment before Prefect is imported for the first time.

Prefect reads its settings once. A run from the command line talks to the server that the user's
profile names; without one it gets an embedded server with its database in memory, because flows
that start together on a SQLite file wait for each other's locks.
"""

from __future__ import annotations

import os
import tempfile

_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_CLI_COLORS": "false",
}
_EMBEDDED = {
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:///:memory:",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    # its start takes 11 to 17 s on a small machine; the default limit is 20 s
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}


def prepare(*, verbose: bool = False) -> None:
    """Set what is not set. Values that the user has set always stay."""
    quiet = {k: v for k, v in _QUIET.items() if not (verbose and k == "PREFECT_LOGGING_LEVEL")}
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    if "PREFECT_API_URL" in os.environ:
        return
    for name, value in _EMBEDDED.items():
        os.environ.setdefault(name, value)
    if "PREFECT_HOME" not in os.environ and not os.access(os.path.expanduser("~"), os.W_OK):
        os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="prefect-")
