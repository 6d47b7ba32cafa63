"""Settings become the limits of a session, and never loosen what an archive's API bears."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lib.archives.registry import recommended_limits
from lib.config.loaders import EBIConfig, EPFLConfig, IDRConfig, LoaderConfig
from lib.errors import ConfigError
from lib.ingest.context import open_session
from lib.transport.limits import Limits


def limits_of(config: LoaderConfig, name: str, service: str) -> Limits:
    with open_session(config, name, scratch_dir=None) as session:
        return session.limits(service)


def test_without_settings_the_archives_own_limits_hold() -> None:
    found = limits_of(IDRConfig(protocol="https"), "idr", "ebi-https")
    default = recommended_limits()["ebi-https"]
    assert (found.connections, found.requests_per_second) == (default.connections, 4.0)
    assert found.tries == default.tries


@pytest.mark.parametrize(("service", "connections"), [("ebi-https", 3), ("empiar-api", 1)])
def test_connections_are_the_settings_but_an_api_keeps_its_own(
    service: str, connections: int
) -> None:
    assert limits_of(EBIConfig(max_connections=3), "ebi", service).connections == connections


def test_rate_patience_and_range_size_come_from_the_settings() -> None:
    settings: dict[str, Any] = {"requests_per_second": 2.5, "timeout_seconds": 7}
    found = limits_of(EPFLConfig(chunk_size_mb=2, **settings), "epfl", "epfl")
    assert (found.requests_per_second, found.read_timeout_s) == (2.5, 7.0)
    assert found.range_bytes == 2_000_000


def test_ftp_is_given_up_sooner_where_https_can_take_over() -> None:
    auto = limits_of(EBIConfig(), "ebi", "ebi-ftp").tries
    alone = limits_of(EBIConfig(protocol="ftp"), "ebi", "ebi-ftp").tries
    assert auto < alone == recommended_limits()["ebi-ftp"].tries


def test_redirects_may_lead_to_the_hosts_of_the_settings_only(tmp_path: Path) -> None:
    with open_session(EBIConfig(), "ebi", scratch_dir=tmp_path) as session:
        assert session.allowed_hosts == {"ftp.ebi.ac.uk", "www.ebi.ac.uk"}
        assert session.scratch_dir == tmp_path


def test_an_archive_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        open_session(EBIConfig(), "nowhere", scratch_dir=None)
