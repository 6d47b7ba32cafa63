"""Which places an address may lead to: checked here, for every address that is resolved.

On a laptop that is whatever its owner can reach. On a server an address is typed into a form by
somebody else: it must not read the pod's disk, nor ask the cluster's own network.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from urllib.parse import urlsplit

from lib.errors import AccessDeniedError
from lib.safety import is_address, is_public_host, redact
from lib.transport.environment import proxies_for

EVERYWHERE = ("file", "https", "http", "s3", "gs", "ftp")
PUBLIC = ("https", "s3", "gs", "ftp")


@dataclass(frozen=True, slots=True)
class ReachPolicy:
    """What may be asked.

    Attributes
    ----------
    schemes
        Of addresses and of whatever they redirect or link to.
    hosts
        Patterns such as ``*.ebi.ac.uk`` of the hosts that may be asked; empty: any.
    private
        Whether loopback, private and link-local addresses may be asked.
    """

    schemes: tuple[str, ...] = PUBLIC
    hosts: tuple[str, ...] = ()
    private: bool = False

    def check(self, url: str) -> None:
        """Raise `AccessDeniedError` unless this may be asked.

        Raises
        ------
        AccessDeniedError
            The scheme, the host or the network is not allowed.
        TransportError
            The host's name does not resolve.
        """
        parts = urlsplit(url)
        scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
        if scheme not in self.schemes:
            raise self._refusal(url, f"{scheme or 'no'}:// addresses", "reach_schemes")
        if scheme in ("file", "s3", "gs"):  # a bucket is no host: its endpoint is checked itself
            return
        if self.hosts and not any(fnmatch.fnmatchcase(host, p.lower()) for p in self.hosts):
            raise self._refusal(url, f"the host {host}", "reach_hosts")
        # Behind a proxy a name need not resolve here, and the proxy decides what it leads to.
        asked_here = is_address(host) or not proxies_for(url)
        if not self.private and asked_here and not is_public_host(host):
            raise self._refusal(url, f"{host}, a private address", "reach_private")

    def check_peer(self, address: str) -> None:
        """Raise `AccessDeniedError` for a peer whose name led to a private address after all."""
        if not self.private and not is_public_host(address):
            raise self._refusal(f"//{address}", "a private address", "reach_private")

    def check_redirect(self, asked: str, target: str) -> None:
        """The same for where an answer leads to, which must not leave TLS either."""
        if urlsplit(target).scheme not in ("http", "https"):
            raise self._refusal(target, "where this redirect leads", "reach_schemes")
        if urlsplit(asked).scheme == "https" and urlsplit(target).scheme != "https":
            raise AccessDeniedError(
                f"the server redirects to {redact(target)}, which is not followed: it leaves TLS",
                location=redact(asked),
            )
        self.check(target)

    @staticmethod
    def _refusal(url: str, what: str, setting: str) -> AccessDeniedError:
        return AccessDeniedError(
            f"{redact(url)}: this installation does not ask {what}",
            location=redact(url),
            advice=f"Whoever runs it may allow this by {setting}",
        )
