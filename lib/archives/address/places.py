"""From an address to the bytes behind it: the one way in, whatever the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lib.archives.address.grammar import Address, AddressStep, quoted
from lib.bytesource.base import ByteSource, FilePart, JoinedBytes
from lib.bytesource.bucket_tree import GcsTree, S3Tree
from lib.bytesource.server_tree import FtpTree, HttpTree
from lib.bytesource.tree import LocalTree, Tree, join, listing_or_empty
from lib.bytesource.zip_tree import ZipTree
from lib.config.loader_base import AddressConfig
from lib.errors import AccessDeniedError, NotFoundError, UnsupportedFormatError
from lib.formats import registry
from lib.formats.format import VolumeDescription
from lib.transport.bounds import ServiceCounters
from lib.transport.limits import MIB, Limits
from lib.transport.listing import ObjectInfo
from lib.transport.session import Session

SERVICES = {
    "file": "address-file",
    "https": "address-https",
    "http": "address-https",
    "s3": "address-s3",
    "gs": "address-gs",
    "ftp": "address-ftp",
}
# As careful as one is with a stranger, except for the stores that are made for many requests.
LIMITS = {
    "address-file": Limits(8),
    "address-https": Limits(4, None, 15.0, 60.0, 5, 1.0, 8 * MIB),
    "address-s3": Limits(16, None, 10.0, 60.0, 6, 0.2),
    "address-gs": Limits(16, None, 10.0, 60.0, 6, 0.2),
    "address-ftp": Limits(2, None, 15.0, 60.0, 5, 2.0, 8 * MIB),
}


_MOST_ASKED = 16  # files are asked for one by one; of more the folder is listed


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address leads to.

    Attributes
    ----------
    tree
        All objects of the server, the bucket, the disk or the ZIP file.
    root
        Key of the file, or of the folder, in the tree.
    info
        Of the file; None where the place is a folder.
    pattern
        Of the names that count in the folder; None for all.
    address
        The place and the containers on the way, in one spelling, fit to be shown: no slash ends it.
    steps
        What is left of the pipeline: the format's step, or nothing.
    mark
        Of the address's query, see `Address.mark`.
    """

    tree: Tree
    root: str
    info: ObjectInfo | None
    pattern: str | None
    address: str
    counters: ServiceCounters
    steps: tuple[AddressStep, ...]
    mark: str = ""

    def traffic(self) -> tuple[int, int]:
        """Bytes received and requests sent so far."""
        counts = self.counters.snapshot()
        return counts["bytes_received"], counts["requests"]

    def source(self) -> ByteSource:
        """The bytes of the file."""
        return self.tree.source(self.root, self.info)

    @property
    def folder(self) -> str:
        """The address as that of a folder."""
        return self.address if self.address.endswith(("/", ":")) else f"{self.address}/"

    def beside(self, name: str) -> str:
        """The address of something in the folder of the file."""
        end = max(self.address.rfind("/"), self.address.rfind(":")) + 1
        return self.address[:end] + quoted(name, self.address)

    def below(self, name: str) -> str:
        """The address of something inside the folder."""
        return self.folder + quoted(name, self.address)


def source_of(tree: Tree, files: Sequence[ObjectInfo]) -> ByteSource:
    """The bytes of a file, or of all that make a volume together."""
    if len(files) == 1:
        return tree.source(files[0].key, files[0])
    parts = [
        FilePart(info.key.rpartition("/")[2], info.size or 0, partial(tree.source, info.key, info))
        for info in files
    ]
    return JoinedBytes(parts, f"{tree.uri}/{files[0].key}", remote=tree.remote)


def with_files(
    tree: Tree, info: ObjectInfo, volumes: Sequence[VolumeDescription]
) -> list[tuple[VolumeDescription, tuple[ObjectInfo, ...]]]:
    """Each volume of a file with all files that hold it; refused where one of them is not there."""
    folder = info.key.rpartition("/")[0]
    names = {name: join(folder, name) for volume in volumes for name in volume.beside}
    known: dict[str, ObjectInfo] = {}
    if len(names) > _MOST_ASKED:
        objects = listing_or_empty(tree, folder).objects
        known = {one.key: one for one in objects if one.size is not None}
    asked = [key for key in names.values() if key not in known]
    heads = tree.ordered([partial(tree.head, key) for key in asked])
    known |= {one.key: one for one in heads if one is not None}
    found = []
    for volume in volumes:
        absent = [name for name in volume.beside if names[name] not in known]
        if absent and volume.refused is None:
            why = f"it needs {len(volume.beside)} files beside it, and {len(absent)} are not there"
            volume = replace(volume, refused=f"{why}: {', '.join(absent[:5])}")
        files = tuple(known[names[name]] for name in volume.beside if names[name] in known)
        found.append((volume, (info, *files)))
    return found


def open_tree(address: Address, config: AddressConfig, session: Session) -> tuple[Tree, str]:
    """The tree that an address leads to, and the key in it; ZIP files on the way are opened.

    Raises
    ------
    AccessDeniedError
        This installation does not ask such addresses.
    NotFoundError, TransportError, FormatError
    """
    session.check_reach(address.place)
    tree, key = _outer(address, config, session), address.path
    for number, step in enumerate(address.zips):
        if number:
            raise UnsupportedFormatError(
                "a ZIP file inside a ZIP file is not read", location=str(address)
            )
        tree, key = ZipTree(tree.source(key), tree), step.path
    return tree, key


def open_place(address: Address, config: AddressConfig, session: Session) -> Place:
    """Look at what is there; into a ZIP file as ``|zip:`` would say.

    Raises
    ------
    NotFoundError
        Nothing is there.
    AccessDeniedError, TransportError, ConfigError, FormatError
    """
    place = _open_place(address, config, session)
    if not _is_zip(place):
        return place
    step = AddressStep("zip", "", True)
    return _open_place(replace(address, steps=(step, *address.steps)), config, session)


def _open_place(address: Address, config: AddressConfig, session: Session) -> Place:
    tree, root = open_tree(address, config, session)
    zips = address.zips
    folder = zips[-1].folder or not root if zips else address.folder
    info, pattern = None, None
    if not folder:
        info = _look(tree, root, address)
        name = root.rpartition("/")[2]
        there = isinstance(tree, LocalTree) and tree.path(root).is_dir()
        if info is None and not there and ("*" in name or "?" in name):
            root, pattern = root.rpartition("/")[0], name
        elif info is None and not tree.remote and not _is_folder(tree, root):
            raise NotFoundError("there is no such file or folder", location=address.container)
    counters = session.counters.service(SERVICES[address.scheme])
    shown = address.bare if pattern is None else address.bare.rpartition("/")[0]
    steps = address.steps[len(zips) :]
    return Place(tree, root, info, pattern, shown, counters, steps, address.mark)


def _is_zip(place: Place) -> bool:
    """Whether a file is a ZIP by its beginning, which no format has that is converted."""
    if place.info is None or not place.info.size or place.info.size < 4:
        return False
    with closing(place.source()) as source:
        return source.read(0, 4) in (b"PK\x03\x04", b"PK\x05\x06")


def _outer(address: Address, config: AddressConfig, session: Session) -> Tree:
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
    if address.scheme == "gs":
        reader = session.gcs(service, address.host, config.gs_endpoint_url)
        return GcsTree(session, service, reader)
    if address.scheme == "ftp":
        return FtpTree(session, service, address.host)
    root = f"{address.scheme}://{address.host}"
    return HttpTree(session, service, root, address.query)


def _look(tree: Tree, key: str, address: Address) -> ObjectInfo | None:
    """The file at a key; None for a folder, whose page a web server may refuse to show."""
    try:
        return tree.look(key)
    except AccessDeniedError:
        inside = address.steps[len(address.zips) :]
        if inside and not set(registry.named(inside[0].word)) <= set(registry.TREE_FORMATS):
            raise
        return None  # objects below it are asked for, each of which may be refused in turn


def _is_folder(tree: Tree, key: str) -> bool:
    listing = tree.list(key)
    return bool(listing.objects or listing.prefixes) or (
        isinstance(tree, LocalTree) and tree.path(key).is_dir()
    )
