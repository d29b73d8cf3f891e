"""Which span another span belongs to: what a caller may give, and the bytes of it that go to a node."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags, set_span_in_context

_TRACE_BYTES = 16
_SPAN_BYTES = 8


def context_of(parent: Span | Context | None) -> Context:
    """The context for a span that belongs to ``parent``; to none if that is ``None``. It is never the current one.

    :raises TypeError: if ``parent`` is something else.
    """
    if parent is None:
        return Context()
    if isinstance(parent, Span):
        return set_span_in_context(parent, Context())
    if isinstance(parent, Context):
        return parent
    raise TypeError(f"a parent must be a Span or a Context of opentelemetry, not {type(parent).__name__}")


def span_bytes(span: Span) -> bytes:
    """The bytes that name ``span`` to a node. None if it is not sampled: then the node makes no spans either."""
    named = span.get_span_context()
    if not named.is_valid or not named.trace_flags.sampled:
        return b""
    trace, own = named.trace_id.to_bytes(_TRACE_BYTES, "big"), named.span_id.to_bytes(_SPAN_BYTES, "big")
    return trace + own + bytes([named.trace_flags])


def remote_context(data: bytes) -> Context | None:
    """The context of a span that belongs to the one that :func:`span_bytes` has named, in another process.

    :returns: ``None`` if ``data`` names no span, as when all of it is zero.
    """
    trace, own = data[:_TRACE_BYTES], data[_TRACE_BYTES : _TRACE_BYTES + _SPAN_BYTES]
    flags = TraceFlags(data[-1])
    named = SpanContext(int.from_bytes(trace, "big"), int.from_bytes(own, "big"), is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(named), Context()) if named.is_valid else None
