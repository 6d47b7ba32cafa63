"""The page of a whole store: what `macroscope view` opens, and what its links lead to.

Pictures come from the server one by one as they are looked at, so that a page of thousands of
volumes is small. Texts of archives are untrusted: everything is escaped, and no script but the
page's own runs.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from lib.errors import MacroscopeError
from lib.present import formatting
from lib.present.described import ZARR
from lib.present.preview import preview_key
from lib.present.rows import publisher, rows
from lib.records.lifecycle import RecordDict
from lib.records.manager import read_json
from lib.records.model import Record
from lib.storage.base import Store, StoredObject
from lib.storage.keys import contents, image_of, record_of

_AT_ONCE = 16
"""Records that are read at once: from a bucket each is a request."""


@dataclass(frozen=True, slots=True)
class StoreContents:
    """What a store holds, for its page.

    Attributes
    ----------
    complete
        Volumes that can be looked at, sorted by source and name.
    unfinished
        Those whose records say something else than complete.
    problems
        Records that cannot be read, and volumes without one, in words.
    """

    uri: str
    complete: tuple[Record, ...]
    unfinished: tuple[Record, ...]
    problems: tuple[str, ...]

    @property
    def viewable(self) -> tuple[str, ...]:
        """Keys of the volumes that a viewer can be asked for."""
        return tuple(viewable_keys(self.complete))


def viewable_keys(records: Iterable[Record]) -> Iterator[str]:
    """Keys of the volumes that have levels, which a viewer reads."""
    for record in records:
        if (key := record.files.volume) is not None and key.endswith(ZARR):
            yield key


def read_contents(store: Store) -> StoreContents:
    """Read every record of a store.

    Raises
    ------
    AccessDeniedError, DestinationError
        The store cannot be listed.
    """
    found = contents(store)
    there = set(found.volumes)

    def read(item: StoredObject) -> tuple[str, RecordDict | MacroscopeError]:
        try:
            return item.key, read_json(store, item.key, item.size)
        except MacroscopeError as error:
            return item.key, error

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="records") as pool:
        records = list(pool.map(read, found.records))
    complete, unfinished, problems, vouched = [], [], [], set[str]()
    for key, record in records:
        vouched.add(key)
        if isinstance(record, MacroscopeError):
            problems.append(f"{key} cannot be read: {record.message}")
            continue
        told = Record.read(record)
        if told.status != "complete":
            unfinished.append(told)
        elif (volume := told.files.volume) is not None and _is_there(store, volume, there):
            vouched.add(record_of(volume))
            complete.append(told)
        else:
            problems.append(f"{key} says complete, but {volume} is not there")
    problems += [f"{key} has no record" for key in found.volumes if record_of(key) not in vouched]

    def order(record: Record) -> tuple[str, str]:
        return record.source, record.name

    return StoreContents(
        store.uri,
        tuple(sorted(complete, key=order)),
        tuple(sorted(unfinished, key=order)),
        tuple(problems),
    )


def _is_there(store: Store, volume: str, listed: set[str]) -> bool:
    """Labels of an image lie inside it, where no listing of folders looks."""
    if image_of(volume) is None:
        return volume in listed
    return store.size(f"{volume}/zarr.json") is not None


def page_html(found: StoreContents) -> tuple[bytes, str]:
    """The page, and the Content-Security-Policy to send with it."""
    environment = Environment(
        loader=PackageLoader("lib.present", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    assert environment.loader is not None
    script, style = (
        environment.loader.get_source(environment, name)[0].strip()
        for name in ("store.js.jinja", "report.css.jinja")
    )
    page = environment.get_template("store.html.jinja").render(
        found=found,
        stored=sum(record.technical.file_size_bytes or 0 for record in found.complete),
        viewable=set(found.viewable),
        picture=lambda record: f"/preview/{quote(preview_key(record.files.volume))}",
        publisher=publisher,
        rows=rows,
        formatting=formatting,
        script=script,
        style=style,
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return page.encode(), policy
