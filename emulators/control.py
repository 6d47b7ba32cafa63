"""The one control of the stand-ins: faults, counters, latency; from Python and over HTTP."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, Router

from emulators.counters import Counters
from emulators.faults import FaultRules, Rule
from emulators.latency import Latency

_RULES = TypeAdapter(list[Rule])


class Settings(BaseModel):
    """What is not a fault but can be set.

    Parameters
    ----------
    latency
        By service; ``*`` is for those not named.
    dvid_max_throttled
        How many throttled requests DVID works on at once before it answers 503; the real
        server's default is 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    latency: dict[str, Latency] = Field(default_factory=dict)
    dvid_max_throttled: int = 1


class Control:
    """Faults, counters and settings shared by all servers of one `Samples`."""

    def __init__(self) -> None:
        self.faults = FaultRules()
        self.counters = Counters()
        self.settings = Settings()

    def add(self, kind: str, service: str = "*", match: str = "", **parameters: Any) -> None:
        """Put one rule in force; see `Rule` for the parameters."""
        rule = {"kind": kind, "service": service, "match": match, **parameters}
        self.faults.extend([Rule.model_validate(rule)])

    def set_latency(
        self, service: str = "*", *, first_byte_s: float = 0.0, bytes_per_second: float = 0.0
    ) -> None:
        """Make a service (or all) slow; zeros make it quick again."""
        latency = Latency(first_byte_s=first_byte_s, bytes_per_second=bytes_per_second)
        others = {**self.settings.latency, service: latency}
        self.settings = self.settings.model_copy(update={"latency": others})

    def latency(self, service: str) -> Latency:
        """The latency in force for a service."""
        known = self.settings.latency
        return known.get(service) or known.get("*") or Latency()

    def clear(self) -> None:
        """Back to no faults, no latency, counters at zero."""
        self.faults.clear()
        self.counters.clear()
        self.settings = Settings()


def control_app(control: Control) -> Router:
    """``/_control/faults``, ``/_control/counters`` and ``/_control/settings``.

    POST adds (faults) or replaces (settings), GET shows, DELETE clears.
    """

    async def faults(request: Request) -> Response:
        if request.method == "POST":
            try:
                control.faults.extend(_RULES.validate_json(await request.body()))
            except ValidationError as error:
                return PlainTextResponse(str(error), status_code=422)
        elif request.method == "DELETE":
            control.faults.clear()
        rules = [rule.model_dump(mode="json") for rule in control.faults.rules()]
        return JSONResponse({"rules": rules, "fired": control.faults.fired()})

    async def counters(request: Request) -> Response:
        if request.method == "DELETE":
            control.counters.clear()
        return JSONResponse(control.counters.snapshot())

    async def settings(request: Request) -> Response:
        if request.method == "POST":
            try:
                control.settings = Settings.model_validate_json(await request.body())
            except ValidationError as error:
                return PlainTextResponse(str(error), status_code=422)
        elif request.method == "DELETE":
            control.settings = Settings()
        return JSONResponse(control.settings.model_dump(mode="json"))

    return Router(
        [
            Route("/_control/faults", faults, methods=["GET", "POST", "DELETE"]),
            Route("/_control/counters", counters, methods=["GET", "DELETE"]),
            Route("/_control/settings", settings, methods=["GET", "POST", "DELETE"]),
        ]
    )
