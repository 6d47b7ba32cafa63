"""The archive's own files on their way through: where they lie, what they are, how long they stay."""

from __future__ import annotations

from pathlib import Path

from lib.storage.base import Store


class RawFiles:
    """The raw files of one volume.

    Kept files (``keep_raw``) end under ``<source>/downloads/<folder>/`` of the store; others lie in
    the scratch folder and go when the volume is complete. On an object store, kept files are made
    in the scratch folder and uploaded at the end.
    """

    def __init__(
        self, store: Store, source: str, folder: str, *, keep: bool, scratch_dir: Path
    ) -> None:
        self.store, self.source, self.folder = store, source, folder
        self.keep, self.scratch_dir = keep, scratch_dir
