"""The spans of a client: one for each command, from the call until its outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txpaxos.tracing.contexts import context_of, span_bytes


class ClientSpans:
    """Makes a span for each command of a client.

    :param tracer: makes and ends the spans.
    """

    def __init__(self, tracer: Tracer) -> None:
        if not isinstance(tracer, Tracer):
            raise TypeError(f"tracer must be a Tracer of opentelemetry, not {type(tracer).__name__}")
        self._tracer = tracer

    def submit(
        self,
        submit: Callable[[bytes, float | None, bytes], Deferred[Any]],
        command: bytes,
        deadline_seconds: float | None,
        parent: Span | Context | None,
        sequence: int,
    ) -> Deferred[Any]:
        """Have ``submit`` called with the command, its deadline and the bytes of its span, which ends with the outcome.

        :param parent: the span, or its context, that this one belongs to.
        :param sequence: the command's place among all commands of the client.
        :raises TypeError: if ``parent`` is something else.
        """
        attributes = {"txpaxos.sequence": sequence, "txpaxos.command_bytes": len(command)}
        span = self._tracer.start_span("txpaxos submit", context_of(parent), SpanKind.CLIENT, attributes)
        return submit(command, deadline_seconds, span_bytes(span)).addBoth(_ended, span)


def _ended(result: Any, span: Span) -> Any:
    """The command has its outcome, which is passed on."""
    if isinstance(result, Failure):
        name = type(result.value).__name__
        span.set_attribute("error.type", name)
        span.set_status(StatusCode.ERROR, name)  # What it says may have been written by the application.
    span.end()
    return result
