"""Parties, barriers and double barriers as a program has them."""

from __future__ import annotations

import os
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from test.recipes.program import Program, result_of
from test.recipes.test_gatherings import assert_nothing_is_left
from txpaxos.recipes import AlreadyContending, CapacityMismatch, Member, Party, Session, SessionOver, WaitTimedOut
from txpaxos.recipes.replicated.gatherings import Gatherings

CANCELLED = int(os.environ.get("TXPAXOS_CANCELLED_WAITS", "1000"))
"""How many waits are cancelled at random points."""


@pytest.fixture
def program() -> Program:
    return Program()


def session_of(program: Program) -> Session:
    session: Session = result_of(program.recipes.session(10.0))
    return session


def gatherings_of(program: Program) -> Gatherings:
    return program.harness.state_of(Gatherings)


def start(coroutine: Any) -> Deferred[Any]:
    return Deferred.fromCoroutine(coroutine)


def test_a_party_is_followed_by_others(program: Program) -> None:
    first, second = session_of(program), session_of(program)
    seen: list[list[str]] = []
    changes = first.party("a").changes()

    async def follow() -> None:
        async for members in changes:
            values = [member.value for member in members]
            seen.append(values)

    following = start(follow())

    async def work() -> None:
        async with second.party("a", "two") as party:
            assert await party.members() == (Member(second.session_id, "two"),)

    assert result_of(start(work())) is None
    second.party("a", "again").join()
    second.close()
    changes.close()
    assert (seen, following.called) == ([[], ["two"], [], ["again"], []], True)
    assert_nothing_is_left(gatherings_of(program))


@pytest.mark.parametrize("how", ["error", "thrown away"])
def test_an_error_in_the_block_leaves_a_party_and_a_double_barrier(program: Program, how: str) -> None:
    session = session_of(program)
    never: Deferred[None] = Deferred()

    async def work() -> None:
        async with session.party("a"), session.double_barrier("b", 1) as number:
            assert number > 0
            if how == "error":
                raise ValueError("broken")
            await never

    working = work()
    if how == "error":
        assert isinstance(result_of(start(working)), ValueError)
    else:
        working.send(None)
        working.close()
    assert_nothing_is_left(gatherings_of(program))


def test_all_wait_for_a_barrier_until_it_is_open(program: Program) -> None:
    first, second = session_of(program), session_of(program)
    assert result_of(first.barrier("a").wait()) is None
    assert result_of(first.barrier("a").create()) is True
    waiting = second.barrier("a").wait(timeout_seconds=60.0)
    assert isinstance(second.barrier("a").wait(), Deferred)
    late = second.barrier("a").wait(timeout_seconds=2.0)
    program.advance(2.0)
    error = result_of(late)
    assert isinstance(error, WaitTimedOut)
    assert str(error) == "the opening of a did not come within 2 s"
    assert not waiting.called
    first.close()
    assert waiting.called
    result_of(second.barrier("b").create(outlives_session=True))
    second.close()
    assert result_of(second.barrier("b").remove()) is True


def test_those_at_a_double_barrier_begin_and_end_together(program: Program) -> None:
    steps: list[str] = []
    ready: list[Deferred[None]] = [Deferred(), Deferred()]

    async def work(number: int) -> None:
        async with session_of(program).double_barrier("a", 2):
            steps.append(f"{number} begins")
            await ready[number]
            steps.append(f"{number} is ready")
        steps.append(f"{number} ends")

    both = [start(work(0)), start(work(1))]
    assert sorted(steps) == ["0 begins", "1 begins"]
    ready[1].callback(None)
    assert steps[2:] == ["1 is ready"]
    ready[0].callback(None)
    assert (steps[3], sorted(steps[4:])) == ("0 is ready", ["0 ends", "1 ends"])
    assert all(one.called for one in both)
    assert_nothing_is_left(gatherings_of(program))


def test_a_wait_at_a_double_barrier_ends_with_its_time_or_its_session(program: Program) -> None:
    session = session_of(program)
    late = session.double_barrier("a", 2, timeout_seconds=2.0).enter()
    program.advance(2.0)
    error = result_of(late)
    assert isinstance(error, WaitTimedOut)
    assert str(error) == "the round of a did not come within 2 s"
    assert_nothing_is_left(gatherings_of(program))
    waiting = session.double_barrier("a", 2).enter()
    again: Session = result_of(Program(program.harness).recipes.resume(session.session_id))
    again.close()
    error = result_of(waiting)
    assert isinstance(error, SessionOver)
    assert str(error) == "the round did not begin before the session was over"
    session.close()
    assert isinstance(result_of(session.double_barrier("a", 2).enter()), SessionOver)
    cut_off = Program(program.harness)
    waiting = session_of(cut_off).double_barrier("a", 2).enter()
    cut_off.is_cut_off = True
    cut_off.advance(10.0)
    assert isinstance(result_of(waiting), SessionOver)
    assert_nothing_is_left(gatherings_of(program))


def test_one_that_leaves_waits_for_the_others_as_long_as_it_may(program: Program) -> None:
    first, second = (session_of(program).double_barrier("a", 2, timeout_seconds=2.0) for _ in range(2))
    both = first.enter(), second.enter()
    assert [one.called for one in both] == [True, True]
    leaving = first.leave()
    program.advance(2.0)
    error = result_of(leaving)
    assert isinstance(error, WaitTimedOut)
    assert str(error) == "the end of the round of a did not come within 2 s"
    assert result_of(second.leave()) is None
    assert_nothing_is_left(gatherings_of(program))
    first.enter()
    with pytest.raises(AlreadyContending, match=r"^this object takes part in a already: make another one$"):
        first.enter()
    assert isinstance(result_of(session_of(program).double_barrier("a", 3).enter()), CapacityMismatch)


def test_waits_that_are_cancelled_at_random_points_leave_nothing_behind(program: Program) -> None:
    rng = Random(3)
    sessions = [session_of(program) for _ in range(6)]
    barriers = {session: session.double_barrier("a", 2) for session in sessions}
    program.is_slow = True
    waiting: dict[Session, Deferred[Any]] = {}
    ends = {"cancelled": 0, "done": 0}

    def ended(result: Any, session: Session) -> None:
        waiting.pop(session, None)
        if isinstance(result, int | None):
            ends["done"] += 1
        else:
            ends["cancelled"] += 1
            assert result.check(CancelledError), result

    for _ in range(CANCELLED):
        session = rng.choice(sessions)
        if session in waiting:
            if rng.random() < 0.3:
                waiting[session].cancel()
        else:
            barrier = barriers[session]
            begun: Deferred[Any] = barrier.enter() if barrier._request is None else barrier.leave()
            waiting[session] = begun
            begun.addBoth(ended, session)
        for _ in range(rng.randrange(6)):
            program.go_on(rng)
    for one in list(waiting.values()):
        one.cancel()
    for barrier in barriers.values():
        barrier.leave().addErrback(lambda _: None)
    while program.on_the_way:
        program.go_on(rng)
    assert_nothing_is_left(gatherings_of(program))
    assert min(ends.values()) > CANCELLED / 20, ends


def test_who_gives_up_to_leave_has_left_all_the_same(program: Program) -> None:
    session = session_of(program)
    party, barrier = session.party("party"), session.barrier("gate")
    double = session.double_barrier("race", 1)
    result_of(party.join())
    result_of(barrier.create())
    result_of(start(double.__aenter__()))
    program.drops = True
    broken = Deferred.fromCoroutine(double.__aexit__(ValueError, ValueError(), None))
    for one in (party.leave(), barrier.remove(), broken):
        one.addErrback(lambda failure: failure.trap(CancelledError)).cancel()
    program.drops = False
    program.advance(5.0)
    state = program.harness.state_of(Gatherings)
    assert (state.members, state.barriers, state.places) == ({}, {}, {})


@pytest.mark.parametrize("objects", [1, 2])
def test_a_party_in_two_blocks_of_a_session_is_refused(program: Program, objects: int) -> None:
    """The end of the first block left the party, and the second was still in its own."""
    session = session_of(program)
    parties = [session.party("a", "v") for _ in range(objects)]
    ready: Deferred[None] = Deferred()

    async def work(party: Party) -> tuple[Member, ...]:
        async with party:
            await ready
            return await party.members()

    first, second = start(work(parties[0])), start(work(parties[-1]))
    error = result_of(second)
    assert isinstance(error, AlreadyContending)
    assert str(error) == "this session is in a block of the party a already"
    ready.callback(None)
    assert result_of(first) == (Member(session.session_id, "v"),)
    assert result_of(start(work(parties[-1]))) == (Member(session.session_id, "v"),)
    session.close()
    assert isinstance(result_of(start(work(parties[0]))), SessionOver)
    assert isinstance(result_of(start(work(parties[0]))), SessionOver), "and not that it is in a block"


def test_a_block_leaves_its_own_round_of_a_double_barrier(program: Program) -> None:
    """The first task has left early. Its block must not leave the round that the second has entered since."""
    session = session_of(program)
    barrier = session.double_barrier("a", 1)
    ready: Deferred[None] = Deferred()

    async def first() -> None:
        async with barrier:
            await barrier.leave()
            await ready

    async def second() -> None:
        async with barrier:
            pass

    beginning = start(first())
    assert isinstance(result_of(start(second())), AlreadyContending)
    assert result_of(barrier.enter()) > 0
    ready.callback(None)
    assert (result_of(beginning), barrier._request is None) == (None, False)
    assert result_of(barrier.leave()) is None
    assert [result_of(start(second())) for _ in range(2)] == [None, None]
    assert_nothing_is_left(gatherings_of(program))
