"""Sessions of one program are kept alive together, and each is believed, lost and ended by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from test.recipes.program import Program, result_of
from txpaxos import Client
from txpaxos.recipes import Recipes, Session, lease_keeper
from txpaxos.recipes.replicated.sessions import Sessions, timer_of
from txpaxos.service.application import application_of
from txpaxos.testing.simulator.cluster import SimulatedCluster
from txpaxos.testing.simulator.network import SimulatedReactor
from txpaxos.wire.client_messages import KeepTimers, KeepTogether

TTL_SECONDS = 10.0


@pytest.fixture
def program() -> Program:
    return Program()


def opened(program: Program, *ttls_seconds: float, apart_seconds: float = 0.3) -> list[Session]:
    """Sessions, each opened a little later than the one before."""
    sessions = []
    for ttl_seconds in ttls_seconds:
        sessions.append(result_of(program.recipes.session(ttl_seconds)))
        program.advance(apart_seconds)
    return sessions


def timers(*sessions: Session) -> list[str]:
    return [timer_of(session.session_id) for session in sessions]


def test_those_of_about_the_same_time_go_in_one_message(program: Program) -> None:
    sessions = opened(program, 10.0, 10.0, 15.0, 9.0, 10.0)
    program.advance(60.0)
    assert {session.state for session in sessions} == {"held"}
    assert program.kept == [timers(*sessions)] * len(program.kept)
    assert 60.0 / (0.4 * 9.0) - 1 <= len(program.kept) <= 60.0 / (0.4 * 9.0) + 1


def test_those_of_other_times_go_in_others(program: Program) -> None:
    short, long, other = opened(program, 10.0, 100.0, 120.0)
    program.advance(400.0)
    assert {session.state for session in (short, long, other)} == {"held"}
    assert program.kept.count(timers(long, other)) == len(program.kept) - program.kept.count(timers(short))
    assert 9 <= program.kept.count(timers(long, other)) <= 11


def test_a_message_holds_as_many_as_a_node_takes(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_keeper, "TOGETHER_MAX", 2)
    sessions = opened(program, *[TTL_SECONDS] * 5)
    program.advance(30.0)
    assert {session.state for session in sessions} == {"held"}
    assert program.kept[:3] == [timers(*sessions[:2]), timers(*sessions[2:4]), timers(*sessions[4:])]


def test_one_that_gets_no_answer_is_lost_and_takes_no_other_with_it(program: Program) -> None:
    """The others are not suspended for a moment."""
    first, silent, last = opened(program, *[TTL_SECONDS] * 3)
    states: dict[Session, list[str]] = {session: [] for session in (first, silent, last)}
    for session, told in states.items():
        session.watch(told.append)
    program.unheard.update(timers(silent))
    program.advance(40.0)
    assert states == {first: [], silent: ["suspended", "lost"], last: []}
    assert program.kept[-1] == timers(first, last)


def test_one_that_the_nodes_have_ended_is_dropped(program: Program) -> None:
    first, ended, last = opened(program, *[TTL_SECONDS] * 3)
    program.harness.state_of(Sessions).close(ended.session_id)
    program.advance(5.0)
    assert [session.state for session in (first, ended, last)] == ["held", "lost", "held"]
    program.advance(40.0)
    assert [session.state for session in (first, ended, last)] == ["held", "lost", "held"]
    assert program.kept[1:] == [timers(first, last)] * (len(program.kept) - 1)


def test_a_late_answer_says_nothing_of_one_that_was_opened_meanwhile(program: Program) -> None:
    (first,) = opened(program, TTL_SECONDS, apart_seconds=4.0)
    assert program.kept == [timers(first)]
    program.answer_seconds = 3.5
    program.advance(4.0)
    (second,) = opened(program, TTL_SECONDS, apart_seconds=0.0)
    program.advance(3.5)
    assert program.kept[1:] == [timers(first)]
    assert second.lease_left_seconds == pytest.approx(0.99 * TTL_SECONDS - 3.5)
    assert first.lease_left_seconds == pytest.approx(0.99 * TTL_SECONDS - 3.5)


def test_one_that_is_due_does_not_wait_for_a_late_answer_about_another(program: Program) -> None:
    (late,) = opened(program, 15.0, apart_seconds=0.0)
    program.unheard.update(timers(late))
    program.advance(6.05)
    (quick,) = opened(program, TTL_SECONDS, apart_seconds=4.05)
    assert program.kept == [timers(late), timers(quick)], "that is due in time, and the other is still asked about"
    assert quick.lease_left_seconds == pytest.approx(0.99 * TTL_SECONDS - 0.05)


def test_a_watcher_may_end_others(program: Program) -> None:
    first, second, third = opened(program, *[TTL_SECONDS] * 3)
    opened_anew: list[Any] = []

    def end_all(state: str) -> None:
        for session in (first, second, third):
            session.close()
        opened_anew.append(result_of(program.recipes.session(TTL_SECONDS)))

    first.watch(end_all)
    program.harness.state_of(Sessions).close(first.session_id)
    program.advance(20.0)
    assert [session.state for session in (first, second, third)] == ["lost", "closed", "closed"]
    assert [session.state for session in opened_anew] == ["held"]


def test_a_message_is_cancelled_when_none_waits_for_it(program: Program) -> None:
    first, second = opened(program, *[TTL_SECONDS] * 2)
    program.is_cut_off = True
    program.advance(4.5)
    result_of(first.close())
    assert program.clock.getDelayedCalls() != []
    result_of(second.close())
    assert program.clock.getDelayedCalls() == []


def test_a_session_that_its_program_has_twice_is_named_once(program: Program) -> None:
    (session,) = opened(program, TTL_SECONDS)
    again: Any = result_of(program.recipes.resume(session.session_id))
    program.kept.clear()
    program.advance(40.0)
    assert (session.state, again.state) == ("held", "held")
    assert program.kept == [timers(session)] * len(program.kept)


class Scene:
    """Three nodes, and programs with clients as they have them.

    :ivar sent: the keep-alives and other questions of the program that was started last.
    """

    def __init__(self) -> None:
        self.cluster = SimulatedCluster(*(3, 3, application_of(Sessions)), callers=0, askers=0, clients=0, readers=0)
        self.cluster.run(1.0)
        self.cluster.wait_until_converged()

    def start(self, name: str, seed: int) -> Recipes:
        """A program of its own."""
        reactor = SimulatedReactor(self.cluster.network, name)
        client = Client(reactor, self.cluster.configuration, rng=Random(seed), sending=self.cluster.checker.submitting)
        dispatcher: Any = client._dispatcher
        ask_node = dispatcher.ask_node
        self.sent: list[Any] = []
        sent = self.sent

        def ask(message: Callable[[int], Any], *arguments: Any, **named: Any) -> Deferred[Any]:
            sent.append(message(0))
            answer: Deferred[Any] = ask_node(message, *arguments, **named)
            return answer

        dispatcher.ask_node = ask
        return Recipes(client, reactor)

    def wait(self, opening: Iterable[Deferred[Session]]) -> list[Session]:
        """The sessions, when all are there."""
        sessions: list[Session] = []
        for one in opening:
            one.addCallback(lambda session: sessions.append(session))
        self.cluster.run(1.0)
        return sessions


def test_many_sessions_of_one_client_cost_one_message_and_one_slot_each_time() -> None:
    """They are named the first time, and never again."""
    scene = Scene()
    recipes = scene.start("program", 1)
    sessions = scene.wait([recipes.session(TTL_SECONDS) for _ in range(20)])
    assert len(sessions) == 20
    slots = len(scene.cluster.checker.chosen)
    scene.cluster.run(40.0)
    assert {session.state for session in sessions} == {"held"}
    kept = [message for message in scene.sent if isinstance(message, KeepTimers | KeepTogether)]
    assert [type(message) for message in kept] == [KeepTimers] + [KeepTogether] * (len(kept) - 1)
    assert 9 <= len(kept) <= 11
    assert len(scene.cluster.checker.chosen) - slots == len(kept)


def test_sessions_that_a_program_goes_on_with_are_not_suspended() -> None:
    """Its numbers are lower than those of its predecessor. So it has numbers of its own for each session."""
    scene = Scene()
    recipes = scene.start("first", 100)
    opened = scene.wait([recipes.session(2.0) for _ in range(30)])
    scene.cluster.run(1.0)  # They are kept alive once.
    for session in opened:
        session._stop_keeping()
    recipes = scene.start("second", 200)
    resumed = scene.wait([recipes.resume(session.session_id) for session in opened])
    states: list[str] = []
    for session in resumed:
        session.watch(states.append)
    scene.cluster.run(8.0)
    assert (len(resumed), states) == (30, [])
