"""A wrong argument raises where an object is made or called, in one line, and leaves the object as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from test.recipes.program import Program, result_of
from txpaxos.recipes import Delete, Map, Put, Recipes, Session
from txpaxos.recipes.replicated.bounds import RequestMismatch
from txpaxos.recipes.replicated.gatherings import Gatherings
from txpaxos.recipes.replicated.permits import Permits
from txpaxos.recipes.replicated.queues import Queues

A_NAME = "must be a str of 1 to 256 characters, not "
A_TEXT = "value must be a str of 0 to 4096 characters, not "


@pytest.fixture
def program() -> Program:
    return Program()


def session_of(program: Program) -> Session:
    session: Session = result_of(program.recipes.session(10.0))
    return session


def refused(call: Callable[[], Any], kind: type[Exception] = TypeError) -> str:
    """The line in which a call is refused."""
    with pytest.raises(kind) as raised:
        call()
    line = str(raised.value)
    assert "\n" not in line
    return line


MAKERS: dict[str, Callable[[Recipes, Session, Any], Any]] = {
    "lock": lambda _, session, name: session.lock(name),
    "read lock": lambda _, session, name: session.read_lock(name),
    "semaphore": lambda _, session, name: session.semaphore(name, 3),
    "election": lambda _, session, name: session.election(name),
    "party": lambda _, session, name: session.party(name),
    "barrier": lambda _, session, name: session.barrier(name),
    "double barrier": lambda _, session, name: session.double_barrier(name, 2),
    "queue": lambda recipes, _, name: recipes.queue(name, str),
    "map": lambda recipes, _, name: recipes.map(name, str),
    "set": lambda recipes, _, name: recipes.set(name, str),
    "counter": lambda recipes, _, name: recipes.counter(name),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_a_wrong_name_raises_where_the_object_is_made(program: Program, maker: str) -> None:
    session = session_of(program)
    make = MAKERS[maker]
    assert refused(lambda: make(program.recipes, session, 5)) == f"name {A_NAME}5"
    assert refused(lambda: make(program.recipes, session, "")) == f"name {A_NAME}''"
    assert refused(lambda: make(program.recipes, session, 257 * "a")).startswith(f"name {A_NAME}'aaa")
    assert refused(lambda: make(program.recipes, session, "\ud800")) == "name must have UTF-8: '\\ud800' has none"
    make(program.recipes, session, 256 * "a")


def test_a_wrong_number_or_text_raises_where_the_object_is_made(program: Program) -> None:
    session, wrong = session_of(program), "5"
    assert refused(lambda: session.lock("a", value=5)) == f"{A_TEXT}5"  # type: ignore[arg-type]
    assert refused(lambda: session.election("a", None)) == f"{A_TEXT}None"  # type: ignore[arg-type]
    assert refused(lambda: session.party("a", 4097 * "x")).startswith(A_TEXT)
    for capacity in (0, 2**31, True, 1.0, wrong):
        line = refused(lambda: session.semaphore("a", capacity))  # type: ignore[arg-type]  # noqa: B023
        assert line == f"capacity must be an int from 1 to 2147483647, not {capacity!r}"
    assert refused(lambda: session.double_barrier("a", 0)) == "count must be an int from 1 to 1000, not 0"
    assert refused(lambda: session.double_barrier("a", 1001)) == "count must be an int from 1 to 1000, not 1001"


def test_an_object_is_free_after_a_call_that_has_raised(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """It said from then on that it held the permit, or took part."""
    session = session_of(program)
    lock, barrier = session.lock("a"), session.double_barrier("b", 1)

    def refuse(*args: Any) -> Deferred[Any]:
        raise TypeError("wrong")

    with monkeypatch.context() as patched:
        patched.setattr(lock, "_permits", type("Permits", (), {"acquire": staticmethod(refuse)}))
        patched.setattr(barrier, "_gatherings", type("Gatherings", (), {"enter": staticmethod(refuse)}))
        assert (refused(lock.acquire), refused(lock.try_acquire), refused(barrier.enter)) == ("wrong",) * 3
    assert (result_of(lock.acquire()).token, result_of(barrier.enter()) > 0) == (1, True)


def test_a_wrong_session_raises_at_the_call(program: Program) -> None:
    queue, entries = program.recipes.queue("q", str), program.recipes.map("m", str)
    wrong: Any
    for wrong in ("5", 5, program.recipes):
        expected = f"session must be a Session, not {type(wrong).__name__}"
        assert refused(lambda: queue.take(wrong)) == expected  # noqa: B023
        assert refused(lambda: entries.put("a", "b", session=wrong)) == expected  # noqa: B023
        assert refused(lambda: entries.transact([], [Put("a", "b", session=wrong)])) == expected  # noqa: B023
    assert refused(lambda: queue.take(None)) == "session must be a Session, not NoneType"  # type: ignore[arg-type]
    wrong = program.recipes.session()
    assert refused(lambda: queue.take(wrong)) == "session must be a Session, not Deferred: await it first"


def test_a_wrong_client_or_reactor_raises_at_the_call(program: Program) -> None:
    client: Any = program
    wrong: Any
    for wrong in (None, "cluster.toml", program.clock):
        expected = f"client must be a Client, as of Client(reactor, cluster), not {type(wrong).__name__}"
        assert refused(lambda: Recipes(wrong, Clock())) == expected  # noqa: B023
    assert refused(lambda: Recipes(client, None)).startswith("reactor must be the reactor (from twisted.internet ")


def test_a_guard_guards_something(program: Program) -> None:
    """One with neither a version nor a value held always: a change by another was overwritten."""
    kind: Any = int | None
    limits: Map[Any] = program.recipes.map("m", kind)
    expected = "a guard needs a version or a value; version=0 is for a key that is not there"
    assert refused(lambda: limits.guard("a"), ValueError) == expected
    limits.put("a", 7)
    for value, held, left in ((None, False, 7), (7, True, None), (None, True, 8), (None, False, 8)):
        outcome = result_of(limits.transact([limits.guard("a", value=value)], [Put("a", left)]))
        assert (outcome.held, result_of(limits.get("a")).value) == (held, left)
    numbers: Map[Any] = program.recipes.map("n", int)
    assert refused(lambda: numbers.guard("a", value=None)).startswith("the map n has values of int, not None")
    result_of(limits.transact([], [Delete("a")]))
    assert not result_of(limits.transact([limits.guard("a", value=None)], [])).held, "no key is no None"


def test_a_page_of_nothing_is_refused(program: Program) -> None:
    """It had no entries and said that there are more, so a program that reads pages went on for ever."""
    entries = program.recipes.map("m", str)
    assert refused(lambda: entries.page(count_max=0)).startswith("count_max must be an int from 1 to ")


def test_a_queue_is_not_its_own_queue_of_dead_letters(program: Program) -> None:
    queue = program.recipes.queue("q", str)
    line = refused(lambda: queue.limit_deliveries(1, "q"), ValueError)
    assert line == "the queue q cannot have its own dead letters: they would never leave it"
    assert result_of(queue.limit_deliveries(0, "q")) is None


@pytest.mark.parametrize("ready", [True, False])
def test_a_request_is_for_what_it_was_made_for(program: Program, ready: bool) -> None:
    """Asked again for another permit, a request was given the token of the first one."""
    session_id, harness = session_of(program).session_id, program.harness
    permits, queues = harness.service(Permits), harness.service(Queues)
    gatherings = harness.service(Gatherings)
    count = 1 if ready else 2
    if ready:
        result_of(queues.put("a", b"5"))
    else:
        result_of(permits.acquire("a", session_id, "first"))
    for ask, arguments in ((permits.acquire, ()), (queues.take, (5,)), (gatherings.enter, (count,))):
        call: Any = ask
        first = result_of(call("a", session_id, "r", *arguments))
        assert (first is not None) == ready
        assert result_of(call("a", session_id, "r", *arguments)) == first
        error = result_of(call("b", session_id, "r", *arguments))
        assert isinstance(error, RequestMismatch)
        assert str(error) == "the request r of this session is for a, not for b"
