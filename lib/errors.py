"""Every failure that a user can meet, by name.

An error says what happened, where (archive, file or URL, unit of work), whether another try can
help, and what to do next. All of it survives pickling, because errors travel between Dask workers,
and none of it may hold a secret, because errors end up in records, logs and artifacts.
"""

from __future__ import annotations

from typing import Any


class MacroscopeError(Exception):
    """Base of all named errors.

    Parameters
    ----------
    message
        One sentence: what is wrong.
    archive
        Registry name of the archive (``ebi``, ``epfl``, ...), where known.
    location
        The file, URL, object key or setting concerned, without credentials or query string.
    unit
        The unit of work (for example ``shard 0/1/2`` or ``page 17``).
    advice
        What the reader should do next.
    retryable
        Overrides the class's own answer to "can another try help?".
    """

    retryable: bool = False
    advice: str = ""

    def __init__(
        self,
        message: str,
        *,
        archive: str | None = None,
        location: str | None = None,
        unit: str | None = None,
        advice: str | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.archive = archive
        self.location = location
        self.unit = unit
        if advice is not None:
            self.advice = advice
        if retryable is not None:
            self.retryable = retryable

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.__dict__.copy()))

    def __str__(self) -> str:
        where = [
            f"{label} {value}"
            for label, value in (
                ("archive", self.archive),
                ("at", self.location),
                ("unit", self.unit),
            )
            if value
        ]
        text = self.message + (f" [{', '.join(where)}]" if where else "")
        return f"{text}. {self.advice}" if self.advice else text

    def located(
        self, *, archive: str | None = None, location: str | None = None, unit: str | None = None
    ) -> MacroscopeError:
        """Fill in what an inner layer could not know; what is already said stays."""
        self.archive = self.archive or archive
        self.location = self.location or location
        self.unit = self.unit or unit
        return self

    def say(self, message: str) -> None:
        """Replace the sentence by one that tells more."""
        self.message = message
        self.args = (message,)

    def as_record(self) -> dict[str, Any]:
        """The form that a metadata record's ``error`` field holds."""
        return {
            "type": type(self).__name__,
            "message": self.message,
            "archive": self.archive,
            "location": self.location,
            "unit": self.unit,
            "retryable": self.retryable,
            "advice": self.advice,
        }


def in_one_sentence(error: BaseException) -> str:
    """An error for a result or a table; named errors say what to do next."""
    return str(error) if isinstance(error, MacroscopeError) else f"{type(error).__name__}: {error}"


def _rebuild(cls: type[MacroscopeError], message: str, state: dict[str, Any]) -> MacroscopeError:
    error = cls(message)
    error.__dict__.update(state)
    return error


class ConfigError(MacroscopeError):
    """A setting is unknown, of the wrong type, or impossible.

    Attributes
    ----------
    parts
        Where several settings are refused at once: an error for each.
    """

    parts: tuple[ConfigError, ...] = ()
    advice = "Correct what is named; `macroscope config` shows where each value came from"


# --- what the archive says ------------------------------------------------------------------


class NotFoundError(MacroscopeError):
    """The archive does not have what was asked for (404, 550, DVID's 400, absent bucket)."""

    advice = "Check the accession, path or id"


class NothingThereError(NotFoundError):
    """A store holds neither a record nor a volume: a wrong address looks like a store without."""

    advice = "Check the address of the data folder or bucket (EM_DATA_DIR)"


class AccessDeniedError(MacroscopeError):
    """The archive or the object store refuses access (401, 403, 530)."""

    advice = "Check the credentials and the permissions"


class NotListableError(AccessDeniedError):
    """The store gives objects by name and does not say which there are."""

    advice = "Name the file or the array inside the address"


class RequestRefusedError(MacroscopeError):
    """The server calls the request itself wrong (400, 416, ...); repeating it cannot help."""

    advice = "Check address, id and settings against what the archive offers"


class TransportError(MacroscopeError):
    """The network or the server failed for now (5xx, 421, 425, 429, reset, time-out, DNS)."""

    retryable = True
    advice = "Run again: finished work is kept"


class ProxyError(TransportError):
    """The proxy that the environment names does not let a request through."""

    advice = (
        "See that the proxy runs and lets this host through, correct its variable, or list the "
        "host in NO_PROXY"
    )


class IncompleteTransferError(TransportError):
    """Fewer (or other) bytes arrived than were announced."""


class BadAnswerError(TransportError):
    """An answer of status 200 that is not what was asked for (an HTML page, broken JSON)."""


class SourceChangedError(MacroscopeError):
    """The archive's file or array is not the one that this volume was begun with."""

    retryable = True
    advice = "Run again: the half made from the old source is discarded"


# --- what the file holds --------------------------------------------------------------------


class FormatError(MacroscopeError):
    """A source file is damaged, cut short, or contradicts itself."""

    advice = "Fetch the file again; if it stays so, report it to the archive"


class UnsupportedFormatError(FormatError):
    """A valid file of a kind (dtype, mode, compression, axes) that macroscope does not convert."""

    advice = "Leave it out: with exclude where the source lists files, or by a narrower address"


class MissingChunksError(MacroscopeError):
    """The archive's own array has holes, more than the user allows."""

    advice = "Raise max_missing_fraction to accept the holes; they are listed in the record"


class EmptyVolumeError(MacroscopeError):
    """Nothing but background came back."""

    advice = "Choose another box or crop, or set allow_empty to true"


class OutOfBoundsError(MacroscopeError):
    """A box or crop reaches outside the volume."""

    advice = "Choose a box inside the volume's extents"


class GridMismatchError(MacroscopeError):
    """Labels do not lie on the grid of the image that they are given with."""

    advice = (
        "Bring them in on their own, or give the right voxel size: nothing is resampled or shifted"
    )


# --- what happens at our side ---------------------------------------------------------------


class DestinationError(MacroscopeError):
    """The store cannot be written or read (full, read-only, permission, absent bucket)."""

    advice = "Check the destination, then run again: finished work is kept"


class DestinationFullError(DestinationError):
    """No space, or no quota, left at the destination."""

    advice = "Free space or choose another destination, then run again: finished work is kept"


class DestinationBusyError(DestinationError):
    """Another run works on the same volume."""

    advice = "Wait for the other run, or stop it"


class NameTakenError(DestinationError):
    """The name of a volume belongs to another source's volume."""

    advice = "Run again: the volume then gets a name of its own"


class AlreadyExistsError(DestinationError):
    """A write that may only create found something there."""


class IntegrityError(MacroscopeError):
    """Stored bytes do not match their digest, grid or record."""

    advice = "Run again to make the volume anew"


class RecordError(MacroscopeError):
    """A metadata record is invalid, or was asked to make an illegal move."""


class IngestError(MacroscopeError):
    """A run ended, and something of it failed; what did not is finished and kept.

    Attributes
    ----------
    results
        What each source came to, those that succeeded included.
    """

    results: Any = ()
    advice = "Finished work is kept: run again once the cause is gone"


class StoppedError(MacroscopeError):
    """The run was asked to stop (SIGTERM, Ctrl-C, cancel); a later run picks up."""

    advice = "Run again: finished work is kept"
