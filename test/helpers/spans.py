"""A tracer whose spans the test reads."""

from __future__ import annotations

from random import Random
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Span


class _SeededIds(IdGenerator):
    def __init__(self) -> None:
        self._rng = Random(1)

    def generate_span_id(self) -> int:
        return self._rng.getrandbits(64)

    def generate_trace_id(self) -> int:
        return self._rng.getrandbits(128)


class Spans:
    """A tracer, and the spans that have ended.

    :param samples: whether the spans that belong to none are sampled.
    """

    def __init__(self, samples: bool = True) -> None:
        self._exporter = InMemorySpanExporter()
        sampler: dict[str, Any] = {} if samples else {"sampler": ALWAYS_OFF}
        provider = TracerProvider(id_generator=_SeededIds(), shutdown_on_exit=False, **sampler)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("test")

    def root(self, name: str = "order") -> Span:
        """A span of the program that belongs to none."""
        return self.tracer.start_span(name, Context())

    @property
    def ended(self) -> list[ReadableSpan]:
        """The spans that have ended, in this order."""
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        """Those of one name."""
        return [span for span in self.ended if span.name == name]

    def tree(self, span: ReadableSpan | Span) -> dict[str, Any]:
        """The names of the spans that belong to ``span``, with those that belong to them, in the order of their ends;
        the name of a node stands behind a save."""
        context = span.get_span_context()
        assert context is not None
        found: dict[str, Any] = {}
        for one in self.ended:
            if one.parent is not None and one.parent.span_id == context.span_id:
                assert one.context is not None
                assert one.context.trace_id == context.trace_id
                attributes: Any = one.attributes or {}
                name = f"{one.name} {attributes['txpaxos.node']}" if one.name == "txpaxos save" else one.name
                found[name] = self.tree(one)
        return found
