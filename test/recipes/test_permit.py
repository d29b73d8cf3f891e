"""Locks, semaphores and elections as a program has them: waits end in all ways they can, and leave nothing behind."""

from __future__ import annotations

import os
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from test.recipes.program import Program, result_of
from test.recipes.test_permits import assert_nothing_is_left
from txpaxos.errors import NotChosen, OutcomeUnknown
from txpaxos.recipes import (
    COORDINATION,
    AlreadyContending,
    CapacityMismatch,
    Contender,
    Fence,
    Fenced,
    Hold,
    Session,
    SessionOver,
    WaitTimedOut,
)
from txpaxos.recipes.replicated.permits import Permits
from txpaxos.testing.services_harness import ServicesHarness

CANCELLED = int(os.environ.get("TXPAXOS_CANCELLED_WAITS", "1000"))
"""How many waits are cancelled at random points; ``TXPAXOS_CANCELLED_WAITS=100000`` takes some minutes."""

TTL_SECONDS = 10.0


@pytest.fixture
def program() -> Program:
    return Program()


def session_of(program: Program) -> Session:
    session: Session = result_of(program.recipes.session(TTL_SECONDS))
    return session


def permits_of(program: Program) -> Permits:
    return program.harness.state_of(Permits)


def start(coroutine: Any) -> Deferred[Any]:
    return Deferred.fromCoroutine(coroutine)


def test_a_block_holds_the_lock(program: Program) -> None:
    session = session_of(program)

    async def work() -> Hold:
        lock = session.lock("a", value="me")
        async with lock as hold:
            assert (hold.still_held(), lock.is_acquired, hold.token) == (True, True, 1)
            assert await lock.contenders() == (Contender(1, 1, session.session_id, "me"),)
        assert not lock.is_acquired
        return hold

    hold = result_of(start(work()))
    assert (hold.name, hold.still_held(), result_of(hold.over())) == ("a", False, "released")
    assert_nothing_is_left(permits_of(program))


@pytest.mark.parametrize("how", ["error", "cancelled", "thrown away"])
def test_a_block_that_does_not_come_to_its_end_releases_the_lock(program: Program, how: str) -> None:
    session = session_of(program)
    never: Deferred[None] = Deferred()

    async def work() -> None:
        async with session.lock("a"):
            if how == "error":
                raise ValueError("broken")
            await never

    if how == "thrown away":
        working = work()
        working.send(None)
        working.close()
    else:
        begun = start(work())
        begun.cancel()
        assert isinstance(result_of(begun), ValueError if how == "error" else CancelledError)
    assert_nothing_is_left(permits_of(program))


def test_the_next_one_holds_it_when_it_is_released(program: Program) -> None:
    other = Program(program.harness)
    first, second = session_of(program).lock("a"), session_of(other).lock("a")
    hold, waiting = result_of(first.acquire()), second.acquire()
    assert not waiting.called
    assert result_of(hold.release()) is None
    again = waiting.result
    assert isinstance(again, Hold)
    assert (again.token, second.is_acquired, first.is_acquired) == (2, True, False)


def test_a_release_whose_caller_gives_up_is_made_all_the_same(program: Program) -> None:
    """As ``asyncio.timeout`` does around a block, while the cluster has no leader."""
    lock = session_of(program).lock("a")
    hold = result_of(lock.acquire())
    program.drops = True
    hold.release().addErrback(lambda failure: failure.trap(CancelledError)).cancel()
    assert permits_of(program).holders
    program.drops = False
    program.advance(5.0)
    assert_nothing_is_left(permits_of(program))


def test_one_that_waits_needs_no_quorum_to_know_how_it_stands(program: Program) -> None:
    first, second = (session_of(program).lock("a") for _ in range(2))
    hold = result_of(first.acquire())
    waiting = second.acquire()
    assert program.reads == ["local"]
    result_of(hold.release())
    assert result_of(waiting).token == 2
    assert program.reads == ["local"]


def test_a_node_that_lags_does_not_end_a_wait(program: Program) -> None:
    first, second = (session_of(program).lock("a") for _ in range(2))
    hold = result_of(first.acquire())
    program.lagging.append(ServicesHarness(*COORDINATION))  # It knows nothing of the request.
    waiting = second.acquire()
    assert not waiting.called
    assert program.reads == ["local", "linearizable", "local"]
    result_of(hold.release())
    assert result_of(waiting).token == 2


def test_zookeeper_1011_of_a_thousand_waiters_one_is_told_of_one_release(program: Program) -> None:
    """A herd: all waiters are woken by each release, and all but one wait again."""
    session = session_of(program)
    hold = result_of(session.lock("a").acquire())
    waiting = [session.lock("a").acquire() for _ in range(1000)]
    answers = program.answers
    hold.release()
    assert [one.called for one in waiting] == [True] + 999 * [False]
    assert program.answers - answers == 2, "that of the release, and that of the grant"


# what users of other systems have met


def test_kazoo_a_lock_of_a_lost_session_is_not_acquired(program: Program) -> None:
    """Kazoo's lock: ``is_acquired`` stays true when the session is lost."""
    session = session_of(program)
    lock = session.lock("a")
    hold = result_of(lock.acquire())
    over = hold.over()
    times: dict[Any, int] = {}
    program.is_cut_off = True
    for step in range(240):
        times.setdefault((session.state, hold.still_held(), lock.is_acquired, over.called), step)
        program.advance(0.05)
    assert [*times] == [
        ("held", True, True, False),
        ("suspended", True, True, False),
        ("lost", False, False, True),
    ]
    assert (result_of(over), result_of(hold.over())) == ("lost", "lost")
    assert isinstance(result_of(lock.release()), Fenced)


def test_kazoo_a_program_that_was_stopped_does_not_think_that_it_holds(program: Program) -> None:
    """It says so when it is asked, although no timer has fired since."""
    session = session_of(program)
    hold = result_of(session.lock("a").acquire())
    program.clock.rightNow += 3 * TTL_SECONDS
    assert (session.state, hold.still_held()) == ("lost", False)
    assert isinstance(result_of(hold.release()), Fenced)


def test_kazoo_732_a_try_whose_answer_is_lost_leaves_nothing_behind(program: Program) -> None:
    """Kazoo: a try that does not wait leaves an orphan behind when it is made while the connection is lost."""
    session = session_of(program)
    program.is_slow = True
    trying = session.lock("a").try_acquire()
    program.on_the_way.pop()()
    assert [*permits_of(program).permits] == ["a"]
    trying.cancel()
    assert isinstance(result_of(trying), CancelledError)
    while program.on_the_way:
        program.go_on(Random(0))
    assert_nothing_is_left(permits_of(program))


def test_kazoo_732_a_try_that_outlives_its_session_leaves_nothing_behind(program: Program) -> None:
    session = session_of(program)
    program.is_slow = program.is_cut_off = True
    trying = session.lock("a").try_acquire()
    program.advance(TTL_SECONDS)
    error = result_of(trying)
    assert isinstance(error, SessionOver)
    assert str(error) == f"the session {session.session_id} was over before a was granted"
    while program.on_the_way:
        program.go_on(Random(0))
    assert_nothing_is_left(permits_of(program))


def test_kazoo_291_a_lock_that_is_held_is_not_taken_once_more(program: Program) -> None:
    """Kazoo's documentation said that its lock is re-entrant. This one is not, and says so before it waits for ever."""
    session = session_of(program)
    lock = session.lock("a")
    lock.acquire()
    with pytest.raises(AlreadyContending, match=r"^this object holds a, or waits for it, already: make another one$"):
        lock.acquire()
    another = session.lock("a")
    waiting = another.acquire()
    with pytest.raises(AlreadyContending):
        another.try_acquire()
    assert not waiting.called
    lock.release()
    assert another.is_acquired


def test_etcd_10811_two_think_that_they_hold_and_the_fence_lets_one_through(program: Program) -> None:
    """Etcd: a lock has two holders when one is stopped for longer than its lease. The token tells them apart."""
    other = Program(program.harness)
    stopped = result_of(session_of(program).lock("a").acquire())
    waiting = session_of(other).lock("a").acquire()
    for _ in range(30):
        other.advance(0.5)
    holding = waiting.result
    assert isinstance(holding, Hold)
    assert (stopped.still_held(), holding.still_held()) == (True, True)
    fence = Fence()
    fence.check(stopped.token)
    fence.check(holding.token)
    with pytest.raises(Fenced, match=r"^the token 1 is too old: 2 was here$"):
        fence.check(stopped.token)
    assert fence.last == 2


def test_etcd_19597_a_waiter_whose_session_is_over_is_told(program: Program) -> None:
    session_of(program).lock("a").acquire()
    other = Program(program.harness)
    session = session_of(other)
    waiting = session.lock("a").acquire()
    other.is_cut_off = True
    other.advance(0.98 * TTL_SECONDS)
    assert not waiting.called
    other.advance(0.02 * TTL_SECONDS)
    error = result_of(waiting)
    assert isinstance(error, SessionOver)
    assert str(error) == f"the session {session.session_id} was over before a was granted"
    assert_nothing_is_left(permits_of(program))


def test_etcd_19597_a_waiter_whose_session_is_closed_by_another_is_told(program: Program) -> None:
    session_of(program).lock("a").acquire()
    other = Program(program.harness)
    session = session_of(other)
    waiting = session.lock("a").acquire()
    again = result_of(Program(program.harness).recipes.resume(session.session_id))
    again.close()
    error = result_of(waiting)
    assert isinstance(error, SessionOver)
    assert str(error) == "the request was over before it was granted: its session is over"


def test_charts_327_no_leader_without_a_session(program: Program) -> None:
    """Etcd's Campaign has returned success without a lease: the grant came when its session was over."""
    session = session_of(program)
    program.is_slow = True
    campaigning = session.election("a").acquire()
    program.on_the_way.pop()()
    program.clock.rightNow += TTL_SECONDS  # This program was stopped, and no timer has fired.
    while program.on_the_way:
        program.go_on(Random(0))
    error = result_of(campaigning)
    assert isinstance(error, SessionOver)
    assert str(error) == "a was granted, but the session is over"
    assert_nothing_is_left(permits_of(program))


def test_etcd_22384_a_session_goes_on_after_a_restart_with_what_it_holds(program: Program) -> None:
    session = session_of(program)
    session.lock("a").acquire()
    waiting = session_of(Program(program.harness)).lock("a").acquire()
    again = result_of(Program(program.harness).recipes.resume(session.session_id))
    holder: Contender = result_of(again.lock("a").contenders())[0]
    assert (holder.token, holder.session_id) == (1, session.session_id)
    assert not waiting.called


def test_consul_a_connection_that_is_lost_for_a_moment_releases_nothing(program: Program) -> None:
    """Consul: a node that others think dead for a moment loses the locks of all its sessions."""
    session = session_of(program)
    hold = result_of(session.lock("a").acquire())
    over = hold.over()
    for _ in range(20):
        program.is_cut_off = True
        program.advance(2.0)
        program.is_cut_off = False
        program.advance(5.0)
    assert (hold.still_held(), over.called, session.state) == (True, False, "held")
    assert permits_of(program).holders == {1: next(iter(permits_of(program).requests))}


def test_a_hold_does_not_go_over_to_a_new_session(program: Program) -> None:
    session = session_of(program)
    hold = result_of(session.lock("a").acquire())
    session.close()
    session_of(program)
    assert (hold.still_held(), result_of(hold.over())) == (False, "closed")
    assert_nothing_is_left(permits_of(program))


# what waits do


def test_a_wait_that_has_no_more_time_is_withdrawn(program: Program) -> None:
    session = session_of(program)
    session.lock("a").acquire()
    lock = session.lock("a", timeout_seconds=60.0)
    waiting = lock.acquire(timeout_seconds=3.0)
    program.advance(3.0)
    error = result_of(waiting)
    assert isinstance(error, WaitTimedOut)
    assert str(error) == "the permit a did not come within 3 s"
    assert len(permits_of(program).requests) == 1
    with pytest.raises(ValueError, match=r"^timeout_seconds must be finite and above zero: 0$"):
        session.lock("a", timeout_seconds=0)


def test_waits_that_are_cancelled_at_random_points_leave_nothing_behind(program: Program) -> None:
    """Requests and answers are late, and come in any order. Some of the waits have been granted meanwhile."""
    rng = Random(5)
    session = session_of(program)
    program.is_slow = True
    waiting: list[Deferred[Any]] = []
    ends = {"cancelled": 0, "held": 0}

    def ended(result: Any) -> None:
        if isinstance(result, Hold):
            ends["held"] += 1
            result.release().addErrback(lambda _: None)
        elif result is not None:
            ends["cancelled"] += 1
            assert result.check(CancelledError), result

    for _ in range(CANCELLED):
        make = rng.choice([session.lock, session.read_lock, session.write_lock])
        lock = make(rng.choice("ab") + make.__name__[0])
        begun: Deferred[Any] = lock.acquire() if rng.random() < 0.8 else lock.try_acquire()
        waiting.append(begun.addBoth(ended))
        for _ in range(rng.randrange(10)):
            program.go_on(rng)
        if len(waiting) > 5:
            waiting.pop(rng.randrange(len(waiting))).cancel()
    for one in waiting:
        one.cancel()
    while program.on_the_way:
        program.go_on(rng)
    assert_nothing_is_left(permits_of(program))
    assert min(ends.values()) > CANCELLED / 10, ends


def test_readers_hold_together_and_a_writer_alone(program: Program) -> None:
    session = session_of(program)
    readers = [session.read_lock("a") for _ in range(3)]
    for reader in readers[:2]:
        reader.acquire()
    writer = session.write_lock("a")
    writing, reading = writer.acquire(), readers[2].acquire()
    steps = []
    for lock in (*readers[:2], writer):
        steps.append((sum(one.is_acquired for one in readers), writer.is_acquired))
        lock.release()
    assert steps == [(2, False), (1, False), (0, True)]
    assert (writing.called, reading.called, readers[2].is_acquired) == (True, True, True)


def test_a_semaphore_is_held_by_as_many_as_it_says(program: Program) -> None:
    session = session_of(program)
    semaphores = [session.semaphore("a", 2) for _ in range(3)]
    waiting = [semaphore.acquire() for semaphore in semaphores]
    assert [one.called for one in waiting] == [True, True, False]
    assert isinstance(result_of(session.semaphore("a", 3).acquire()), CapacityMismatch)
    semaphores[0].release()
    assert waiting[2].called


def test_all_see_who_leads(program: Program) -> None:
    sessions = [session_of(Program(program.harness)) for _ in range(2)]
    elections = [session.election("a", f"node {number}") for number, session in enumerate(sessions)]
    leaders: list[str] = []
    watched = elections[1].leaders()

    async def follow() -> None:
        async for leader in watched:
            name = "none" if leader is None else leader.value
            leaders.append(name)

    following = start(follow())
    elections[0].acquire()
    elections[1].acquire()
    assert result_of(elections[1].leader()).value == "node 0"
    sessions[0].close()
    elections[1].release()
    watched.close()
    assert (leaders, following.called) == (["none", "node 0", "node 1", "none"], True)


def test_what_holds_nothing_releases_nothing(program: Program) -> None:
    session = session_of(program)
    error = result_of(session.lock("a").release())
    assert isinstance(error, Fenced)
    assert str(error) == "this object does not hold a"
    session.close()
    assert isinstance(result_of(session.lock("a").acquire()), SessionOver)


def test_a_block_that_was_not_protected_to_its_end_says_so(program: Program) -> None:
    session = session_of(program)
    ready: Deferred[None] = Deferred()

    async def work() -> None:
        async with session.lock("a"):
            await ready

    working = start(work())
    session.close()
    ready.callback(None)
    assert isinstance(result_of(working), Fenced)


def test_a_fence_takes_tokens_and_nothing_else() -> None:
    fence = Fence(last=4)
    fence.check(4)
    wrong: Any = "5"
    for one in (wrong, True):
        with pytest.raises(TypeError, match=r"^a token is an int, not (str|bool)$"):
            fence.check(one)


@pytest.mark.parametrize("error", [NotChosen("no node took it in time"), OutcomeUnknown("no answer came in time")])
def test_a_release_that_the_nodes_may_not_have_goes_on_behind(program: Program, error: Exception) -> None:
    """Otherwise the next one would wait until the session of this one is over."""
    hold = result_of(session_of(program).lock("a").acquire())
    waiting = session_of(program).lock("a").acquire()
    program.failures = [error, error]  # Once for the caller, and once behind.
    assert result_of(hold.release()) is error
    assert not hold.still_held()
    program.advance(0.5)
    assert not waiting.called
    program.advance(1.0)
    assert result_of(waiting).token == 2


def test_a_release_goes_on_no_more_when_the_client_is_closed(program: Program) -> None:
    hold = result_of(session_of(program).lock("a").acquire())
    program.failures = [NotChosen("this client is closed")] * 5
    program.is_closed = True
    assert isinstance(result_of(hold.release()), NotChosen)
    program.advance(5.0)
    assert len(program.failures) == 3


def test_a_wait_that_the_nodes_could_not_be_told_of_leaves_nothing_behind(program: Program) -> None:
    session = session_of(program)
    hold = result_of(session.lock("a").acquire())
    waiting = session_of(program).lock("a").acquire()
    program.failures = [NotChosen("no node took it in time"), OutcomeUnknown("no answer came in time")]
    waiting.cancel()
    assert isinstance(result_of(waiting), CancelledError)
    program.advance(3.0)
    result_of(hold.release())
    assert_nothing_is_left(permits_of(program))


# one object in the hands of two


@pytest.mark.parametrize("by", ["block", "acquire"])
def test_a_block_ends_its_own_hold_and_not_that_of_another_task(program: Program, by: str) -> None:
    """The first task has released early. Its block must not release what the second has acquired since."""
    session = session_of(program)
    lock = session.lock("a")
    ready: list[Deferred[None]] = [Deferred(), Deferred()]

    async def first() -> None:
        async with lock as hold:
            await hold.release()
            await ready[0]

    async def second() -> Hold:
        if by == "acquire":
            return await lock.acquire()
        async with lock as hold:
            await ready[1]
        return hold

    beginning, other = start(first()), start(second())
    ready[0].callback(None)
    assert result_of(beginning) is None
    if by == "block":
        error = result_of(other)
        assert isinstance(error, AlreadyContending)
        assert str(error) == "this object is in a block with a already: make another one"
    else:
        assert (result_of(other).still_held(), lock.is_acquired) == (True, True)
        assert len(permits_of(program).holders) == 1
        assert result_of(lock.release()) is None
    assert_nothing_is_left(permits_of(program))


def test_a_block_can_be_entered_again_after_one_that_was_not_entered(program: Program) -> None:
    session = session_of(program)
    hold = result_of(session.lock("a").acquire())
    lock = session.lock("a", timeout_seconds=1.0)

    async def work() -> str:
        async with lock:
            return "done"

    late = start(work())
    program.advance(1.0)
    assert isinstance(result_of(late), WaitTimedOut)
    hold.release()
    assert [result_of(start(work())) for _ in range(2)] == ["done", "done"]
    assert_nothing_is_left(permits_of(program))
