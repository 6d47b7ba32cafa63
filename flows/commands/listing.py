"""``macroscope list``, ``search`` and ``view``: what there is, in words or in the browser."""

from __future__ import annotations

import re
import signal
import threading
import webbrowser
from collections.abc import Iterable, Iterator, Sequence

from flows.commands.options import ended_by_signals, exit_code, stand_ins, take_options
from flows.credentials import store_settings
from lib.archives.listed import Item
from lib.config.manager import ConfigManager
from lib.errors import NotFoundError
from lib.ingest.listing import list_address, search
from lib.present.formatting import shape_text, size_text
from lib.present.output import say, say_json
from lib.records.manager import MetadataManager
from lib.storage.base import Store
from lib.storage.keys import require_contents
from lib.storage.open import open_store


def list_command(address: str | None, *, archives: str | None, as_json: bool) -> int:
    """Print what an address holds; 0 also where some of it cannot be brought in."""
    take_options(archives=archives)
    try:
        with ended_by_signals(), stand_ins(ConfigManager().load()):
            items = list_address(ConfigManager().load(), address)
    except KeyboardInterrupt:
        return exit_code()
    if as_json:
        say_json([item.model_dump(mode="json") for item in items])
        return 0
    for line in lines_of(items):
        say(line)
    say(f"\n{_sum(items)}" if items else "nothing is there")
    return 0


def _sum(items: Sequence[Item]) -> str:
    """What can be brought in, how many cannot, and where there may be more."""
    volumes = [item for item in items if item.what == "volume"]
    loadable = sum(item.loadable is True for item in volumes)
    told = []
    if volumes:
        count = "1 volume" if loadable == 1 else f"{loadable or 'no'} volumes"
        seen = " in what was looked into" if any(item.unseen for item in items) else ""
        how = ": macroscope run ADDRESS" if loadable else ""
        told.append(f"{count}{seen} can be brought in{how}")
        if others := len(volumes) - loadable:
            told.append(f"{others} cannot, for the reason that stands there")
    if len(volumes) < len(items):
        told.append("look further with: macroscope list ADDRESS")
    return "\n".join(told)


def search_command(
    words: Sequence[str],
    *,
    chosen: Sequence[str] | None,
    most: int,
    archives: str | None,
    as_json: bool,
) -> int:
    """Print what was found; 1 where an archive could not be asked, as its hits are not there."""
    take_options(archives=archives)
    try:
        with ended_by_signals(), stand_ins(ConfigManager().load()):
            found = search(ConfigManager().load(), words, chosen, most=most)
    except KeyboardInterrupt:
        return exit_code()
    failed = [one for one in found if one.error is not None]
    if as_json:
        hits = [
            {"archive": one.archive, **item.model_dump(mode="json")}
            for one in found
            for item in one.items
        ]
        errors = [{"archive": one.archive, "error": str(one.error)} for one in failed]
        say_json({"hits": hits, "errors": errors})
    else:
        for one in found:
            if one.items:
                say(f"{one.archive}:")
                for line in lines_of(one.items):
                    say(f"  {line}")
        asked = [one.archive for one in found if one.error is None]
        if asked and not any(one.items for one in found):
            say(f"nothing was found in {', '.join(asked)}")
    for one in failed:
        say(f"macroscope: {one.archive} could not be asked: {one.error}", error=True)
    return 1 if failed else 0


_MOST_NOTES = 6


def lines_of(items: Iterable[Item]) -> Iterator[str]:
    """For each row what is known of it; below it the address, notes, and why it cannot be read."""
    for item in items:
        known = "; ".join(_known(item))
        yield _one_line(f"{item.name}  [{known}]" if known else item.name)
        if item.title and item.title != item.name:
            yield f"    {_one_line(item.title)}"
        if item.address:
            yield f"    {item.address}"
        for note in item.notes[:_MOST_NOTES]:
            yield f"    {_one_line(note)}"
        if item.why_not:
            yield f"    not loaded: {_one_line(item.why_not)}"


def _one_line(text: str) -> str:
    """An archive's words in one line: what stands alone below them is ours."""
    return re.sub(r"\s*[\r\n\v\f\x85\u2028\u2029]\s*", " ", text)


def _known(item: Item) -> Iterator[str]:
    if item.what != "volume":
        yield item.what
    if item.kind:
        yield item.kind
    if item.shape_zyx:
        yield f"{shape_text(item.shape_zyx)} {item.dtype or ''}".strip()
    if item.voxel_nm_zyx:
        told = ["?" if v is None else f"{v:.6g}" for v in item.voxel_nm_zyx]
        same = len(set(told)) == 1
        yield f"{told[0] if same else ' × '.join(told)} nm"
    if len(item.levels) > 1:
        yield f"{len(item.levels)} levels {item.levels[0]} to {item.levels[-1]}"
    if item.nbytes:
        yield size_text(item.nbytes)
    for text in (item.size, item.organism, item.technique):
        if text:
            yield text
    if item.licence:
        yield item.licence
    elif item.what == "volume" and item.shape_zyx:
        yield "licence not stated"


def view_command(
    names: list[str], *, port: int, open_browser: bool, data_dir: str | None = None
) -> int:
    """Serve until interrupted. Without names: a page of the whole store, which opens each."""
    from lib.present.viewer import serve, serve_store

    take_options(data_dir=data_dir)
    loaded = ConfigManager().load()
    store = open_store(loaded.settings.data_dir, store_settings(loaded))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    keys = _volumes(store, names) if names else []
    with serve(store, keys, port=port) if names else serve_store(store, port=port) as viewer:
        say(viewer.url)
        if open_browser:
            webbrowser.open(viewer.url)
        stop.wait()
    return 0


def _volumes(store: Store, names: list[str]) -> list[str]:
    """Keys of the volumes that the names mean: a key, a name, or a source."""
    complete = [
        record["files"]["volume"]
        for _, record in MetadataManager(store).find(status="complete")
        if record.get("schema_version") and record["files"]["volume"].endswith(".ome.zarr")
    ]
    chosen = [key for key in complete if any(_means(name, key) for name in names)]
    if not chosen:
        require_contents(store, "view")
        there = ", ".join(complete) or "nothing yet"
        raise NotFoundError(
            "there is no such volume to view",
            location=store.uri,
            advice=f"There are: {there}",
        )
    return chosen


def _means(name: str, key: str) -> bool:
    source, _, stem = key.removesuffix(".ome.zarr").rpartition("/")
    return name in (key, stem, source, f"{source}/{stem}")
