"""Who may use a Prefect server that macroscope starts: whoever knows its password, and nobody else.

Its API can start programs through a worker. As Prefect ships it, it answers every origin and every
host name, so that any page that is open in a browser of this machine may ask it to.
"""

from __future__ import annotations

import secrets


def new_password() -> str:
    """A password of 192 random bits."""
    return secrets.token_urlsafe(24)


def of_the_server(port: int | str, password: str) -> dict[str, str]:
    """Environment of a server: a password, CSRF tokens, and no other origin than its own.

    Parameters
    ----------
    port
        Where it listens on this machine.
    """
    own = ",".join(f"http://{name}:{port}" for name in ("127.0.0.1", "localhost"))
    return {
        "PREFECT_SERVER_API_AUTH_STRING": password,
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": own,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
    }


def of_its_clients(password: str) -> dict[str, str]:
    """Environment of a client of such a server."""
    return {"PREFECT_API_AUTH_STRING": password, "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true"}
