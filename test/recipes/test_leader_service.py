"""A service that runs on one node at a time: its children never overlap, and a child that does not stop is ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred

from test.recipes.program import STEP_SECONDS, Program, result_of
from test.recipes.test_permits import assert_nothing_is_left
from txpaxos import ConfigError
from txpaxos.recipes import Hold, LeaderService, leader_service, near_leader
from txpaxos.recipes.replicated import sessions
from txpaxos.recipes.replicated.gatherings import Gatherings
from txpaxos.recipes.replicated.permits import Fenced, Permits
from txpaxos.recipes.replicated.sessions import Sessions

ROOT = Path(__file__).parents[2]
TTL_SECONDS = 10.0


class Child(Service):
    """Notes when it starts and stops. It takes ``stopping`` to stop, if that is set."""

    stopping: Deferred[None] | None = None

    def __init__(self, node: Node, lead: Hold) -> None:
        self.node = node
        self.lead = lead

    def startService(self) -> None:
        super().startService()
        assert self.lead.still_held()
        self.node.note(f"start {self.lead.token}")

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        self.node.note(f"stop {self.lead.token}")
        return self.stopping


class Node:
    """A program with such a service, and what its children have done: when, and what."""

    def __init__(self, first: Node | None = None, **options: Any) -> None:
        self.program: Program = Program(None if first is None else first.program.harness)
        self.noted: list[tuple[float, str]] = []
        self.children: list[Child] = []
        self.service = LeaderService(self.program.recipes, "cron", self.made, ttl_seconds=TTL_SECONDS, **options)
        self.service.startService()

    def made(self, lead: Hold) -> Child:
        self.children.append(Child(self, lead))
        return self.children[-1]

    def note(self, what: str) -> None:
        self.noted.append((round(self.program.clock.seconds(), 2), what))

    @property
    def what(self) -> list[str]:
        return [what for _, what in self.noted]


def advance(seconds: float, *nodes: Node) -> None:
    """Let time pass for all nodes, and for the cluster once."""
    for _ in range(round(seconds / STEP_SECONDS)):
        nodes[0].program.advance(STEP_SECONDS)
        for node in nodes[1:]:
            node.program.clock.rightNow = nodes[0].program.clock.rightNow
            node.program.clock.advance(0)
        assert sum(child.running for node in nodes for child in node.children) <= 1


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines with which the process was ended."""
    lines: list[str] = []
    monkeypatch.setattr(leader_service, "end_process", lines.append)
    return lines


def test_one_child_runs_and_the_next_when_it_is_stopped(ends: list[str]) -> None:
    first = Node()
    second = Node(first)
    advance(25.0, first, second)
    assert (first.what, second.what) == (["start 1"], [])
    assert (first.service.lead, second.service.lead) == (first.children[0].lead, None)
    assert result_of(first.service.stopService()) is None
    assert (first.what, second.what, first.service.lead) == (["start 1", "stop 1"], ["start 2"], None)
    first.service.startService()
    second.service.stopService()
    assert first.what == ["start 1", "stop 1", "start 3"]
    assert (len(first.children), ends) == (2, [])


def test_a_child_is_started_when_its_grant_has_come_and_not_before() -> None:
    node = Node()
    node.service.stopService()
    node.program.is_slow = True
    node.service.startService()
    while not node.program.harness.state_of(Permits).holders:
        assert node.what == ["start 1", "stop 1"]
        node.program.on_the_way.pop(0)()
    assert len(node.children) == 1, "it is granted in the log, and this program does not know yet"
    node.program.on_the_way.pop(0)()
    assert node.what == ["start 1", "stop 1", "start 2"]


def test_a_child_is_stopped_when_its_session_is_suspended(ends: list[str]) -> None:
    first = Node()
    second = Node(first)
    advance(5.0, first, second)
    first.program.is_cut_off = True
    advance(15.0, first, second)
    assert first.what == ["start 1", "stop 1"]
    # The keep-alive at 4 s was the last one that was confirmed.
    assert first.noted[1][0] == pytest.approx(4.0 + TTL_SECONDS * 2 / 3, abs=0.2)
    assert second.what == ["start 2"]
    assert ends == []
    first.program.is_cut_off = False
    advance(5.0, first, second)
    second.service.stopService()
    assert first.what == ["start 1", "stop 1", "start 3"]


def test_a_child_that_was_told_to_stop_stops_also_if_the_session_is_held_again(ends: list[str]) -> None:
    node = Node()
    stopping = node.children[0].stopping = Deferred()
    node.program.is_cut_off = True
    advance(7.0, node)
    node.program.is_cut_off = False
    advance(20.0, node)
    assert node.what == ["start 1", "stop 1"]
    stopping.callback(None)
    assert (node.what, ends) == (["start 1", "stop 1", "start 2"], [])


def test_a_child_that_does_not_stop_is_ended_with_its_process_before_another_starts(
    ends: list[str], expected_errors: None
) -> None:
    first = Node()
    second = Node(first)
    first.children[0].stopping = Deferred()
    first.program.is_cut_off = True
    while not ends:
        assert second.what == []
        advance(STEP_SECONDS, first, second)
    assert first.program.clock.seconds() == pytest.approx(TTL_SECONDS * 0.99, abs=0.06)
    assert second.what == []
    assert ends == [
        "the child of the leader of cron (token 1) did not stop in time: this process ends, as another child may be"
        " started elsewhere"
    ]
    advance(0.2, first, second)
    assert second.what == ["start 2"]


def test_a_child_that_does_not_stop_is_waited_for_if_that_is_asked_for(ends: list[str], expected_errors: None) -> None:
    node = Node(on_overrun="log")
    stopping = node.children[0].stopping = Deferred()
    node.program.is_cut_off = True
    advance(12.0, node)
    node.program.is_cut_off = False
    assert (node.what, ends) == (["start 1", "stop 1"], [])
    stopping.callback(None)
    assert node.what == ["start 1", "stop 1", "start 2"]


def test_a_session_that_is_over_at_once_ends_a_child_that_needs_time_to_stop(
    ends: list[str], expected_errors: None
) -> None:
    node = Node()
    node.children[0].stopping = Deferred()
    (session_id,) = node.program.harness.state_of(Sessions).ttl_ms
    node.program.harness.state_of(Sessions).close(session_id)
    advance(4.1, node)
    assert (node.what, len(ends)) == (["start 1", "stop 1"], 1)


def test_a_child_that_stops_at_once_is_not_too_late(ends: list[str]) -> None:
    node = Node()
    (session_id,) = node.program.harness.state_of(Sessions).ttl_ms
    node.program.harness.state_of(Sessions).close(session_id)
    advance(4.1, node)
    assert (node.what, ends) == (["start 1", "stop 1", "start 2"], [])


def test_a_child_that_fails_to_stop_counts_as_one_that_runs(ends: list[str], expected_errors: None) -> None:
    node = Node()
    stopping = node.children[0].stopping = Deferred()
    node.service.stopService()
    stopping.errback(ValueError("broken"))
    assert len(ends) == 1


@pytest.mark.parametrize("where", ["made", "startService"])
def test_after_an_error_another_node_has_its_turn(
    where: str, monkeypatch: pytest.MonkeyPatch, expected_errors: None
) -> None:
    def fails(*_: Any) -> Any:
        raise ValueError("broken")

    first = Node()
    first.service.stopService()
    if where == "made":
        first.service._factory = fails
    else:
        first.made = lambda lead: Broken(first, lead)  # type: ignore[method-assign]
        first.service._factory = first.made

        class Broken(Child):
            startService = fails

    first.service.startService()
    assert first.service.lead is None
    second = Node(first)
    assert second.what == ["start 3"]
    advance(3.0, first, second)
    assert len(first.program.harness.state_of(Permits).requests) == 2
    first.service.stopService()
    second.service.stopService()
    assert_nothing_is_left(first.program.harness.state_of(Permits))


def test_it_contends_anew_when_it_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 0)
    node = Node()
    advance(2.5, node)
    monkeypatch.undo()
    assert node.what == []
    advance(1.0, node)
    assert node.what == ["start 1"]


def test_one_that_waits_stops_at_once() -> None:
    first = Node()
    second = Node(first)
    assert result_of(second.service.stopService()) is None
    assert second.service.stopService().called
    assert len(first.program.harness.state_of(Permits).requests) == 1
    assert second.program.clock.getDelayedCalls() == []


def test_one_that_pauses_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 0)
    node = Node()
    assert node.service.stopService().called
    assert node.program.clock.getDelayedCalls() == []


def test_it_stops_also_when_no_node_can_be_told() -> None:
    node = Node()
    node.program.is_slow = node.program.is_cut_off = True
    stopped = node.service.stopService()
    assert (node.what, stopped.called) == (["start 1", "stop 1"], False)
    advance(TTL_SECONDS, node)
    assert stopped.called


def test_it_is_a_service_among_others() -> None:
    node = Node()
    parent = MultiService()
    node.service.stopService()
    node.service.setServiceParent(parent)
    parent.startService()
    assert node.what == ["start 1", "stop 1", "start 2"]
    assert result_of(parent.stopService()) == [(True, None)]


class Lead:
    """The lead of the cluster, as each node sees it at once."""

    def __init__(self) -> None:
        self.at: Node | None = None

    def node(self, first: Node | None = None) -> Node:
        made: list[Node] = []
        made.append(Node(first, near_leader=lambda: made == [self.at]))
        return made[0]


SETTLED_SECONDS = near_leader.SETTLED_SECONDS + 2 * near_leader.LOOK_SECONDS


def three_near_the_leader() -> tuple[Lead, list[Node]]:
    lead = Lead()
    first = lead.node()
    return lead, [first, lead.node(first), lead.node(first)]


def test_the_child_comes_to_the_node_that_leads_the_cluster(ends: list[str]) -> None:
    lead, nodes = three_near_the_leader()
    first, second, third = nodes
    lead.at = third
    advance(SETTLED_SECONDS, *nodes)
    # The second was in the line before the third, and gave the lock up without a child.
    assert (first.what, second.what, third.what) == (["start 1", "stop 1"], [], ["start 3"])
    assert first.noted[1][0] == third.noted[0][0], "there was no gap but for the messages"
    advance(30.0, *nodes)
    assert len(third.noted) == 1
    assert not first.program.harness.state_of(Gatherings).members, "the child is where it should be: it calls no more"
    lead.at = first
    advance(SETTLED_SECONDS, *nodes)
    assert third.what == ["start 3", "stop 3"]
    assert first.what[2:] == ["start 4"]
    assert (second.what, ends) == ([], [])
    for node in nodes:
        node.service.stopService()
        assert node.program.clock.getDelayedCalls() == []


def test_the_child_does_not_follow_a_lead_that_flutters() -> None:
    lead, nodes = three_near_the_leader()
    for number in range(20):
        lead.at = nodes[number % 3]
        advance(near_leader.SETTLED_SECONDS * 0.9, *nodes)
    assert [node.what for node in nodes] == [["start 1"], [], []]
    for node in nodes:
        node.service.stopService()


def test_the_child_stays_where_it_is_when_the_node_that_leads_does_not_contend() -> None:
    lead, nodes = three_near_the_leader()
    plain = Node(nodes[0])
    lead.at = plain
    advance(40.0, *nodes, plain)
    assert [node.what for node in (*nodes, plain)] == [["start 1"], [], [], []]
    for node in (*nodes, plain):
        node.service.stopService()


def test_the_next_child_is_started_near_the_leader_when_a_node_is_lost(ends: list[str]) -> None:
    lead, nodes = three_near_the_leader()
    first, second, third = nodes
    lead.at = first
    advance(SETTLED_SECONDS, *nodes)
    assert (first.what, second.what, third.what) == (["start 1"], [], [])
    first.program.is_cut_off = True
    lead.at = third
    advance(TTL_SECONDS, *nodes)
    assert (first.what, second.what, third.what) == (["start 1", "stop 1"], ["start 2"], [])
    advance(SETTLED_SECONDS, *nodes)
    assert second.what == ["start 2", "stop 2"]
    assert third.what[-1].startswith("start ")
    assert ends == []
    for node in nodes:
        node.service.stopService()


def test_a_caller_that_is_in_no_line_is_passed_over_after_one_turn() -> None:
    _, nodes = three_near_the_leader()
    first = nodes[0]
    session_id = "of a program that is lost"
    first.program.harness.state_of(Sessions).open(session_id, 60_000)
    first.program.harness.result(
        first.program.recipes._client.service(Gatherings).join(near_leader.party_of("cron"), session_id)
    )
    advance(20.0, *nodes)
    noted = [note for node in nodes for note in node.noted]
    assert len(noted) <= 7
    assert sum(child.running for node in nodes for child in node.children) == 1
    for node in nodes:
        node.service.stopService()


def test_what_says_whether_a_node_leads_and_fails_leaves_the_child_where_it_is(expected_errors: None) -> None:
    def fails() -> bool:
        raise ValueError("broken")

    node = Node(near_leader=fails)
    other = Lead().node(node)
    advance(20.0, node, other)
    assert (node.what, other.what) == (["start 1"], [])
    for one in (node, other):
        one.service.stopService()


def test_wrong_arguments_are_refused_at_the_call() -> None:
    recipes = Program().recipes
    wrong: Any = None
    with pytest.raises(ConfigError, match=r"^factory makes a service of the lead: it is no function but None$"):
        LeaderService(recipes, "cron", wrong)
    with pytest.raises(ConfigError, match=r"^on_overrun is 'exit' or 'log', not None$"):
        LeaderService(recipes, "cron", Child, on_overrun=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^near_leader says whether this node leads: it is no function but True$"):
        LeaderService(recipes, "cron", made, near_leader=True)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^name must have at most 239 characters with near_leader, not 240$"):
        LeaderService(recipes, "n" * 240, made, near_leader=bool)
    for ttl_seconds in (0, 0.5, 86_401, float("nan")):
        with pytest.raises(ValueError, match=r"^ttl_seconds must be"):
            LeaderService(recipes, "cron", made, ttl_seconds=ttl_seconds)
    for name, value in (("", ""), ("n" * 257, ""), ("cron", "\ud800")):
        with pytest.raises(TypeError, match=r"^(name|value) must "):
            LeaderService(recipes, name, made, value=value)
    with pytest.raises(TypeError, match=r"^name must be a str of 1 to 256 characters, not None$"):
        LeaderService(recipes, wrong, made)
    with pytest.raises(TypeError, match=r"^recipes must be Recipes\(client, reactor\), not NoneType$"):
        LeaderService(wrong, "cron", made)


def made(lead: Hold) -> Service:
    return Service()


def test_the_term_ends_when_its_child_gives_up_the_lead(ends: list[str]) -> None:
    first = Node()
    second = Node(first)
    lead = first.service.lead
    assert lead is not None
    released = lead.release()
    assert (first.what, second.what) == (["start 1", "stop 1"], ["start 2"])
    assert (first.service.lead, ends) == (None, [])
    assert isinstance(result_of(released), Fenced), "its session was closed before"
    for node in (first, second):
        node.service.stopService()


def test_stopping_twice_lets_the_next_child_start_at_once() -> None:
    first = Node()
    second = Node(first)
    first.program.is_slow = True
    first.service.stopService()
    again = first.service.stopService()
    assert (first.what, second.what) == (["start 1", "stop 1"], [])
    while first.program.on_the_way:
        first.program.on_the_way.pop(0)()
    assert (second.what, again.called) == (["start 2"], True)
    second.service.stopService()


@pytest.mark.parametrize("child", [None, "a text", Deferred()])
def test_what_is_no_service_is_not_started(child: Any, ends: list[str], expected_errors: None) -> None:
    first = Node()
    first.service.stopService()
    first.service._factory = lambda lead: child
    first.service.startService()
    second = Node(first)
    assert (second.what, ends) == (["start 3"], [])


def test_a_child_that_can_neither_start_nor_stop_ends_no_process(ends: list[str], expected_errors: None) -> None:
    class Broken(Service):
        def startService(self) -> None:
            raise ValueError("broken")

        def stopService(self) -> None:
            raise ValueError("was not started")

    first = Node()
    first.service.stopService()
    first.service._factory = lambda lead: Broken()
    first.service.startService()
    assert (Node(first).what, ends) == (["start 3"], [])


BLOCKED = """\
import sys, time
from twisted.application.service import Service
from twisted.internet import reactor
from test.recipes.program import Program
from txpaxos.recipes import LeaderService, Recipes

class Child(Service):
    def startService(self):
        print("start", flush=True)
        reactor.callLater(0, time.sleep, 60)
        reactor.callLater(0, print, "too late", flush=True)

LeaderService(Recipes(Program(), reactor), "cron", lambda lead: Child(), ttl_seconds=1.0).startService()
reactor.run()
"""


def test_a_process_whose_reactor_is_blocked_ends_before_its_lease_is_over() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.returncode) == ("start\n", leader_service.EXIT_STATUS), done.stderr
    assert done.stderr == (
        "the child of the leader of cron (token 1) did not stop in time: this process ends, as another child may be"
        " started elsewhere\n"
    )
