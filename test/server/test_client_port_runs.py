"""Runs of commands at the client port: answered together, limited by the command, refused in part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import msgspec
import pytest

import txpaxos.server.answers
import txpaxos.server.budget
from test.helpers.client_port_harness import CODEC, ClientPortHarness, submit, submit_run
from test.helpers.fakes import ONE, NodeHarness, framed
from txpaxos.node.command_limits import CommandLimits
from txpaxos.node.counts import Count
from txpaxos.node.sessions import Sessions
from txpaxos.wire.client_messages import Answer, Refused, Submit, Welcome
from txpaxos.wire.commands import new_session

BAD = Count.BAD_REQUEST


@pytest.fixture
def harness() -> Iterator[ClientPortHarness]:
    harness = ClientPortHarness(NodeHarness("a", ONE))
    yield harness
    harness.port.budget.check()


def answer(number: int, *results: object) -> Answer:
    return Answer(number, tuple(map(msgspec.msgpack.encode, results)))


def in_work(harness: ClientPortHarness) -> tuple[int, int]:
    """Commands and bytes that the port counts as not yet answered."""
    return harness.port.budget.requests, harness.port.budget.request_bytes


def test_a_run_is_answered_together(harness: ClientPortHarness) -> None:
    assert harness.ask(submit_run(7, (b"x", b"y", b"z"))) == [answer(7, "x@1", "y@2", "z@3")]
    assert harness.node.application.applied == [(2, b"x"), (2, b"y"), (2, b"z")]
    assert in_work(harness) == (0, 0)


def test_a_run_that_was_partly_applied(harness: ClientPortHarness) -> None:
    """Sent again in another cut: the first results of those that were, and the others are applied."""
    harness.ask(submit_run(7, (b"x", b"y")))
    assert harness.ask(submit_run(20, (b"y", b"z"), sequence=2)) == [answer(20, "y@2", "z@3")]
    assert harness.ask(submit_run(30, (b"x", b"y", b"z"))) == [answer(30, "x@1", "y@2", "z@3")]
    assert [payload for _, payload in harness.node.application.applied] == [b"x", b"y", b"z"]


def test_results_and_failures_keep_their_order_and_numbers(
    harness: ClientPortHarness, logged_errors: list[dict[str, Any]]
) -> None:
    assert harness.ask(submit_run(7, (b"a", b"!", b"b", b"c", b"!!", b"!!", b"!", b"d"))) == [
        answer(7, "a@1"),
        Refused(8, "CommandFailed", "ValueError: no ! at 2"),
        answer(9, "b@3", "c@4"),
        Refused(11, "CommandFailed", "ValueError: no !! at 2", 2),
        Refused(13, "CommandFailed", "ValueError: no ! at 2"),
        answer(14, "d@8"),
    ]
    logged_errors.clear()


def test_many_large_results_come_in_parts(harness: ClientPortHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is larger than a part may be is a part by itself."""
    monkeypatch.setattr(txpaxos.server.answers, "ANSWER_BYTES", 100)
    small, large = b"s" * 40, b"l" * 200
    heard = harness.ask(submit_run(1, (small, small, small, large, small, large, large)))
    parts = [(one.request, len(one.results)) for one in heard if isinstance(one, Answer)]
    assert parts == [(1, 2), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1)]
    texts = [msgspec.msgpack.decode(result) for one in heard if isinstance(one, Answer) for result in one.results]
    assert [text.split("@")[1] for text in texts] == list("1234567")


def test_a_run_of_a_forgotten_session(harness: ClientPortHarness) -> None:
    harness.node._applier.sessions = Sessions(sessions_max=1)
    harness.ask(submit(1, b"x"))
    harness.ask(submit(1, b"y", session=new_session(b"1" * 16, 1)))
    welcome, refused = harness.ask(submit_run(7, (b"x", b"y", b"z")))
    assert isinstance(welcome, Welcome)
    assert isinstance(refused, Refused)
    assert (refused.request, refused.error, refused.count) == (7, "SessionExpired", 3)


def test_requests_of_one_connection_are_counted_by_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.server.budget, "REQUESTS_MAX", 5)
    client = ClientPortHarness(NodeHarness("b")).client()  # no node leads: nothing gets an answer
    client.say(submit_run(1, (b"x",) * 4), submit_run(5, (b"y",) * 2, 5), submit(7, b"z", 7), submit(8, b"w", 8))
    assert [(one.request, one.error, one.count) for one in client.heard() if isinstance(one, Refused)] == [
        (5, "Overloaded", 2),
        (8, "Overloaded", 1),
    ]
    client.disconnect()


def test_requests_of_all_connections_are_counted_by_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.server.budget, "REQUESTS_ALL_MAX", 5)
    monkeypatch.setattr(txpaxos.server.budget, "REQUEST_BYTES_ALL_MAX", 100)
    harness = ClientPortHarness(NodeHarness("b"))
    first, second = harness.client(), harness.client()
    first.say(submit_run(1, (b"x", b"y", b"z")))
    second.say(
        submit_run(1, (b"x", b"y", b"z")), submit_run(4, (bytes(60), bytes(60)), 4), submit_run(6, (b"u", b"v"), 6)
    )
    assert [(one.request, one.count) for one in second.heard() if isinstance(one, Refused)] == [(1, 3), (4, 2)]
    assert in_work(harness) == (5, 5)
    harness.node_harness.node.stop()
    assert in_work(harness) == (0, 0)
    assert [(one.request, one.error, one.count) for one in first.heard() if isinstance(one, Refused)] == [
        (1, "NodeStopped", 3)
    ]
    assert [(one.request, one.error, one.count) for one in second.heard() if isinstance(one, Refused)] == [
        (6, "NodeStopped", 2)
    ]


@pytest.mark.parametrize(("request_", "sequence"), [(2**64 - 2, 1), (1, 2**64 - 2), (2**64 - 1, 2**64 - 1)])
def test_a_run_for_which_no_numbers_are_left_is_a_bad_request(
    harness: ClientPortHarness, request_: int, sequence: int
) -> None:
    with attrs.validators.disabled():
        data = CODEC.encode(submit_run(request_, (b"x", b"y", b"z"), sequence))
    client = harness.client()
    client.connection.dataReceived(framed(data))
    assert client.transport.disconnected
    assert harness.node.counters == {BAD: 1}
    assert harness.node.application.applied == []


def test_a_run_with_the_last_numbers(harness: ClientPortHarness) -> None:
    last = 2**64 - 1
    session = new_session(b"1" * 16, 0)
    assert harness.ask(Submit(last - 1, session, last - 1, 0, (b"x", b"y"))) == [answer(last - 1, "x@1", "y@2")]


def test_a_run_of_none_is_a_bad_request(harness: ClientPortHarness) -> None:
    client = harness.client()
    client.say(submit_run(1, ()))
    assert client.transport.disconnected
    assert harness.node.counters == {BAD: 1}


def test_one_that_is_too_large_keeps_nothing_from_the_others() -> None:
    harness = ClientPortHarness(NodeHarness("a", ONE, command_limits=CommandLimits(command_bytes_max=10)))
    heard = harness.ask(submit_run(7, (b"x", bytes(11), b"y", bytes(12))), submit(11, b"z", 5))
    assert sorted(heard, key=lambda one: one.request if isinstance(one, Answer | Refused) else 0) == [
        answer(7, "x@1"),
        Refused(8, "ValueTooLarge", "the command has 11 bytes and may have 10"),
        answer(9, "y@2"),
        Refused(10, "ValueTooLarge", "the command has 12 bytes and may have 10"),
        answer(11, "z@3"),
    ]
    assert in_work(harness) == (0, 0)
    # Each had its own sequence: sent again, it is the same command.
    assert harness.ask(submit(20, b"y", 3)) == [answer(20, "y@2")]


def test_the_commands_of_a_client_that_disconnects_go_on(harness: ClientPortHarness) -> None:
    client = harness.client()
    client.say(submit_run(1, (b"x", b"y")))
    client.disconnect()
    harness.node_harness.reactor.idle()
    assert [payload for _, payload in harness.node.application.applied] == [b"x", b"y"]
    assert in_work(harness) == (0, 0)


def test_a_run_whose_answer_is_not_read_waits_and_is_applied_once(
    harness: ClientPortHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(txpaxos.server.budget, "BUFFERED_BYTES_MAX", 100)
    client = harness.client()
    client.connection.pauseProducing()
    for number in range(1, 40, 4):
        client.say(submit_run(number, tuple(b"%d" % one for one in range(number, number + 4)), number))
    harness.node_harness.reactor.idle()
    heard = client.heard()
    assert len(heard) < 10
    for _ in range(10):
        client.connection.resumeProducing()
        harness.node_harness.reactor.idle()
        heard += client.heard()
    answers = sorted((one.request, len(one.results)) for one in heard if isinstance(one, Answer))
    assert answers == [(number, 4) for number in range(1, 40, 4)]
    assert [payload for _, payload in harness.node.application.applied] == [b"%d" % number for number in range(1, 41)]
    assert in_work(harness) == (0, 0)
