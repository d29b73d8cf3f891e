"""The spans that one node makes of a command."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.trace import Span, SpanKind, StatusCode
from twisted.logger import formatEvent
from twisted.python.failure import Failure

from test.helpers.client_port_harness import SESSION, ClientPortHarness, FakeClient, submit, submit_run
from test.helpers.fakes import ONE, NodeHarness
from test.helpers.spans import Spans
from txpaxos.core.messages import AcceptedSlot, AcceptSlot, Ballot
from txpaxos.core.ready import Chosen, Envelope, Ready, Voted
from txpaxos.errors import Overloaded
from txpaxos.node.events import MessageReceived, ReadyReleased, SaveFinished
from txpaxos.server.companion import Surroundings
from txpaxos.tracing.contexts import span_bytes
from txpaxos.tracing.node_spans import NodeSpans
from txpaxos.wire.client_messages import TRACES_MAX, Answer, Submit, Trace, Welcome
from txpaxos.wire.commands import Run, encode_batch

ONE_A = Ballot(1, "a")
TWO_B = Ballot(2, "b")


def voted(slot: int, ballot: Ballot, value: bytes) -> Voted:
    return Voted(ballot, slot, value, 0)


def sent(slot: int, ballot: Ballot, value: bytes) -> Envelope:
    return Envelope(("a", "b", "c"), AcceptSlot(ballot, slot, value))


class Time:
    """A clock that goes on by one microsecond each time it is looked at."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000

    def __call__(self) -> int:
        self.now_ns += 1000
        return self.now_ns


class Alone:
    """A node that is a cluster by itself, with spans."""

    def __init__(self) -> None:
        self.spans = Spans()
        self.node_spans = NodeSpans(self.spans.tracer)
        self.harness = ClientPortHarness(NodeHarness("a", ONE, observe=self.node_spans.observe))
        self.node_spans.start(Surroundings(self.harness.node, self.harness.port, self.harness.node_harness.reactor))
        self.order = self.spans.root()

    def say(self, client: FakeClient, *messages: Any) -> list[Any]:
        client.say(*messages)
        self.harness.node_harness.reactor.idle()
        return client.heard()


def test_a_node_with_spans_says_so() -> None:
    alone = Alone()
    client = FakeClient(alone.harness.port)
    (welcome,) = client.heard()
    assert isinstance(welcome, Welcome)
    assert welcome.takes_traces
    other = FakeClient(ClientPortHarness(NodeHarness("a", ONE)).port)
    assert not any(one.takes_traces for one in other.heard() if isinstance(one, Welcome))


def test_a_command_of_a_node_alone() -> None:
    alone = Alone()
    heard = alone.say(alone.harness.client(), Trace(1, span_bytes(alone.order)), submit(1, b"+5"))
    assert [type(one) for one in heard] == [Answer]
    steps = ("txpaxos queue", "txpaxos save a", "txpaxos choose", "txpaxos apply")
    assert alone.spans.tree(alone.order) == {"txpaxos command": {name: {} for name in steps}}
    (command,) = alone.spans.named("txpaxos command")
    assert command.kind is SpanKind.SERVER
    attributes = dict(command.attributes or {})
    assert attributes.pop("txpaxos.slot") == alone.harness.node.applied_through
    assert attributes == {
        "txpaxos.node": "a",
        "txpaxos.sequence": 1,
        "txpaxos.command_bytes": 2,
        "txpaxos.ballot": "1.a",
    }


def test_commands_without_a_trace_have_no_spans() -> None:
    alone = Alone()
    client = alone.harness.client()
    alone.say(client, Trace(2, span_bytes(alone.order)), submit_run(1, (b"+1", b"+2", b"+3")))
    alone.say(client, submit(4, b"+4", 4))
    (command,) = alone.spans.named("txpaxos command")
    assert (command.attributes or {})["txpaxos.sequence"] == 2


@pytest.mark.parametrize("parent", [bytes(25), bytes(16) + b"x" * 9, b"x" * 16 + bytes(9)])
def test_what_names_no_span(parent: bytes) -> None:
    alone = Alone()
    heard = alone.say(alone.harness.client(), Trace(1, parent), submit(1, b"+5"))
    assert [type(one) for one in heard] == [Answer]
    assert alone.spans.ended == []


def test_what_a_client_names_and_does_not_send() -> None:
    """It is forgotten with the next request, and is bounded until then."""
    alone = Alone()
    client = alone.harness.client()
    parent = span_bytes(alone.order)
    alone.say(client, *(Trace(number, parent) for number in range(100, 100 + 2 * TRACES_MAX)))
    assert len(client.connection._traces) == TRACES_MAX
    alone.say(client, submit(1, b"+5"))
    assert client.connection._traces == {}
    alone.say(client, submit(100, b"+5", 2))
    assert alone.spans.ended == []


def test_a_node_without_spans_keeps_no_traces() -> None:
    harness = ClientPortHarness(NodeHarness("a", ONE))
    client = harness.client()
    client.say(Trace(1, b"x" * 25), submit(1, b"+5"), Trace(2, b"x" * 25))
    assert client.connection._traces == {}


class ByHand:
    """What makes spans, told of steps by the test, and a command of which the client has named its span."""

    def __init__(self, *commands: bytes) -> None:
        self.spans, self.time = Spans(), Time()
        self.node_spans = NodeSpans(self.spans.tracer, self.time)
        self.node_spans._node = "a"
        self.order: Span = self.spans.root()
        self.submit = Submit(1, SESSION, 1, 0, commands or (b"+5",))
        parents = {number: span_bytes(self.order) for number in range(1, 1 + len(self.submit.commands))}
        self.answered = self.node_spans.begin(self.submit, parents)
        self.value = encode_batch([Run(*(SESSION, 1, 0), self.submit.commands)])

    def release(self, *records: Voted, send: tuple[Envelope, ...] = (), chosen: tuple[Chosen, ...] = ()) -> None:
        self.node_spans.observe(ReadyReleased(Ready(save=records, send=send, chosen=chosen), 1))

    @property
    def command(self) -> dict[str, Any]:
        (tree,) = self.spans.tree(self.order).values()
        assert isinstance(tree, dict)
        return tree


def test_the_way_through_a_leader() -> None:
    steps = ByHand()
    steps.time.now_ns += 500_000
    steps.release(send=(sent(7, ONE_A, steps.value),))
    steps.release(send=(sent(7, ONE_A, steps.value),))
    steps.time.now_ns += 500_000
    steps.node_spans.observe(SaveFinished(0.0002))
    steps.release(voted(7, ONE_A, steps.value))
    for peer in "bbc":
        steps.node_spans.observe(MessageReceived(peer, AcceptedSlot(ONE_A, 7), 1.0))
    steps.node_spans.observe(MessageReceived("c", AcceptedSlot(ONE_A, 8), 1.0))
    steps.release(chosen=(Chosen(7, steps.value),))
    assert steps.answered([5]) == [5]
    names = ("queue", "save a", "save b", "save c", "choose", "apply")
    assert steps.command == {f"txpaxos {name}": {} for name in names}
    lengths = {span.name: (span.end_time or 0) - (span.start_time or 0) for span in steps.spans.ended[:2]}
    assert lengths == {"txpaxos queue": 501_000, "txpaxos save": 200_000}
    assert all(span.end_time >= span.start_time for span in steps.spans.ended)  # type: ignore[operator]
    assert not steps.node_spans._open
    assert not steps.node_spans._at


def test_a_vote_of_an_earlier_ballot_is_not_its_save() -> None:
    steps = ByHand()
    steps.release(voted(7, ONE_A, steps.value))
    steps.release(voted(7, TWO_B, steps.value))
    steps.release(voted(7, TWO_B, steps.value))
    steps.node_spans.observe(MessageReceived("c", AcceptedSlot(ONE_A, 7), 1.0))
    steps.release(chosen=(Chosen(7, steps.value),))
    steps.answered([5])
    assert list(steps.command) == ["txpaxos queue", "txpaxos save a", "txpaxos choose", "txpaxos apply"]
    assert len(steps.spans.named("txpaxos save")) == 2
    assert (steps.spans.ended[-1].attributes or {})["txpaxos.ballot"] == "2.b"


def test_a_slot_that_becomes_another_value() -> None:
    """The command is proposed anew in another slot."""
    steps = ByHand()
    steps.release(voted(7, ONE_A, steps.value))
    steps.release(voted(7, TWO_B, encode_batch([])), chosen=(Chosen(7, b""),))
    steps.release(voted(9, TWO_B, steps.value), chosen=(Chosen(9, steps.value),))
    steps.answered([5])
    assert [span.name for span in steps.spans.ended][-3:] == ["txpaxos choose", "txpaxos apply", "txpaxos command"]
    assert (steps.spans.ended[-1].attributes or {})["txpaxos.slot"] == 9


def test_a_node_that_learns_and_does_not_vote() -> None:
    steps = ByHand()
    steps.release(voted(6, ONE_A, b"Mno batch"))
    steps.release(chosen=(Chosen(7, steps.value),))
    steps.answered([5])
    assert list(steps.command) == ["txpaxos choose", "txpaxos apply"]


def test_a_command_that_fails() -> None:
    steps = ByHand(b"secret", b"x")
    failure = Failure(Overloaded("secret"))
    assert steps.answered(failure) is failure
    assert [span.status.status_code for span in steps.spans.ended] == [StatusCode.ERROR] * 2
    assert {span.status.description for span in steps.spans.ended} == {"Overloaded"}
    assert "secret" not in "".join(span.to_json() for span in steps.spans.ended)


def test_a_command_that_comes_again_while_it_is_in_work() -> None:
    steps = ByHand()
    again = steps.node_spans.begin(steps.submit, {1: span_bytes(steps.order)})
    again([5])
    assert steps.spans.ended == []
    steps.answered([5])
    steps.answered([5])
    assert len(steps.spans.ended) == 1


def test_what_is_in_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("txpaxos.tracing.node_spans.OPEN_MAX", 3)
    steps = ByHand(*[b"x"] * 10)
    assert steps.node_spans._open_count == 3
    steps.answered([None] * 10)
    assert len(steps.spans.ended) == 3
    assert steps.node_spans._open_count == 0


def test_a_node_that_stops_ends_its_spans() -> None:
    steps = ByHand(b"x", b"y")
    steps.release(voted(7, ONE_A, steps.value))
    assert steps.node_spans.stop().called
    assert len(steps.spans.named("txpaxos command")) == 2
    steps.answered([1, 2])
    assert not steps.node_spans._at


def test_a_tracer_that_raises_does_no_harm(logged_errors: list[dict[str, Any]]) -> None:
    steps = ByHand()

    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("full")

    steps.node_spans._tracer = type("Broken", (), {"start_span": fail})()
    steps.release(voted(7, ONE_A, steps.value))
    steps.release(chosen=(Chosen(7, steps.value),))
    assert steps.answered([5]) == [5]
    assert steps.node_spans.begin(steps.submit, {1: span_bytes(steps.order)})([5]) == [5]
    (event,) = logged_errors
    assert "makes no spans any more" in formatEvent(event)
    logged_errors.clear()


def test_what_is_no_tracer() -> None:
    with pytest.raises(TypeError, match="tracer must be a Tracer"):
        NodeSpans("otlp")  # type: ignore[arg-type]
