"""What ``txpaxos.aio`` gives, for type checkers: recipes and watched queries with coroutines, not Deferreds.

A test writes this file from the classes that it has the names of: ``test/aio/test_recipe_types.py``.
"""

from collections.abc import AsyncIterator, Callable, Generator, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from txpaxos.recipes.lease import SessionState
from txpaxos.recipes.map import Delete, MapChange, MapEntry, MapOutcome, MapPage, NoValue, Put
from txpaxos.recipes.permit import HoldEnd
from txpaxos.recipes.recipes import TTL_SECONDS
from txpaxos.recipes.replicated.gatherings import Member
from txpaxos.recipes.replicated.maps import Guard
from txpaxos.recipes.replicated.permits import Contender
from txpaxos.recipes.replicated.queues import PRIORITY_DEFAULT, Depth
from txpaxos.service.changes import Change

T = TypeVar("T")

class Watch(Generic[T]):
    """The answers of a query, for ``async for``. :func:`~txpaxos.service.remote.watch` makes it.

    :param poll: asks for them.
    :param call: the call that is watched.
    :param read: reads its result.
    """

    def __aiter__(self) -> Watch[T]: ...
    async def __anext__(self) -> T: ...
    async def next(self) -> T:
        """The next answer, for a program without coroutines. Cancel it to end the wait."""

    def close(self) -> None:
        """End the watch. One that is waited for ends as if there were no more answers."""

    async def aclose(self) -> None:
        """End the watch, as that of an asynchronous generator."""

class EachChange(Generic[T]):
    """Each change of the answer to a query, for ``async for``. :func:`~txpaxos.service.remote.each_change` makes it.

    :param poll: asks for them.
    :param submit: has a command applied.
    :param call: the call whose answer changes.
    :param read: reads its result.
    :ivar version: the version of the last change that was given, for a later :meth:`after`; ``None`` before.
    """

    version: int | None

    def after(self, version: int) -> EachChange[T]:
        """Go on after a change that was seen earlier, perhaps by another process.

        :param version: that of the change.
        :returns: this very object.
        :raises TypeError: if ``version`` is no int.
        :raises ValueError: if it is below zero, or has more than 64 bits.
        """

    def __aiter__(self) -> EachChange[T]: ...
    async def __anext__(self) -> Change[T]: ...
    async def next(self) -> Change[T]:
        """The next change, for a program without coroutines. Cancel it to end the wait: no change is lost by that."""

    def close(self) -> None:
        """End the watch. One that is waited for ends as if there were no more changes."""

    async def aclose(self) -> None:
        """End the watch, as that of an asynchronous generator."""

class Lease:
    """What a program knows of a session of its own: how long it may rely on it.

    :ivar session_id: what the nodes call it. Another process can go on with it, see ``Recipes.resume``.
    :ivar ttl_seconds: it ends when the nodes have not heard of it for so long.
    """

    session_id: str
    ttl_seconds: float

    @property
    def state(self) -> SessionState:
        """How it is, as far as this program knows: it is never ``held`` of one that may have ended.

        It goes by the clock. After this process was stopped or busy, watchers may be told a moment later.
        """

    @property
    def lease_left_seconds(self) -> float:
        """How long it is at least until another may have what the session holds; 0 if it is over."""

    @property
    def is_over(self) -> bool:
        """Whether it is lost or closed."""

    def watch(self, watcher: Callable[[SessionState], object]) -> Callable[[], None]:
        """Call ``watcher`` with the new state whenever it changes, until what this returns is called."""

    async def over(self) -> SessionState:
        """Fires when the session is lost or closed, with which of them it is; at once if it is over."""

    async def close(self) -> bool:
        """End the session, and with it what belongs to it.

        :returns: fires with whether it was still open.
        """

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

class Hold:
    """A permit in the hands of this program.

    What the hold protects should see its ``token``, and refuse a lower one than the highest it has seen
    (:class:`~txpaxos.recipes.Fence`). ``still_held`` alone cannot keep a program that was stopped for a while from
    acting too late.

    :ivar name: of the permit.
    :ivar token: higher than that of every earlier hold of any permit.
    """

    name: str
    token: int

    def still_held(self) -> bool:
        """Whether no other can hold it yet, by the clock of this program and without asking a node."""

    async def over(self) -> HoldEnd:
        """Fires with how the hold has ended; at once if it has. With ``"lost"`` it fires before another can hold it.

        Each call gives a Deferred of its own. ``session.watch`` tells earlier that a session is suspended.
        """

    async def release(self) -> None:
        """Let the next one have it.

        :returns: fires when the nodes have it; fails with :class:`~txpaxos.recipes.Fenced` if the hold was over before:
            then another may have held the permit meanwhile. If it fails after a deadline, the release goes on behind.
        """

class Permit:
    """What is held by some at a time, and waited for by others in the order in which they came.

    An object contends once at a time, and is in one block at a time. It is not re-entrant. ``async with`` acquires and
    releases it:

    .. code-block:: python

        async with session.lock("reports", timeout_seconds=5.0) as hold:
            await storage.write(data, fence=hold.token)

    The block ends with :class:`~txpaxos.recipes.Fenced` if the hold was over before the block was. It releases the hold
    that it was entered with, and no other.

    :param units: how much of the permit a hold takes.
    :param capacity: what the permit has in all.
    :param value: what others see of this contender.
    :param timeout_seconds: how long to wait for a grant; ``None`` for as long as it takes.
    :raises TypeError: if one of these is of a wrong type, or out of its bounds.
    """

    name: str

    @property
    def is_acquired(self) -> bool:
        """Whether this program holds it, as :meth:`Hold.still_held` says."""

    async def acquire(self, timeout_seconds: float | None = None) -> Hold:
        """Wait for it. Cancelled, or after its time, the request is withdrawn; a hold that comes then is given back.

        :param timeout_seconds: how long to wait; what the object was made with if not given.
        :returns: fires with the hold; fails with:

            * :class:`~txpaxos.recipes.WaitTimedOut`: it was not granted in time.
            * :class:`~txpaxos.recipes.SessionOver`: the session is over.
            * :class:`~txpaxos.recipes.CapacityMismatch`: it is in use with another capacity.
            * :class:`~txpaxos.recipes.LimitReached`: there are too many requests.
        :raises AlreadyContending: if this object holds it or waits for it.
        """

    async def try_acquire(self) -> Hold | None:
        """Take it if it is free and none waits for it, or else leave no trace.

        :returns: fires with the hold, or with ``None``; fails as :meth:`acquire` does.
        :raises AlreadyContending: if this object holds it or waits for it.
        """

    async def release(self) -> None:
        """Release the hold of this object. See :meth:`Hold.release`; fails with Fenced if it has none."""

    async def contenders(self) -> tuple[Contender, ...]:
        """Those who hold it, and then those who wait for it, in the order of the line; a thousand of them at most."""

    async def __aenter__(self) -> Hold: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

class Lock(Permit):
    """A lock: one holds it. Also a read or a write lock: all readers hold it together, or one writer alone.

    A request never overtakes another. So a writer that waits holds back the readers that come after it.
    """

class Semaphore(Permit):
    """A semaphore: as many hold it as its capacity says, which is the same for all who contend at one time."""

class Election(Permit):
    """An election: who holds it leads, and the others wait. ``value`` is what all can see of the leader."""

    async def leader(self) -> Contender | None:
        """Who leads now; ``None`` if there is no leader."""

    def leaders(self) -> Watch[Contender | None]:
        """Who leads, now and whenever that changes, for ``async for``. There may have been others in between."""

class Party:
    """Who is there: each session that has joined, until it leaves or is over. ``async with`` joins and leaves.

    A session is a member once, whatever number of objects it has. So it is in one block of a party at a time.

    :param value: what others see of this member, such as its address.
    :param entered: the parties in whose blocks the session is.
    """

    name: str

    async def join(self) -> None:
        """Be a member.

        :returns: fails with :class:`~txpaxos.recipes.SessionOver` if the session is over.
        """

    async def leave(self) -> bool:
        """Be no member any more; fires with whether this was one."""

    async def members(self) -> tuple[Member, ...]:
        """Those who are there, a thousand of them at most."""

    def changes(self) -> Watch[tuple[Member, ...]]:
        """Those who are there, now and whenever that changes, for ``async for``."""

    async def __aenter__(self) -> Party: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

class Barrier:
    """A gate: while it is closed, all who come to it wait."""

    name: str

    async def create(self, *, outlives_session: bool = False) -> bool:
        """Close it.

        :param outlives_session: whether it stays closed when the session of this program is over.
        :returns: fires with whether it was open before.
        """

    async def remove(self) -> bool:
        """Open it, also if another has closed it; fires with whether it was closed."""

    async def wait(self, timeout_seconds: float | None = None) -> None:
        """Wait until it is open.

        :returns: fails with :class:`~txpaxos.recipes.WaitTimedOut` after that time.
        """

class DoubleBarrier:
    """For a number of programs that begin together, and end together. ``async with`` enters and leaves it.

    One whose session is over does not count, and is not waited for. One that comes while the others are within has the
    next round. An object takes part once at a time, and is in one block at a time.
    """

    name: str

    async def enter(self) -> int:
        """Wait until as many are there as must be.

        Cancelled, or after its time, this one counts no more.

        :returns: fires with the number of the round, which is higher than that of every earlier one; fails with:

            * :class:`~txpaxos.recipes.WaitTimedOut`: they did not come in time.
            * :class:`~txpaxos.recipes.SessionOver`: the session is over.
            * :class:`~txpaxos.recipes.CapacityMismatch`: others use it for another number.
        :raises AlreadyContending: if this object takes part already.
        """

    async def leave(self) -> None:
        """Leave, and wait until all others have, too.

        :returns: fails with :class:`~txpaxos.recipes.WaitTimedOut` if they do not in time, and with
            :class:`~txpaxos.recipes.SessionOver` if the session is over before.
        """

    async def __aenter__(self) -> int: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave. After an error this does not wait for the others."""

class Session(Lease):
    """A session of a program. What belongs to it ends with it: holds, takes of queues, entries of maps.

    :meth:`Recipes.session <txpaxos.recipes.recipes.Recipes.session>` opens one. ``async with session:`` closes it at
    the end. Names are of one namespace: a lock and an election of one name are the same permit.
    """

    def lock(self, name: str, *, value: str = "", timeout_seconds: float | None = None) -> Lock:
        """A lock.

        :param value: what others see of this contender.
        :param timeout_seconds: how long to wait for it; ``None`` for as long as it takes.
        """

    def read_lock(self, name: str, *, value: str = "", timeout_seconds: float | None = None) -> Lock:
        """The side of the readers of a read/write lock. The parameters are those of :meth:`lock`."""

    def write_lock(self, name: str, *, value: str = "", timeout_seconds: float | None = None) -> Lock:
        """The side of the writers of a read/write lock. The parameters are those of :meth:`lock`."""

    def semaphore(
        self, name: str, capacity: int, *, value: str = "", timeout_seconds: float | None = None
    ) -> Semaphore:
        """A semaphore. The other parameters are those of :meth:`lock`.

        :param capacity: how many hold it at most.
        """

    def election(self, name: str, value: str = "", *, timeout_seconds: float | None = None) -> Election:
        """An election, in which this program contends when it acquires it.

        :param value: what others see of this contender, such as its address.
        """

    def party(self, name: str, value: str = "") -> Party:
        """A party.

        :param value: what others see of this member, such as its address.
        """

    def barrier(self, name: str) -> Barrier:
        """A barrier."""

    def double_barrier(self, name: str, count: int, *, timeout_seconds: float | None = None) -> DoubleBarrier:
        """A double barrier.

        :param count: how many begin and end together; the same for all who use it at one time.
        :param timeout_seconds: how long to wait for the others at each side; ``None`` for as long as it takes.
        """

class Queue(Generic[T]):
    """A queue: first in, first out, those with a lower priority before others.

    Each method gives a Deferred, and raises TypeError or ValueError at the call if an argument is wrong.
    """

    name: str

    async def put(self, value: T, priority: int = PRIORITY_DEFAULT) -> int:
        """Put a value behind those of the same priority.

        :param priority: 0 to 999; what is lower is taken first.
        :returns: fires with a number that is higher for each later item; fails with
            :class:`~txpaxos.recipes.LimitReached` if there are too many items.
        """

    def take(
        self, session: Session, visible_after_seconds: float = 60.0, timeout_seconds: float | None = None
    ) -> Take[T]:
        """Take the first item, or wait for one.

        .. code-block:: python

            async with jobs.take(session) as job:    # acknowledged at the end, or given back on an error
                await work(job.value)

            job = await jobs.take(session)           # acknowledged by hand
            await job.acknowledge()

        :param session: if it ends, the item is in the queue again.
        :param visible_after_seconds: so long after it was taken, the item is in the queue again unless it was
            acknowledged. It may be a little longer.
        :param timeout_seconds: how long to wait for an item; ``None`` for as long as it takes.
        """

    async def depth(self) -> Depth:
        """How many items are ready and how many are taken, and how many requests wait for one."""

    async def limit_deliveries(self, deliveries_max: int, dead_letters: str) -> None:
        """Have an item that comes back after its ``deliveries_max``-th delivery go to another queue.

        :param deliveries_max: 0 for no limit, as at first.
        :param dead_letters: the name of that queue. There an item is new: its deliveries count from 1. So two queues
            that send each other what comes back keep it for ever.
        :raises ValueError: if that is this very queue.
        """

class Taken(Generic[T]):
    """An item in the hands of this program.

    :ivar value: what was put.
    :ivar token: rises with every delivery of any item, and names this one. What is done with the item can carry it, so
        that who is late can be refused.
    :ivar deliveries: how many times the item was delivered, this one included.
    """

    value: T
    token: int
    priority: int
    deliveries: int
    is_done: bool

    async def acknowledge(self) -> None:
        """Say that the item is done with. It is in no queue any more.

        :returns: fails with :class:`~txpaxos.recipes.TakeOver` if the take is over: another may have the item.
        """

    async def give_back(self) -> None:
        """Have the item in its old place in the queue again.

        :returns: fails with :class:`~txpaxos.recipes.TakeOver` if the take is over.
        """

    async def extend(self, visible_after_seconds: float) -> None:
        """Keep the item for so long from now on.

        :returns: fails with :class:`~txpaxos.recipes.TakeOver` if the take is over.
        """

class Take(Generic[T]):
    """A request to take an item. It is made when it is awaited, or entered with ``async with``: each time anew.

    It is in one block at a time.
    """

    async def start(self) -> Taken[T]:
        """Make the request.

        :returns: fires with the item. Cancelled, or after its time, the request is withdrawn. It fails with:

            * :class:`~txpaxos.recipes.WaitTimedOut`: no item came in time.
            * :class:`~txpaxos.recipes.SessionOver`, :class:`~txpaxos.recipes.TakeOver`: the session is over.
            * :class:`~txpaxos.recipes.LimitReached`: there are too many requests.
            * :class:`~txpaxos.recipes.WrongValue`: the item is of another type. It is given back.
        """

    def __await__(self) -> Generator[Any, Any, Taken[T]]: ...
    async def __aenter__(self) -> Taken[T]: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

class Map(Generic[T]):
    """A map. Each method gives a Deferred, and raises TypeError or ValueError at the call if an argument is wrong."""

    name: str

    async def get(self, key: str) -> MapEntry[T] | None:
        """The entry of a key; ``None`` if there is none."""

    async def put(self, key: str, value: T, expected_version: int | None = None, session: Session | None = None) -> int:
        """Put a value under a key.

        :param expected_version: what the entry must have; 0 for no entry, ``None`` for whatever there is.
        :param session: the entry is deleted when this session ends.
        :returns: fires with the version of the entry. It fails with :class:`~txpaxos.recipes.VersionMismatch` if the
            version is another one, with :class:`~txpaxos.recipes.LimitReached` if there is too much, and with
            :class:`~txpaxos.recipes.SessionOver` if the session is over. Nothing is changed then.
        """

    async def delete(self, key: str, expected_version: int | None = None) -> int:
        """Delete a key.

        :param expected_version: what the entry must have; ``None`` for whatever there is.
        :returns: fires with the version of this change; with 0 if there was no such key. It fails with
            :class:`~txpaxos.recipes.VersionMismatch` if the version is another one.
        """

    async def transact(
        self, guards: Sequence[Guard], then: Sequence[Put[T] | Delete], otherwise: Sequence[Put[T] | Delete] = ()
    ) -> MapOutcome[T]:
        """Take the steps ``then`` if all guards hold, and those of ``otherwise`` if not. Nothing comes between them.

        :param guards: up to 128, made by :meth:`guard`.
        """

    def guard(self, key: str, version: int | None = None, *, value: T | NoValue = NoValue.NO_VALUE) -> Guard:
        """What must hold for a transaction: the entry of a key has this version, or this value.

        :param version: 0 for a key that is not there; ``None`` for any.
        :param value: ``None`` is a value like others, and stands for no key that is not there.
        :raises ValueError: if there is neither a version nor a value.
        """

    async def page(self, prefix: str = "", after: str = "", until: str = "", count_max: int = 1000) -> MapPage[T]:
        """Some entries, in the order of their keys: at most 1,000, and a MiB.

        :param prefix: what the keys begin with.
        :param after: the keys are behind this one: the last one of the page before.
        :param until: the keys are before this one; empty for no such bound.
        :param count_max: how many at most; of more than 1,000 there are 1,000.
        """

    def entries(self, prefix: str = "") -> AsyncIterator[MapEntry[T]]:
        """All entries in the order of their keys, page by page: what changes meanwhile may be in it or not.

        :param prefix: what the keys begin with.
        """

    async def size(self) -> int:
        """How many keys there are."""

    def changes(
        self, since: int = 0, prefix: str = "", timeout_seconds: float | None = None
    ) -> AsyncIterator[MapChange[T]]:
        """Each change in order, none missed, also over reconnects and changes of the leader.

        :param since: the version behind which to begin. With 0, all entries that there are come first, as changes.
        :param prefix: what the keys begin with.
        :param timeout_seconds: how long to wait for a change; ``None`` for as long as it takes.
        :raises ChangesGone: if changes since that version are not kept any more; then begin with 0.
        :raises WaitTimedOut: if no change came for so long.
        """

class Counter:
    """A whole number of 64 bits, which is 0 at first.

    Each method gives a Deferred, and raises TypeError at the call if an argument is wrong.
    """

    name: str

    async def add(self, amount: int = 1) -> int:
        """Add to the counter, once, however often the request must be sent.

        :returns: fires with the value after that; fails with :class:`~txpaxos.recipes.LimitReached` if it would have
            more than 64 bits.
        """

    async def set(self, value: int, expected: int | None = None) -> bool:
        """Set the counter.

        :param expected: what it must be before; ``None`` for whatever it is.
        :returns: fires with whether it was that, and was set.
        """

    async def value(self) -> int:
        """The value."""

    async def changed(self, value: int, timeout_seconds: float | None = None) -> int:
        """Wait until the value is another one.

        :param value: what the caller knows.
        :param timeout_seconds: how long to wait; ``None`` for as long as it takes.
        :returns: fires with the newest value; those between may be left out. It fails with
            :class:`~txpaxos.recipes.WaitTimedOut` after the time.
        """

class Set(Generic[T]):
    """A set of values, of at most 4 KiB each. Values are the same if their bytes are. Equal values of the declared type
    have equal bytes. But what an earlier release has put, whose class had fewer fields, keeps its own.

    Each method gives a Deferred, and raises TypeError at the call if an argument is wrong.
    """

    name: str

    async def add(self, value: T) -> bool:
        """Add a value.

        :returns: fires with whether it was not there before; fails with :class:`~txpaxos.recipes.LimitReached` if there
            are too many.
        """

    async def discard(self, value: T) -> bool:
        """Remove a value.

        :returns: fires with whether it was there.
        """

    async def pop(self) -> T:
        """Remove a value, the same one on all nodes, and once, however often the request must be sent.

        :returns: fires with the value; fails with KeyError if there is none, as the sets of Python do.
        """

    async def has(self, value: T) -> bool:
        """Whether a value is in the set."""

    async def size(self) -> int:
        """How many values there are."""

    def members(self) -> AsyncIterator[T]:
        """All values, in the order of their bytes, page by page: what changes meanwhile may be in it or not."""

class Recipes:
    """Sessions, queues, maps, counters and sets in a cluster whose nodes run the services of the recipes.

    :param client: the client of the cluster.
    :param reactor: the reactor of the client.
    :param deadline_seconds: how long each request that does not wait for others may take; ``None`` for as long as it
        takes.
    :ivar reactor: that reactor.
    """

    reactor: Any

    async def session(self, ttl_seconds: float = TTL_SECONDS) -> Session:
        """Open a session.

        :param ttl_seconds: it ends when the nodes have not heard of it for so long: 1 second to a day.
        :returns: fires with the session; fails with :class:`~txpaxos.recipes.LimitReached` if there are too many.
        """

    async def resume(self, session_id: str) -> Session:
        """Go on with a session that another process, or this one before a restart, has opened. That one must not use it
        any more.

        :returns: fires with the session; fails with :class:`~txpaxos.recipes.SessionOver` if it is over.
        """

    def queue(self, name: str, kind: type[T]) -> Queue[T]:
        """A queue of values of the type ``kind``.

        :raises TypeError: if values of this type cannot be sent.
        """

    def map(self, name: str, kind: type[T]) -> Map[T]:
        """A map whose values are of the type ``kind``.

        :raises TypeError: if values of this type cannot be sent.
        """

    def counter(self, name: str) -> Counter:
        """A counter."""

    def set(self, name: str, kind: type[T]) -> Set[T]:
        """A set of values of the type ``kind``.

        :raises TypeError: if values of this type cannot be sent.
        """
