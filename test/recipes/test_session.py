"""A session as its program has it: its loss is told before another can have what it held."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from test.recipes.program import STEP_SECONDS, Program, result_of
from txpaxos.recipes import LimitReached, Session, SessionOver
from txpaxos.recipes.replicated import sessions
from txpaxos.recipes.replicated.sessions import Sessions

TTL_SECONDS = 10.0


@pytest.fixture
def program() -> Program:
    return Program()


def opened(program: Program) -> tuple[Session, list[str]]:
    """A session, and its states as they come."""
    session: Session = result_of(program.recipes.session(TTL_SECONDS))
    states: list[str] = []
    session.watch(states.append)
    return session, states


def is_open(program: Program, session: Session) -> bool:
    return program.harness.state_of(Sessions).is_open(session.session_id)


def test_it_is_held_as_long_as_it_is_kept_alive(program: Program) -> None:
    session, states = opened(program)
    for _ in range(100):
        program.advance(1.0)
    assert (session.state, states, is_open(program, session)) == ("held", [], True)
    assert 0.5 * TTL_SECONDS < session.lease_left_seconds < TTL_SECONDS


def test_it_is_suspended_and_lost_before_it_ends_for_the_others(program: Program) -> None:
    session, states = opened(program)
    over = session.over()
    program.is_cut_off = True
    times: dict[str, float] = {}
    for step in range(240):
        times.setdefault(session.state, step * STEP_SECONDS)
        times.setdefault("open" if is_open(program, session) else "ended", step * STEP_SECONDS)
        program.advance(STEP_SECONDS)
    assert (states, result_of(over), session.lease_left_seconds) == (["suspended", "lost"], "lost", 0.0)
    assert times["suspended"] == pytest.approx(TTL_SECONDS * 2 / 3, abs=0.11)
    assert times["lost"] == pytest.approx(TTL_SECONDS * 0.99, abs=0.11)
    assert times["lost"] < times["ended"]
    assert program.clock.getDelayedCalls() == []


def test_its_time_counts_from_when_a_keep_alive_was_sent(program: Program) -> None:
    """The answer says that the node has heard it at some time between. It may have been at the first moment."""
    session, _ = opened(program)
    program.answer_seconds = 3.0
    program.advance(4.0 + 3.0)
    assert session.lease_left_seconds == pytest.approx(0.99 * TTL_SECONDS - 3.0)


def test_it_is_held_again_when_it_is_confirmed_in_time(program: Program) -> None:
    session, states = opened(program)
    program.is_cut_off = True
    program.advance(7.0)
    program.is_cut_off = False
    for _ in range(5):
        program.advance(1.0)
    assert (session.state, states, is_open(program, session)) == ("held", ["suspended", "held"], True)


def test_after_a_blocked_reactor_it_is_not_held_before_anything_else_runs(program: Program) -> None:
    """Code that runs first reads how it is by the clock. That is final, also if an old answer comes then."""
    session, states = opened(program)
    program.answer_seconds = 1.0
    program.advance(4.5)
    read: list[str] = []
    program.clock.callLater(0.0, lambda: read.append(session.state))
    for until in (7.0, 9.95):
        program.clock.rightNow = until
        read.append(session.state)
    program.clock.advance(0)
    assert (read, states, session.lease_left_seconds) == (["suspended", "lost", "lost"], ["lost"], 0.0)
    assert program.clock.getDelayedCalls() == []


def test_a_watcher_that_fails_does_not_keep_others_from_being_told(program: Program, expected_errors: None) -> None:
    session, states = opened(program)

    def wrong(state: str) -> None:
        raise ValueError("broken")

    session._watchers.insert(0, wrong)
    result_of(session.close())
    assert states == ["closed"]


def test_it_is_lost_at_once_when_the_nodes_say_so(program: Program) -> None:
    session, states = opened(program)
    program.harness.state_of(Sessions).close(session.session_id)
    program.advance(4.0)
    assert states == ["lost"]
    assert program.clock.getDelayedCalls() == []


def test_it_ends_when_it_is_closed(program: Program) -> None:
    session, states = opened(program)
    over = session.over()
    assert result_of(session.close()) is True
    assert (states, is_open(program, session), result_of(over)) == (["closed"], False, "closed")
    assert result_of(session.over()) == "closed"
    assert result_of(session.close()) is False
    assert program.clock.getDelayedCalls() == []


def test_a_block_closes_it(program: Program) -> None:
    async def work(error: Exception | None) -> Session:
        async with await program.recipes.session(TTL_SECONDS) as session:
            if error is not None:
                raise error
        return session

    assert not is_open(program, result_of(Deferred.fromCoroutine(work(None))))
    error = ValueError("broken")
    assert result_of(Deferred.fromCoroutine(work(error))) is error
    assert program.harness.state_of(Sessions).ttl_ms == {}


def test_a_coroutine_that_is_thrown_away_closes_it(program: Program) -> None:
    never: Deferred[None] = Deferred()

    async def work() -> None:
        async with await program.recipes.session(TTL_SECONDS):
            await never

    working = work()
    working.send(None)
    working.close()
    assert program.harness.state_of(Sessions).ttl_ms == {}


def test_another_process_goes_on_with_it(program: Program) -> None:
    session, _ = opened(program)
    program.advance(8.0)
    other = Program(program.harness)
    again: Any = result_of(other.recipes.resume(session.session_id))
    assert (again.session_id, again.state, again.ttl_seconds) == (session.session_id, "held", TTL_SECONDS)
    result_of(again.close())
    error = result_of(other.recipes.resume(session.session_id))
    assert isinstance(error, SessionOver)
    assert str(error) == f"the session {session.session_id} is over: open a new one"


def test_a_watcher_that_has_stopped_is_not_told(program: Program) -> None:
    session, states = opened(program)
    others: list[str] = []
    stop = session.watch(others.append)
    stop()
    stop()
    over = session.over()
    over.addErrback(lambda _: None)
    over.cancel()
    result_of(session.close())
    assert (states, others) == (["closed"], [])


def test_what_is_too_much_is_refused(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match=r"^Sessions.open"):
        program.recipes.session(0.5)
    with pytest.raises(ValueError, match=r"^ttl_seconds must be finite and above zero: 0$"):
        program.recipes.session(0)
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 0)
    assert isinstance(result_of(program.recipes.session()), LimitReached)
