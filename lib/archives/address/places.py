"""From an address to the bytes behind it: the one way in, whatever the protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib.archives.address.grammar import Address, Step
from lib.bytesource.base import ByteSource
from lib.bytesource.http_tree import HttpTree
from lib.bytesource.local_tree import LocalTree
from lib.bytesource.s3_tree import S3Tree
from lib.bytesource.tree import ObjectInfo, Tree
from lib.config.loaders import AddressConfig
from lib.errors import ConfigError, NotFoundError
from lib.transport.counters import ServiceCounters
from lib.transport.session import Session

SERVICES = {
    "file": "address-file",
    "https": "address-https",
    "http": "address-https",
    "s3": "address-s3",
    "gs": "address-gs",
    "ftp": "address-ftp",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address leads to.

    Attributes
    ----------
    tree
        All objects of the server, the bucket or the ZIP file.
    root
        Key of the file, or of the folder, in the tree.
    info
        Of the file; None where the place is a folder.
    address
        What is shown of it: the place, and the containers on the way.
    steps
        What is left of the pipeline: the format's step, or nothing.
    """

    tree: Tree
    root: str
    info: ObjectInfo | None
    address: str
    counters: ServiceCounters
    steps: tuple[Step, ...]

    def traffic(self) -> tuple[int, int]:
        """Bytes received and requests sent so far."""
        counts = self.counters.snapshot()
        return counts["bytes_received"], counts["requests"]

    def source(self) -> ByteSource:
        """The bytes of the file."""
        return self.tree.source(self.root, self.info)


def open_tree(address: Address, config: AddressConfig, session: Session) -> Tree:
    """The tree that an address's scheme and host name.

    Raises
    ------
    AccessDeniedError
        This installation does not ask such addresses.
    """
    session.check_reach(address.place)
    service = SERVICES[address.scheme]
    if address.scheme == "file":
        return LocalTree(Path("/"))
    if address.scheme == "s3":
        objects = session.objects(
            service,
            f"s3://{address.host}",
            endpoint_url=config.s3_endpoint_url,
            anonymous=config.s3_key is None,
            key=config.s3_key.get_secret_value() if config.s3_key else None,
            secret=config.s3_secret.get_secret_value() if config.s3_secret else None,
            region=config.s3_region,
        )
        return S3Tree(session, service, objects)
    if address.scheme in ("https", "http"):
        root = f"{address.scheme}://{address.host}"
        return HttpTree(session, service, root, address.query)
    raise ConfigError(f"{address.scheme}:// addresses are not read yet", location="addresses")


def open_place(address: Address, config: AddressConfig, session: Session) -> Place:
    """Look at what is there.

    Raises
    ------
    NotFoundError
        Nothing is there.
    AccessDeniedError, TransportError, ConfigError
    """
    tree = open_tree(address, config, session)
    info = None
    if not address.folder:
        info = tree.look(address.path)
        if info is None and not tree.remote and not Path("/", address.path).is_dir():
            raise NotFoundError("there is no such file or folder", location=address.place)
    counters = session.counters.service(SERVICES[address.scheme])
    return Place(tree, address.path, info, address.place, counters, address.steps)
