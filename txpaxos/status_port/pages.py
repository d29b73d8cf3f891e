"""What there is at the status address. Each page is a function: a request in, bytes out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TypeAlias

from twisted.internet.defer import Deferred
from twisted.web.http import SERVICE_UNAVAILABLE

from txpaxos.metrics.collector import NodeCollector
from txpaxos.server.companion import Surroundings
from txpaxos.status_port.channel import StatusRequest
from txpaxos.status_port.health import when_confirmed, why_not_alive, why_not_ready

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"
METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
METRICS = b"/metrics"
EVENTS = b"/events"

Page: TypeAlias = Callable[[Surroundings, StatusRequest], bytes | None]
"""Answers a request for one path, in the reactor thread. It returns the body; or ``None`` if it writes the answer
itself, now or later. It sets the type of what it returns (``content-type``), and may set the status. Before it is
called, the client has shown that it has the right to see the status, or keys are off."""


def status(at: Surroundings, request: StatusRequest) -> bytes:
    """The whole status of the node, with the names of ``txpaxos status --json``."""
    request.setHeader(b"content-type", JSON)
    return json.dumps(at.client_port.status(), indent=2).encode() + b"\n"


def alive(at: Surroundings, request: StatusRequest) -> bytes:
    """Whether the process works: its reactor, which answers this, and its disk."""
    return _health(request, why_not_alive(at.node))


def ready(at: Surroundings, request: StatusRequest) -> bytes | None:
    """Whether clients are served here. A quorum is asked first, so this is answered later."""
    if reason := why_not_ready(at.node):
        return _health(request, reason)
    confirmed = when_confirmed(at.node)

    def tell(reason: str) -> None:
        if not gone.called:
            at_end(request, _health(request, reason or why_not_ready(at.node)))

    gone: Deferred[None] = request.notifyFinish()
    gone.addErrback(lambda _: confirmed.cancel())
    confirmed.addCallback(tell)
    return None


def _health(request: StatusRequest, why_not: str) -> bytes:
    request.setHeader(b"content-type", TEXT)
    if why_not:
        request.setResponseCode(SERVICE_UNAVAILABLE)
    return f"{why_not or 'ok'}\n".encode()


def metrics_page(collector: NodeCollector) -> Page:
    """The page with the metrics that ``collector`` has, as Prometheus reads them."""

    def metrics(at: Surroundings, request: StatusRequest) -> bytes:
        request.setHeader(b"content-type", METRICS_TYPE)
        return collector.rendered()

    return metrics


def at_end(request: StatusRequest, body: bytes) -> None:
    """Send ``body``, which is all of the answer."""
    request.setHeader(b"content-length", b"%d" % len(body))
    request.write(body)
    request.finish()


PAGES: Mapping[bytes, Page] = {b"/status.json": status, b"/healthz": alive, b"/readyz": ready}
"""The pages that each status address has, by their paths."""
