"""Queries that wait: for a read index, for the log to be applied, and for the hook."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

import txpaxos.node.reads
from test.helpers.connected_nodes import ConnectedNodes
from test.helpers.fakes import NodesInOneReactor, alone, error_of, outcome_of, submit
from txpaxos.errors import (
    CommandFailed,
    NodeStopped,
    NoQuorum,
    Overloaded,
    QueryFailed,
    SessionExpired,
    ValueTooLarge,
)
from txpaxos.log_lines import LINES_MAX
from txpaxos.node.applier import Applier
from txpaxos.node.command_limits import CommandLimits
from txpaxos.node.reads import Reads
from txpaxos.node.sessions import ERROR_CHARACTERS_MAX
from txpaxos.protocol import PaxosProtocol
from txpaxos.reading import Consistency, Reading


class ReadsHarness:
    """Reads whose read indexes and applied log the test gives.

    :ivar questions: how many read indexes were asked for.
    """

    def __init__(self, query: Callable[[bytes], object] | None = None) -> None:
        self.applier = Applier(lambda slot, payload: None)
        self.asked: list[bytes] = []
        self.questions = 0
        self.reads = Reads(self.applier, query or self._query, self._ask)
        self.reads.start()

    def _query(self, query: bytes) -> object:
        self.asked.append(query)
        return query.decode()

    def _ask(self) -> int:
        self.questions += 1
        return 100 + self.questions

    def read(self, query: bytes = b"q") -> list[Any]:
        return outcome_of(self.reads.read(query, "linearizable"))

    def point(self, slot: int) -> None:
        """The question that is out is answered."""
        self.reads.read_from(100 + self.questions, slot)

    def apply(self, through: int) -> None:
        self.applier.applied_through = through
        self.reads.applied()


def _raise(error: BaseException, _: object) -> None:
    raise error


@pytest.fixture
def harness() -> ReadsHarness:
    return ReadsHarness()


def test_waits_for_the_read_point_and_then_for_the_log(harness: ReadsHarness) -> None:
    outcome = harness.read()
    harness.apply(4)
    assert (outcome, harness.asked, harness.questions) == ([], [], 1)
    harness.point(6)
    harness.apply(5)
    assert (outcome, harness.asked) == ([], [])
    harness.apply(7)
    assert outcome == [Reading("q", 7)]
    assert harness.asked == [b"q"]
    assert len(harness.reads) == 0


def test_a_point_that_is_applied_already_is_answered_at_once(harness: ReadsHarness) -> None:
    harness.apply(9)
    outcome = harness.read()
    harness.point(6)
    assert outcome == [Reading("q", 9)]


def test_who_comes_later_shares_the_next_question(harness: ReadsHarness) -> None:
    """The one that is out was asked before: it does not cover what was acknowledged since."""
    first = harness.read(b"1")
    later = [harness.read(b"%d" % number) for number in (2, 3, 4)]
    assert harness.questions == 1
    harness.apply(5)
    harness.point(5)
    assert first == [Reading("1", 5)]
    assert later == [[], [], []]
    assert harness.questions == 2
    harness.point(6)
    assert harness.questions == 2, "no read is left to ask for"
    harness.apply(6)
    assert later == [[Reading("2", 6)], [Reading("3", 6)], [Reading("4", 6)]]


def test_points_are_waited_for_in_their_order(harness: ReadsHarness) -> None:
    outcomes = []
    for slot in (3, 5, 5):
        outcomes.append(harness.read())
        harness.point(slot)
    assert len(harness.reads) == 3
    harness.apply(4)
    assert outcomes == [[Reading("q", 4)], [], []]
    harness.apply(5)
    assert outcomes[1:] == [[Reading("q", 5)], [Reading("q", 5)]]


def test_a_local_read_waits_for_nothing(harness: ReadsHarness) -> None:
    harness.apply(2)
    assert outcome_of(harness.reads.read(b"q", "local")) == [Reading("q", 2)]
    assert harness.questions == 0


def test_a_hook_may_take_its_time() -> None:
    later: Deferred[str] = Deferred()
    harness = ReadsHarness(lambda query: later)
    harness.apply(2)
    outcome = outcome_of(harness.reads.read(b"q", "local"))
    assert len(harness.reads) == 1
    harness.apply(3)
    later.callback("done")
    assert outcome == [Reading("done", 2)]
    assert len(harness.reads) == 0


class Mute(Exception):
    """Says nothing, but raises."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class MuteNode(NodeStopped):
    def __str__(self) -> str:
        raise SystemExit(1)


RAISED = [
    (ValueError("no"), "ValueError: no"),
    (QueryFailed("there is no such table"), "there is no such table"),
    (SystemExit(3), "SystemExit: 3"),
    (KeyError(), "KeyError"),
    (Mute("?"), "Mute"),
    (MuteNode("?"), "MuteNode"),
    (ValueError("x" * 10**6), "ValueError: " + "x" * (ERROR_CHARACTERS_MAX - 12)),
    # Those would say something of this node, which it did not say.
    (Overloaded("too many watchers"), "Overloaded: too many watchers"),
    (NodeStopped("the other one"), "NodeStopped: the other one"),
    (NoQuorum("over there"), "NoQuorum: over there"),
    (CommandFailed("there"), "CommandFailed: there"),
    (SessionExpired("there"), "SessionExpired: there"),
]


@pytest.mark.parametrize(("error", "words"), RAISED)
@pytest.mark.parametrize("is_late", [False, True])
def test_a_hook_that_raises(error: Exception, words: str, is_late: bool) -> None:
    later: Deferred[str] = Deferred()

    def raises(query: bytes) -> object:
        if is_late:
            return later
        raise error

    waiting = ReadsHarness(raises).reads.read(b"q", "local")
    if is_late:
        later.errback(error)
    found = error_of(waiting)
    assert type(found) is QueryFailed
    assert str(found) == words


def test_a_hook_whose_answer_fails_later() -> None:
    later: Deferred[str] = Deferred()
    outcome: list[Any] = outcome_of(ReadsHarness(lambda query: later).reads.read(b"q", "local"))
    later.errback(KeyError("k"))
    assert str(outcome[0].value) == "KeyError: 'k'"
    assert outcome[0].check(QueryFailed)


def test_too_many_are_refused_at_once(harness: ReadsHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.node.reads, "WAITING_MAX", 3)
    later: Deferred[str] = Deferred()
    harness.reads._query = lambda query: later
    harness.read()
    harness.point(9)
    harness.read()
    outcome_of(harness.reads.read(b"q", "local"))
    both: tuple[Consistency, ...] = ("linearizable", "local")
    for consistency in both:
        assert isinstance(error_of(harness.reads.read(b"q", consistency)), Overloaded)
    assert len(harness.reads) == 3
    harness.reads.close(NodeStopped("over"))
    assert harness.read() == []


class TestBytes:
    """Of the queries that wait, wherever they are in their course."""

    @pytest.fixture(autouse=True)
    def few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(txpaxos.node.reads, "WAITING_BYTES_MAX", 10)

    @pytest.mark.parametrize("consistency", ["linearizable", "local"])
    def test_too_many_are_refused_at_once(self, consistency: Consistency) -> None:
        later: Deferred[str] = Deferred()
        harness = ReadsHarness(lambda query: later)
        harness.read(b"open")
        harness.point(0)
        harness.read(b"two")
        harness.point(1)
        harness.read(b"3")
        harness.read(b"4")
        error = error_of(harness.reads.read(b"xx", consistency))
        assert isinstance(error, Overloaded)
        assert str(error) == "4 queries wait already; try again later"
        assert len(harness.reads) == 4
        assert not harness.reads.read(b"x", consistency).called

    def test_one_that_is_answered_makes_room(self, harness: ReadsHarness) -> None:
        for number in range(5):
            outcome = harness.read(b"9 bytes  ")
            assert isinstance(error_of(harness.reads.read(b"xx", "local")), Overloaded)
            harness.point(number)
            harness.apply(number)
            assert outcome == [Reading("9 bytes  ", number)]

    @pytest.mark.parametrize("course", ["asked", "next", "pointed", "open"])
    def test_one_that_is_cancelled_makes_room(self, course: str) -> None:
        later: Deferred[str] = Deferred()
        harness = ReadsHarness(lambda query: later)
        if course == "next":
            harness.read(b"")
        waiting = harness.reads.read(b"10 bytes  ", "local" if course == "open" else "linearizable")
        if course == "pointed":
            harness.point(5)
        for _ in range(2):
            assert isinstance(error_of(harness.reads.read(b"x", "local")), Overloaded)
            waiting.cancel()
            waiting.addErrback(lambda _: None)
            waiting = harness.reads.read(b"10 bytes  ", "linearizable")

    def test_closing_forgets_them(self, harness: ReadsHarness) -> None:
        harness.read(b"5 b  ")
        harness.point(9)
        harness.read(b"5 b  ")
        harness.reads.close(NodeStopped("over"))
        assert harness.reads._waiting_bytes == 0


class TestCancel:
    @pytest.mark.parametrize("when", ["asked", "next", "pointed"])
    def test_a_caller_that_waits_may_cancel(self, harness: ReadsHarness, when: str) -> None:
        if when == "next":
            other = harness.read(b"other")
        waiting = harness.reads.read(b"q", "linearizable")
        if when == "pointed":
            harness.point(5)
        waiting.cancel()
        assert isinstance(error_of(waiting), CancelledError)
        if when != "pointed":
            harness.point(5)
        harness.apply(5)
        assert harness.asked == ([b"other"] if when == "next" else [])
        assert len(harness.reads) == 0
        if when == "next":
            assert other == [Reading("other", 5)]
        assert harness.read() == []

    def test_the_hook_is_told(self) -> None:
        cancelled: list[object] = []
        later: Deferred[str] = Deferred(cancelled.append)
        reads = ReadsHarness(lambda query: later).reads
        waiting = reads.read(b"q", "local")
        waiting.cancel()
        assert cancelled == [later]
        assert isinstance(error_of(waiting), CancelledError)
        assert len(reads) == 0

    @pytest.mark.parametrize("error", [RuntimeError("not now"), SystemExit(1)])
    def test_a_hook_that_raises_when_it_is_told(
        self, error: BaseException, logged_errors: list[dict[str, Any]]
    ) -> None:
        reads = ReadsHarness(lambda query: Deferred(partial(_raise, error))).reads
        for _ in range(10):
            waiting = reads.read(b"q", "local")
            waiting.cancel()
            assert isinstance(error_of(waiting), CancelledError)
        assert (len(reads), reads._waiting_bytes) == (0, 0)
        assert {event["log_format"] for event in logged_errors} == {
            "the Deferred of a query raised when it was cancelled{more}"
        }
        assert len(logged_errors) == LINES_MAX
        logged_errors.clear()

    def test_a_deadline_of_a_hook_that_raises_when_it_is_told(self, logged_errors: list[dict[str, Any]]) -> None:
        class Stubborn(Shelf):
            def query(self, query: bytes) -> object:
                return Deferred(partial(_raise, RuntimeError("not now")))

        node_harness = alone(application=Stubborn)
        waiting = node_harness.node.read(b"q", "local", deadline_seconds=1.0)
        node_harness.reactor.spend(2.0)
        assert isinstance(error_of(waiting), NoQuorum)
        assert len(node_harness.node._reads) == 0
        logged_errors.clear()

    def test_a_callback_may_cancel_another_read_that_is_due_too(self, harness: ReadsHarness) -> None:
        harness.read(b"1")
        both = [harness.reads.read(b"%d" % number, "linearizable") for number in (2, 3)]
        both[0].addCallback(lambda _: both[1].cancel())
        harness.point(5)
        harness.point(5)
        harness.apply(5)
        assert isinstance(error_of(both[1]), CancelledError)
        assert harness.asked == [b"1", b"2"]
        assert len(harness.reads) == 0


class TestClose:
    def test_no_caller_is_left_waiting(self) -> None:
        cancelled: list[object] = []
        later: Deferred[str] = Deferred(cancelled.append)
        harness = ReadsHarness(lambda query: later)
        pointed = harness.read()
        harness.point(9)
        asked = harness.read()
        waiting = harness.read()
        opened: list[Any] = outcome_of(harness.reads.read(b"q", "local"))
        harness.reads.close(NodeStopped("over"))
        outcome: list[Any]
        for outcome in (pointed, asked, waiting, opened):
            (failure,) = outcome
            assert failure.check(NodeStopped)
        assert cancelled == [later]
        assert len(harness.reads) == 0

    def test_a_hook_that_raises_when_it_is_told(self, logged_errors: list[dict[str, Any]]) -> None:
        harness = ReadsHarness(lambda query: Deferred(partial(_raise, RuntimeError("not now"))))
        both: list[list[Any]] = [outcome_of(harness.reads.read(b"q", "local")) for _ in range(2)]
        harness.reads.close(NodeStopped("over"))
        assert all(outcome[0].check(NodeStopped) for outcome in both)
        assert len(harness.reads) == 0
        assert len(logged_errors) == 2
        logged_errors.clear()

    def test_an_errback_may_cancel_another_read(self, harness: ReadsHarness) -> None:
        both = [harness.reads.read(b"q", "linearizable") for _ in range(2)]
        both[0].addErrback(lambda _: both[1].cancel())
        both[1].addErrback(lambda _: both[0].cancel())
        harness.reads.close(NodeStopped("over"))
        assert all(one.called for one in both)

    def test_a_callback_may_close(self, harness: ReadsHarness) -> None:
        """An application that stops its node at what it reads."""
        harness.read()
        both = [harness.reads.read(b"q", "linearizable") for _ in range(2)]
        outcomes: list[list[Any]] = [outcome_of(one) for one in both]
        harness.point(3)
        both[0].addCallback(lambda _: harness.reads.close(NodeStopped("over")))
        harness.point(5)
        harness.apply(5)
        assert outcomes[0] == [Reading("q", 5)]
        assert outcomes[1][0].check(NodeStopped)


# --------------------------------------------------------------- on real nodes


class Shelf(PaxosProtocol):
    """Keeps what it was told last."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = b""

    def apply(self, slot: int, command: bytes) -> object:
        self.kept = command
        return slot

    def query(self, query: bytes) -> object:
        return self.kept


@pytest.fixture
def cluster() -> NodesInOneReactor:
    cluster = ConnectedNodes(application=Shelf)
    cluster.lead()
    return cluster


def test_every_node_sees_what_was_acknowledged(cluster: NodesInOneReactor) -> None:
    for number in range(10):
        cluster.wait(cluster.lead().submit(b"%d" % number))
        for node in cluster.nodes.values():
            reading = cluster.wait(node.read(b""))
            assert reading.result == b"%d" % number
            assert reading.slot == node.applied_through


def test_two_round_trips_and_no_more(cluster: NodesInOneReactor) -> None:
    """At the leader one: a heartbeat and its answer. Elsewhere one more, to the leader."""
    cluster.wait(cluster.lead().submit(b"x"))
    cluster.reactor.spend(0.01)
    for node, seconds in ((cluster.lead(), 0.0015), (cluster.followers()[0], 0.0025)):
        began = cluster.reactor.seconds()
        cluster.wait(node.read(b""))
        assert cluster.reactor.seconds() - began < seconds


def test_a_read_takes_no_slot_and_saves_nothing(cluster: NodesInOneReactor) -> None:
    leader = cluster.lead()
    cluster.wait(leader.submit(b"x"))
    cluster.reactor.spend(0.5)
    saves = {node: len(store.saves) for node, store in cluster.stores.items()}
    slot = leader.applied_through
    for node in cluster.nodes.values():
        cluster.wait(node.read(b""))
    assert leader.applied_through == slot
    assert {node: len(store.saves) for node, store in cluster.stores.items()} == saves


def test_a_leader_cut_off_answers_no_read_and_then_one_that_is_not_old(cluster: NodesInOneReactor) -> None:
    old = cluster.lead()
    cluster.wait(old.submit(b"before"))
    cluster.cut_off(old.name)
    waiting: list[Any] = outcome_of(old.read(b""))
    local: list[Any] = outcome_of(old.read(b"", "local"))
    assert local[0].result == b"before"
    new = cluster.lead_of_the_rest(old)
    cluster.wait(new.submit(b"after"))
    cluster.reactor.spend(5.0)
    assert waiting == []
    assert cluster.wait(old.read(b"", "local")).result == b"before"
    cluster.cut.clear()
    assert cluster.reactor.spend(10.0, lambda: waiting)
    assert waiting[0].result == b"after"


def test_a_read_outlives_the_leader_that_it_asked(cluster: NodesInOneReactor) -> None:
    leader, follower = cluster.lead(), cluster.followers()[0]
    cluster.wait(leader.submit(b"x"))
    outcome: list[Any] = outcome_of(follower.read(b""))
    cluster.reactor.spend(0.0002)
    cluster.kill(leader.name)
    assert cluster.reactor.spend(10.0, lambda: outcome)
    assert outcome[0].result == b"x"


def test_no_quorum_no_answer_until_it_is_cancelled(cluster: NodesInOneReactor) -> None:
    for follower in cluster.followers():
        cluster.kill(follower.name)
    (node,) = cluster.nodes.values()
    waiting = node.read(b"")
    cluster.reactor.spend(10.0)
    assert not waiting.called
    waiting.cancel()
    assert isinstance(error_of(waiting), CancelledError)


def test_a_node_by_itself_answers_itself() -> None:
    node_harness = alone(application=Shelf)
    submit(node_harness, b"x")
    outcome: list[Any] = outcome_of(node_harness.node.read(b""))
    node_harness.reactor.idle()
    assert [reading.result for reading in outcome] == [b"x"]


def test_a_node_that_does_not_run_answers_no_read() -> None:
    node_harness = alone(application=Shelf)
    waiting = node_harness.node.read(b"")
    node_harness.node.stop()
    assert isinstance(error_of(waiting), NodeStopped)
    assert isinstance(error_of(node_harness.node.read(b"")), NodeStopped)


def test_a_query_that_is_too_big_is_refused() -> None:
    node_harness = alone(application=Shelf, command_limits=CommandLimits(command_bytes_max=10))
    error = error_of(node_harness.node.read(bytes(11), "local"))
    assert isinstance(error, ValueTooLarge)
    assert str(error) == "the query has 11 bytes and may have 10"
    assert outcome_of(node_harness.node.read(bytes(10), "local")) == [Reading(b"", node_harness.node.applied_through)]


def test_an_application_without_the_hook_says_so() -> None:
    node_harness = alone()
    error = error_of(node_harness.node.read(b"q", "local"))
    assert isinstance(error, QueryFailed)
    assert "it has no query hook" in str(error)


@pytest.mark.parametrize("consistency", ["linearizable", "local"])
def test_what_is_asked_before_the_start_waits_for_it(harness: ReadsHarness, consistency: Consistency) -> None:
    harness.reads = Reads(harness.applier, harness._query, harness._ask)
    answer = outcome_of(harness.reads.read(b"early", consistency))
    harness.reads.read(b"cancelled", consistency).addErrback(lambda _: None).cancel()
    harness.reads.applied()  # The log is applied again before there is a network to ask.
    assert (answer, harness.asked, harness.questions) == ([], [], 0)
    harness.reads.start()
    if consistency == "linearizable":
        harness.point(0)
    assert answer == [Reading("early", 0)]
    assert harness.asked == [b"early"]
