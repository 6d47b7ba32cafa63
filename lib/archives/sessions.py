"""From a loader's settings to the session that keeps to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from lib.archives.registry import archive
from lib.config.loader_base import AddressConfig
from lib.config.loaders import LoaderConfig
from lib.transport.environment import ReachPolicy
from lib.transport.limits import Limits
from lib.transport.session import Session

MB = 10**6
_TRIES_WITH_ALTERNATIVE = 3  # where another protocol can serve the same file, patience is wasted


def open_session(config: LoaderConfig, name: str, *, scratch_dir: Path | None) -> Session:
    """A session for the archive `name`, as polite and as patient as `config` says.

    ``max_connections`` and ``requests_per_second`` replace the defaults of every service that the
    archive uses; services that answer metadata (``*-api``) never get more connections than their
    default. Redirects may lead to any host that the settings name.

    Parameters
    ----------
    scratch_dir
        Where readers may put temporary files.

    Raises
    ------
    ConfigError
        There is no archive of this name.
    """
    return Session(
        name,
        limits={
            service: _limits(config, service, recommended)
            for service, recommended in archive(name).services.items()
        },
        allowed_hosts=_hosts(config),
        timeout_seconds=config.timeout_seconds,
        scratch_dir=scratch_dir,
        reach=_reach(config),
        check_etags=config.check_etags,
    )


def _reach(config: LoaderConfig) -> ReachPolicy | None:
    """Where the addresses of a user may lead; archives lead to their own hosts only."""
    if not isinstance(config, AddressConfig):
        return None
    return ReachPolicy(tuple(config.reach_schemes), tuple(config.reach_hosts), config.reach_private)


def _limits(config: LoaderConfig, service: str, limits: Limits) -> Limits:
    if config.max_connections is not None:
        wanted = config.max_connections
        if service.endswith("-api"):
            wanted = min(wanted, limits.connections)
        limits = replace(limits, connections=wanted)
    if config.requests_per_second is not None:
        limits = replace(limits, requests_per_second=config.requests_per_second)
    chunk_mb = getattr(config, "chunk_size_mb", None)
    if chunk_mb is not None:
        limits = replace(limits, range_bytes=max(1, int(chunk_mb * MB)))
    if service == "ebi-ftp" and getattr(config, "protocol", None) == "auto":
        limits = replace(limits, tries=min(limits.tries, _TRIES_WITH_ALTERNATIVE))
    return limits


def _hosts(config: LoaderConfig) -> frozenset[str]:
    """Hosts of all HTTP addresses among the settings."""
    values = (getattr(config, field) for field in type(config).model_fields)
    addresses = (value for value in values if isinstance(value, str) and "://" in value)
    return frozenset(urlsplit(address).hostname or "" for address in addresses) - {""}
