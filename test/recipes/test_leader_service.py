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
from txpaxos.recipes import Hold, LeaderService, leader_service
from txpaxos.recipes.replicated import sessions
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


def test_wrong_arguments_are_refused_at_the_call() -> None:
    recipes = Program().recipes
    wrong: Any = None
    with pytest.raises(ConfigError, match=r"^factory makes a service of the lead: it is no function but None$"):
        LeaderService(recipes, "cron", wrong)
    with pytest.raises(ConfigError, match=r"^on_overrun is 'exit' or 'log', not None$"):
        LeaderService(recipes, "cron", Child, on_overrun=wrong)  # type: ignore[arg-type]
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
