"""What must be in the environment before Prefect is imported for the first time.

Prefect reads its settings once. A run from the command line talks to the server that the
environment or the user's profile names; without one it brings its own (`flows.commands.server`).
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


def prepare() -> None:
    """Set what is not set. Values that the user has set always stay."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    homeless = not os.access(os.path.expanduser("~"), os.W_OK)
    if homeless and not {"PREFECT_API_URL", "PREFECT_HOME"} & os.environ.keys():
        os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="prefect-")
