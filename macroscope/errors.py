"""The named errors that the functions of `macroscope` raise; `MacroscopeError` is their base.

Each says what happened (``message``), where (``location``), what to do next (``advice``) and
whether another try can help (``retryable``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lib import errors as _errors
from lib.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    BadAnswerError,
    ConfigError,
    DestinationBusyError,
    DestinationError,
    DestinationFullError,
    EmptyVolumeError,
    FormatError,
    GridMismatchError,
    IncompleteTransferError,
    IntegrityError,
    MacroscopeError,
    MissingChunksError,
    NameTakenError,
    NotFoundError,
    NothingThereError,
    NotListableError,
    OutOfBoundsError,
    ProxyError,
    RecordError,
    RequestRefusedError,
    SourceChangedError,
    StoppedError,
    TransportError,
    UnsupportedFormatError,
)

if TYPE_CHECKING:
    from macroscope._ingest import IngestResult
    from macroscope._plan import Plan

__all__ = [
    "AccessDeniedError", "AlreadyExistsError", "BadAnswerError", "ConfigError",
    "DestinationBusyError", "DestinationError", "DestinationFullError", "EmptyVolumeError",
    "FormatError", "GridMismatchError", "IncompleteTransferError", "IngestError",
    "IntegrityError", "MacroscopeError", "MissingChunksError", "NameTakenError",
    "NotFoundError", "NotListableError", "NothingThereError", "OutOfBoundsError", "PlanError",
    "ProxyError", "RecordError", "RequestRefusedError", "SourceChangedError", "StoppedError",
    "TransportError", "UnsupportedFormatError",
]  # fmt: skip


class IngestError(_errors.IngestError):
    """Something of a run failed.

    Attributes
    ----------
    results
        The whole result, with what did succeed.
    """

    results: IngestResult


class PlanError(MacroscopeError):
    """Some sources or addresses could not be planned.

    Attributes
    ----------
    plan
        The plan of the others; its ``errors`` say what failed.
    """

    plan: Plan
    advice = "What could be planned is in the error's plan"
