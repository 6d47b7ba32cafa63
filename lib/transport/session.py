"""One session per archive and process: its limits, its clients and its counters.

Archives and readers get every connection from a session, so politeness (connections in flight,
requests a second) holds wherever they run, and every request is counted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from lib.concurrency.bounded_map import run_ordered
from lib.transport import gcs
from lib.transport.bounds import Counters
from lib.transport.environment import ReachPolicy, exempt_loopback
from lib.transport.ftp import FtpClient
from lib.transport.gcs import GcsReader
from lib.transport.http import HttpClient
from lib.transport.limits import Limiter, Limits, limits_for, shared_limiter
from lib.transport.s3.address import S3Access
from lib.transport.s3.reader import EtagPolicy, ObjectReader

T = TypeVar("T")
C = TypeVar("C")


class Session:
    """The connections of one archive in one process. Thread-safe.

    Parameters
    ----------
    archive
        Registry name, put into every error.
    limits
        By service, as an archive recommends them or the settings say; `CAREFUL` for others.
    allowed_hosts
        Hosts to which a redirect may lead, besides the host that was asked.
    timeout_seconds
        Overrides every service's read time-out.
    scratch_dir
        Where readers may put temporary files; None where the session has no disk.
    reach
        Where addresses may lead, for sessions that ask what a user named; such a session follows
        redirects to whatever host this allows.
    check_etags
        Which objects of S3 are held against their ETags.
    """

    def __init__(
        self,
        archive: str,
        *,
        limits: Mapping[str, Limits] | None = None,
        allowed_hosts: Collection[str] = (),
        timeout_seconds: float | None = None,
        scratch_dir: Path | None = None,
        reach: ReachPolicy | None = None,
        check_etags: EtagPolicy = "always",
    ) -> None:
        exempt_loopback()
        self.archive = archive
        self.counters = Counters()
        self.scratch_dir = scratch_dir
        self.reach = reach
        self._check_etags = check_etags
        self.allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        self._overrides = dict(limits or {})
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._limiters: dict[str, Limiter] = {}
        self._clients: dict[tuple[object, ...], Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_reach(self, url: str) -> None:
        """Raise `AccessDeniedError` where this session may not ask an address."""
        if self.reach is not None:
            self.reach.check(url)

    def limits(self, service: str) -> Limits:
        """The limits in force for a service."""
        return limits_for(service, self._overrides, self._timeout_seconds)

    def limiter(self, service: str) -> Limiter:
        """The limiter of a service, which every session of this process shares."""
        with self._lock:
            if service not in self._limiters:
                self._limiters[service] = shared_limiter(service, self.limits(service), self)
            return self._limiters[service]

    def http(self, service: str) -> HttpClient:
        """The HTTP client of a service; always the same one."""
        reach = {"allowed_hosts": self.allowed_hosts, "reach": self.reach}
        make = partial(HttpClient, self.archive, **reach)
        return self._client(("http", service), service, make)

    def ftp(self, service: str, address: str) -> FtpClient:
        """The FTP client of a server (``host`` or ``host:port``); always the same one.

        It keeps one connection, so calls from several threads take turns.
        """
        self.check_reach(f"ftp://{address}")
        make = partial(FtpClient, self.archive, address)
        return self._client(("ftp", service, address), service, make)

    def objects(
        self,
        service: str,
        uri: str,
        *,
        endpoint_url: str | None = None,
        anonymous: bool = True,
        key: str | None = None,
        secret: str | None = None,
        region: str | None = None,
    ) -> ObjectReader:
        """The reader of the objects below ``s3://bucket/prefix``; keys are relative to it."""
        if endpoint_url is not None:
            self.check_reach(endpoint_url)
        access = S3Access(endpoint_url, region, anonymous, key, secret)
        make = partial(ObjectReader, self.archive, uri, access, check_etags=self._check_etags)
        return self._client((uri, access), service, make)

    def gcs(self, service: str, bucket: str, endpoint_url: str | None = None) -> GcsReader:
        """The reader of a public bucket of Google Cloud Storage; always the same one."""
        endpoint = endpoint_url or gcs.PUBLIC
        self.check_reach(endpoint)

        def make(*given: Any) -> GcsReader:
            return GcsReader(self.archive, *given, reach=self.reach).bind(bucket, endpoint)

        return self._client(("gs", bucket, endpoint), service, make)

    def _client(self, key: tuple[object, ...], service: str, make: Callable[..., C]) -> C:
        """What `make` gives for the limits, limiter and counters of a service, made once a key."""
        given = self.limits(service), self.limiter(service), self.counters.service(service)
        with self._lock:
            if key not in self._clients:
                self._clients[key] = make(*given)
            client: C = self._clients[key]
            return client

    def ordered(
        self, service: str, jobs: Iterable[Callable[[], T]], ahead: int | None = None
    ) -> Iterator[T]:
        """Run jobs in threads, as many as the service allows, and yield results in job order.

        Parameters
        ----------
        service
            Whose connections the jobs use.
        jobs
            Taken from lazily, in this thread.
        ahead
            Jobs started before the oldest result is taken, itself included (default: twice the
            connections): the bound on memory.

        Raises
        ------
        StoppedError
            Within a second of a stop. Jobs that have not begun are dropped, here as on any error
            and when the iterator is closed.
        """
        return run_ordered(jobs, self.limiter(service).connections, ahead)

    def close(self) -> None:
        """Close every connection, and hold no other session to this one's limits any longer.

        The session can still be used; clients connect again.
        """
        with self._lock:
            clients = [*self._clients.values()]
            limiters, self._limiters = self._limiters, {}
        for client in clients:
            client.close()
        for limiter in limiters.values():
            limiter.leave(self)
