"""How long the requests of clients take, and how they end, for a meter."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txpaxos.errors import PaxosError, error_name
from txpaxos.metrics.meter import Meter
from txpaxos.node.sessions import Failed
from txpaxos.wire.client_messages import Ask, Forget, KeepTimers, KeepTogether, Read, Request, Submit

OK = "ok"
OTHER = "other"
_KINDS = {
    Submit: "command",
    Ask: "register",
    Forget: "register",
    KeepTimers: "keep-alive",
    KeepTogether: "keep-alive",
}


def kind_of(request: Request) -> str:
    """What the metrics call the kind of ``request``."""
    if isinstance(request, Read):
        return "local read" if request.local else "read"
    return _KINDS.get(type(request), OTHER)


def metered(meter: Meter, clock: IReactorTime, request: Request, result: Deferred[Any]) -> Deferred[Any]:
    """Tell ``meter`` when ``result``, which ``request`` has asked for, is there. It is passed on as it is."""
    kind, began = kind_of(request), clock.seconds()

    def ended(result: Any) -> Any:
        for outcome, count in outcomes_of(request, result).items():
            meter.request_ended(kind, count, clock.seconds() - began, outcome)
        return result

    return result.addBoth(ended)


def outcomes_of(request: Request, result: Any) -> dict[str, int]:
    """How many requests ended how: ``ok``, ``cancelled``, or the name of an error of this package."""
    count = len(request.commands) if isinstance(request, Submit) else 1
    if isinstance(result, Failure):
        return {_name_of(result): count}
    if not isinstance(result, list):
        return {OK: count}
    failed = [outcome for outcome in result if isinstance(outcome, Failed)]
    if not failed:
        return {OK: count}
    names = Counter(outcome.error.__name__ for outcome in failed)
    return {**names, **({OK: count - len(failed)} if count > len(failed) else {})}


def _name_of(failure: Failure) -> str:
    """The name of an error: one of few, whatever an application may raise."""
    if failure.check(CancelledError):
        return "cancelled"
    return error_name(failure.value) if isinstance(failure.value, PaxosError) else OTHER
