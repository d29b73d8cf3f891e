"""A queue as a program has it: takes end in all ways they can, and leave nothing behind."""

from __future__ import annotations

import os
from random import Random
from typing import Any

import attrs
import pytest
from twisted.internet.defer import CancelledError, Deferred

from test.recipes.program import Program, result_of
from test.recipes.test_queues import assert_nothing_is_left
from txpaxos import encode_call
from txpaxos.recipes import (
    AlreadyContending,
    Depth,
    Queue,
    Session,
    SessionOver,
    Taken,
    TakeOver,
    WaitTimedOut,
    WrongValue,
)
from txpaxos.recipes.replicated.queues import Queues
from txpaxos.recipes.replicated.sessions import Sessions

CANCELLED = int(os.environ.get("TXPAXOS_CANCELLED_WAITS", "2000"))
"""How many waits are cancelled at random points; ``TXPAXOS_CANCELLED_WAITS=100000`` takes some minutes."""


ON_THE_WAY_MAX = 200
WAITING_MAX = 50


@attrs.frozen
class Job:
    name: str
    tries: int = 0


@pytest.fixture
def program() -> Program:
    return Program()


def jobs_of(program: Program) -> Queue[Job]:
    return program.recipes.queue("jobs", Job)


def session_of(program: Program) -> Session:
    session: Session = result_of(program.recipes.session(ttl_seconds=100.0))
    return session


def start(coroutine: Any) -> Deferred[Any]:
    return Deferred.fromCoroutine(coroutine)


def test_what_is_put_is_taken_and_acknowledged_at_the_end_of_the_block(program: Program) -> None:
    jobs, session = jobs_of(program), session_of(program)

    async def work() -> Taken[Job]:
        await jobs.put(Job("late"))
        await jobs.put(Job("soon"), priority=5)
        async with jobs.take(session) as job:
            assert await jobs.depth() == Depth(1, 1, 0)
        return job

    job = result_of(start(work()))
    assert (job.value, job.token, job.priority, job.deliveries) == (Job("soon"), 1, 5, 1)
    assert result_of(jobs.depth()) == Depth(1, 0, 0)


def test_an_error_in_the_block_gives_the_item_back(program: Program) -> None:
    jobs, session = jobs_of(program), session_of(program)
    jobs.put(Job("a"))

    async def work() -> None:
        async with jobs.take(session):
            raise ValueError("broken")

    assert isinstance(result_of(start(work())), ValueError)
    assert result_of(jobs.depth()) == Depth(1, 0, 0)


def test_a_block_that_is_cancelled_gives_the_item_back(program: Program) -> None:
    jobs, session = jobs_of(program), session_of(program)
    jobs.put(Job("a"))
    never: Deferred[None] = Deferred()

    async def work() -> None:
        async with jobs.take(session):
            await never

    working = start(work())
    working.cancel()
    assert isinstance(result_of(working), CancelledError)
    assert result_of(jobs.depth()) == Depth(1, 0, 0)


def test_a_coroutine_that_is_thrown_away_gives_the_item_back(program: Program) -> None:
    jobs, session = jobs_of(program), session_of(program)
    jobs.put(Job("a"))
    never: Deferred[None] = Deferred()

    async def work() -> None:
        async with jobs.take(session):
            await never

    working = work()
    working.send(None)
    working.close()
    assert result_of(jobs.depth()) == Depth(1, 0, 0)


def test_an_item_that_was_done_by_hand_is_not_done_again(program: Program) -> None:
    jobs, session = jobs_of(program), session_of(program)
    jobs.put(Job("a"))
    jobs.put(Job("b"))

    async def work() -> None:
        async with jobs.take(session) as job:
            await job.give_back()
        job = await jobs.take(session)
        assert job.value == Job("a")
        await job.extend(5.0)
        await job.acknowledge()

    assert result_of(start(work())) is None
    assert result_of(jobs.depth()) == Depth(1, 0, 0)


def test_who_waits_is_given_what_is_put(program: Program) -> None:
    jobs, session = jobs_of(program), session_of(program)
    waiting = [jobs.take(session).start() for _ in range(3)]
    assert [one.called for one in waiting] == [False] * 3
    jobs.put(Job("a"))
    assert [one.called for one in waiting] == [True, False, False]
    assert result_of(waiting[0]).value == Job("a")


def test_who_is_late_does_not_acknowledge_what_another_has(program: Program) -> None:
    jobs, session = jobs_of(program), session_of(program)
    jobs.put(Job("a"))
    late = result_of(jobs.take(session, visible_after_seconds=5.0).start())
    program.advance(5.0)
    again = result_of(jobs.take(session).start())
    assert (again.value, again.token, again.deliveries) == (Job("a"), 2, 2)
    assert isinstance(result_of(late.acknowledge()), TakeOver)
    assert isinstance(result_of(late.extend(5.0)), TakeOver)
    assert result_of(again.acknowledge()) is None
    assert isinstance(result_of(again.acknowledge()), TakeOver)


def test_a_wait_ends_with_its_time_and_is_withdrawn(program: Program) -> None:
    jobs, session = jobs_of(program), session_of(program)
    waiting = jobs.take(session, timeout_seconds=3.0).start()
    program.advance(3.0)
    error = result_of(waiting)
    assert isinstance(error, WaitTimedOut)
    assert str(error) == "an item of the queue jobs did not come within 3 s"
    assert_nothing_is_left(program.harness.state_of(Queues))


def test_a_wait_ends_with_its_session(program: Program) -> None:
    jobs, session = jobs_of(program), session_of(program)
    waiting = jobs.take(session).start()
    session.close()
    assert isinstance(result_of(waiting), SessionOver)
    assert isinstance(result_of(jobs.take(session).start()), SessionOver)


def test_a_wait_ends_with_its_session_also_if_others_have_closed_it(program: Program) -> None:
    jobs, session = jobs_of(program), session_of(program)
    waiting = jobs.take(session).start()
    program.harness.submit(encode_call(Sessions, Sessions.close, session.session_id))
    assert isinstance(result_of(waiting), TakeOver)
    assert isinstance(result_of(jobs.take(session).start()), SessionOver)


def test_a_wait_ends_when_its_session_is_lost_also_without_a_word_of_the_nodes(program: Program) -> None:
    jobs, session = jobs_of(program), session_of(program)
    waiting = jobs.take(session).start()
    program.is_slow = program.is_cut_off = True
    program.advance(99.5)
    assert session.state == "lost"
    assert isinstance(result_of(waiting), SessionOver)
    assert isinstance(result_of(jobs.take(session).start()), SessionOver)


def test_an_item_of_another_type_is_given_back(program: Program) -> None:
    session = session_of(program)
    program.recipes.queue("jobs", int).put(5)
    error = result_of(jobs_of(program).take(session).start())
    assert isinstance(error, WrongValue)
    assert result_of(jobs_of(program).depth()) == Depth(1, 0, 0)


def test_a_wrong_argument_raises_at_the_call(program: Program) -> None:
    jobs, session = jobs_of(program), session_of(program)
    wrong: Any = {"name": "a"}
    with pytest.raises(TypeError, match=r"^the queue jobs has values of Job, not"):
        jobs.put(wrong)
    with pytest.raises(TypeError, match=r"^Queues.put"):
        jobs.put(Job("a"), priority=1000)
    with pytest.raises(ValueError, match=r"^visible_after_seconds must be finite and above zero: 0$"):
        jobs.take(session, visible_after_seconds=0)
    with pytest.raises(ValueError, match=r"^timeout_seconds must be finite and above zero: -1$"):
        jobs.take(session, timeout_seconds=-1)
    assert program.harness.state_of(Queues).items == {}


def test_what_always_comes_back_ends_among_the_dead_letters(program: Program) -> None:
    jobs, session = jobs_of(program), session_of(program)
    jobs.limit_deliveries(1, "dead")
    jobs.put(Job("a"))
    result_of(jobs.take(session).start()).give_back()
    assert result_of(program.recipes.queue("dead", Job).depth()) == Depth(1, 0, 0)


@pytest.mark.parametrize("seed", range(2))
def test_waits_that_are_cancelled_at_random_points_leave_nothing_behind(program: Program, seed: int) -> None:
    """Requests, answers and withdrawals overtake each other; items come in the same moment. At the end all items are
    there that were not acknowledged, and nothing waits."""
    rng = Random(seed)
    jobs, session = jobs_of(program), session_of(program)
    program.is_slow = True
    waiting: list[Deferred[Taken[Job]]] = []
    put, ended, acknowledged = 0, 0, []

    def done(job: Taken[Job]) -> None:
        acknowledged.append(job.value.name)
        job.acknowledge()

    while ended < CANCELLED // 2:
        match rng.randrange(6):
            case 0 | 1 if len(program.on_the_way) < ON_THE_WAY_MAX and len(waiting) < WAITING_MAX:
                wait = jobs.take(session, timeout_seconds=rng.choice([None, 0.5])).start()
                wait.addCallbacks(done, lambda failure: failure.trap(CancelledError, WaitTimedOut))
                waiting.append(wait)
            case 2:
                if waiting:
                    wait = waiting.pop(rng.randrange(len(waiting)))
                    ended += not wait.called
                    wait.cancel()
            case 3:
                if rng.random() < 0.3:
                    put += 1
                    jobs.put(Job(str(put)))
            case 4:
                program.clock.advance(rng.choice([0, 0, 0.1]))
            case _:
                for _ in range(rng.randrange(40)):
                    program.go_on(rng)
    for wait in waiting:
        wait.cancel()
    while program.on_the_way:
        program.go_on(rng)
    assert result_of_all(program, jobs) == Depth(put - len(acknowledged), 0, 0)
    assert len(acknowledged) == len({*acknowledged})
    state = program.harness.state_of(Queues)
    assert (state.requests, state.takes, state.line_rows, state.due_rows, state.session_rows) == ({}, {}, {}, {}, {})


def result_of_all(program: Program, jobs: Queue[Job]) -> Any:
    program.is_slow = False
    return result_of(jobs.depth())


def test_one_take_in_two_blocks_is_refused(program: Program) -> None:
    """The end of one block acknowledged the item of the other: it was lost although its work had failed."""
    jobs, session = jobs_of(program), session_of(program)
    jobs.put(Job("a"))
    jobs.put(Job("b"))
    take = jobs.take(session)
    ready: Deferred[None] = Deferred()

    async def work(wait: Deferred[None] | None) -> str:
        async with take as job:
            if wait is not None:
                await wait
            return job.value.name

    first, second = start(work(ready)), start(work(None))
    error = result_of(second)
    assert isinstance(error, AlreadyContending)
    assert str(error) == "this take of the queue jobs is in a block already: make another one"
    ready.callback(None)
    assert (result_of(first), result_of(start(work(None)))) == ("a", "b")
    assert result_of(jobs.depth()) == Depth(0, 0, 0)


def test_a_take_is_entered_again_after_it_has_come_to_nothing(program: Program) -> None:
    jobs, session = jobs_of(program), session_of(program)
    take = jobs.take(session, timeout_seconds=1.0)

    async def work() -> str:
        async with take as job:
            return job.value.name

    late = start(work())
    program.advance(1.0)
    assert isinstance(result_of(late), WaitTimedOut)
    jobs.put(Job("a"))
    assert result_of(start(work())) == "a"
