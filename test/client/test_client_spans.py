"""The spans of a client, and what it tells nodes of them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.trace import INVALID_SPAN, SpanKind, StatusCode, set_span_in_context, use_span
from twisted.internet.defer import CancelledError

from test.helpers.fake_nodes import FakeConnection, ManualNodes
from test.helpers.fakes import error_of, outcome_of
from test.helpers.spans import Spans
from test.service.services import Bank
from txpaxos.errors import OutcomeUnknown
from txpaxos.tracing.contexts import span_bytes
from txpaxos.wire.client_messages import TRACES_MAX, Submit, Trace, Welcome


def accepted(nodes: ManualNodes, takes_traces: bool = True) -> FakeConnection:
    line = nodes.pick_up()
    line.say(Welcome(line.node, line.node, None, 0, 0.25, takes_traces=takes_traces))
    return line


def test_a_command_has_a_span_and_the_node_is_told_of_it() -> None:
    spans = Spans()
    nodes, order = ManualNodes(tracer=spans.tracer), spans.root()
    done = outcome_of(nodes.client.submit(b"+5", parent=order))
    line = accepted(nodes)
    trace, submit = line.said()
    assert isinstance(trace, Trace)
    assert isinstance(submit, Submit)
    assert spans.ended == []
    line.answer(1, 5)
    assert done == [5]
    (span,) = spans.ended
    assert (span.name, span.kind) == ("txpaxos submit", SpanKind.CLIENT)
    assert dict(span.attributes or {}) == {"txpaxos.sequence": 1, "txpaxos.command_bytes": 2}
    assert trace.request == submit.request == 1
    assert span.context is not None
    assert trace.parent[:16] == span.context.trace_id.to_bytes(16, "big")
    assert trace.parent[16:24] == span.context.span_id.to_bytes(8, "big")
    assert trace.parent[24] == 1
    assert spans.tree(order) == {"txpaxos submit": {}}


@pytest.mark.parametrize("samples", [True, False])
def test_a_node_that_does_not_want_it_is_not_told(samples: bool) -> None:
    """A span that is not sampled is told to none."""
    spans = Spans(samples)
    nodes = ManualNodes(tracer=spans.tracer)
    nodes.client.submit(b"x").addErrback(lambda _: None)
    line = accepted(nodes, takes_traces=not samples)
    assert [type(one) for one in line.said()] == [Submit]
    line.answer(1, None)
    assert len(spans.ended) == samples


def test_the_current_span_is_not_looked_at() -> None:
    """It may be that of another command, by the time that a Deferred fires."""
    spans = Spans()
    nodes = ManualNodes(tracer=spans.tracer)
    with use_span(spans.root("another")):
        nodes.client.submit(b"x").addErrback(lambda _: None)
    accepted(nodes).answer(1, None)
    (span,) = spans.ended
    assert span.parent is None


def test_a_context_may_be_the_parent() -> None:
    spans = Spans()
    nodes, order = ManualNodes(tracer=spans.tracer), spans.root()
    nodes.client.submit(b"x", parent=set_span_in_context(order))
    accepted(nodes).answer(1, None)
    assert spans.tree(order) == {"txpaxos submit": {}}


def test_what_is_no_parent_or_no_tracer() -> None:
    nodes = ManualNodes(tracer=Spans().tracer)
    with pytest.raises(TypeError, match="a parent must be a Span or a Context"):
        nodes.client.submit(b"x", parent="order")  # type: ignore[arg-type]
    assert nodes.client.waiting_bytes == 0
    with pytest.raises(TypeError, match="tracer must be a Tracer"):
        ManualNodes(tracer="otlp")


def test_a_command_that_is_sent_again_belongs_to_the_same_span() -> None:
    spans = Spans()
    nodes = ManualNodes(tracer=spans.tracer)
    nodes.client.submit(b"x")
    line = accepted(nodes)
    first = line.said()
    line.break_off()
    nodes.wait_for_call()
    again = accepted(nodes)
    assert again.said() == first
    again.answer(1, None)
    assert len(spans.ended) == 1


def test_how_a_command_fails_is_in_its_span() -> None:
    spans = Spans()
    nodes = ManualNodes(tracer=spans.tracer)
    late = nodes.client.submit(b"secret", deadline_seconds=1.0)
    cancelled = nodes.client.submit(b"x")
    accepted(nodes).said()
    cancelled.cancel()
    assert isinstance(error_of(cancelled), CancelledError)
    outcome_of(late)
    nodes.reactor.spend(1.1)
    found = [(span.status.status_code, span.status.description) for span in spans.ended]
    assert found == [(StatusCode.ERROR, name) for name in ("CancelledError", OutcomeUnknown.__name__)]
    assert "secret" not in "".join(span.to_json() for span in spans.ended)


def test_few_commands_of_a_run_are_told() -> None:
    """A node would take no more."""
    spans = Spans()
    nodes = ManualNodes(tracer=spans.tracer)
    for _ in range(TRACES_MAX + 10):
        nodes.client.submit(b"x")
    line = accepted(nodes)
    said = line.said()
    assert [one.request for one in said if isinstance(one, Trace)] == [*range(1, TRACES_MAX + 1)]
    assert isinstance(said[-1], Submit)


def test_a_typed_service_has_a_parent_for_its_calls() -> None:
    spans = Spans()
    nodes, order = ManualNodes(tracer=spans.tracer), spans.root()
    bank = nodes.client.service(Bank, parent=order, deadline_seconds=5.0)
    call: Any = bank.deposit("ann", 5)
    call.addErrback(lambda _: None)
    assert isinstance(accepted(nodes).said()[0], Trace)
    nodes.client.close()
    assert spans.tree(order) == {"txpaxos submit": {}}


def test_without_a_tracer_there_is_nothing() -> None:
    nodes = ManualNodes()
    nodes.client.submit(b"x", parent=Spans().root())
    line = accepted(nodes)
    assert [type(one) for one in line.said()] == [Submit]


def test_a_client_without_a_tracer_loads_no_opentelemetry() -> None:
    program = "import sys; from txpaxos import Client, ServedNode; print('opentelemetry' in str(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_a_span_that_is_not_valid_has_no_bytes() -> None:
    assert span_bytes(INVALID_SPAN) == b""
