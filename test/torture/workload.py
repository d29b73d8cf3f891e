"""Clients that use the key-value store, and ask about subjects, until they are stopped, and remember every answer.

Each client has one operation under way, and pauses after it. A client without an answer gives up after a while. Then
the outcome of its command is unknown. A new client, which may know one node only, may replace it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from test.torture.checker import ObservedRead
from test.torture.commands import VALUE_BYTES, Input, Item, command_of, draw_key, item_of, query_of
from txpaxos.cli.running import CommandError, together
from txpaxos.client import Client
from txpaxos.cluster import Cluster
from txpaxos.errors import NoQuorum, NotChosen, OutcomeUnknown, Overloaded, SessionExpired
from txpaxos.testing.linearizability.history import UNKNOWN, HistoryRecorder
from txpaxos.testing.linearizability.models import Model

USERS = 6
ASKERS = 2
WEIGHTS = {"get": 24, "local": 8, "watch": 1, "put": 16, "cas": 24, "delete": 4}
"""How often a user does what. A ``local`` get may return an old value. A ``watch`` waits a short time for a change."""

STAYS = 0.5
"""The share of operations on the same key as the one before."""

ASK_PAUSE_SECONDS = 0.25
ASKS_PER_SUBJECT = 3
KNOWS_ONE_NODE = 0.3
"""The share of clients that know one node only."""

TIMEOUT_SECONDS = (30.0, 30.0, 3.0, 0.5)
"""How long a client waits for an answer, in seconds: one of these."""

TIMEOUT_WITH_ONE_NODE_SECONDS = 2.0
HURRY = 1 / 300
HURRY_SECONDS = 0.01
"""In the given share of operations the client gives up after at most this time, though nothing may be wrong."""

FAITHFUL = 2
"""How many users, and one of those who ask, never get another client. What these clients know of the cluster are the
nodes that founded it, whatever becomes of these."""

GOES_ON = 0.3
"""The share of clients that continue after giving up on a command. The others are closed and replaced."""

TICK_SECONDS = 0.05
SETTLING_SECONDS_MAX = 30.0


class Decision(Model):
    """A subject. The value that is asked for first is chosen. Input: ``["ask", subject, value]``."""

    def partition(self, input: Any) -> Any:
        """The subject."""
        return input[1]

    def step(self, state: Any, input: Any, output: Any) -> tuple[bool, Any]:
        """See :class:`Model`."""
        decided = input[2] if state is None else state
        return output is UNKNOWN or output == decided, decided


class User:
    """What a user of the store knows, with any client.

    :ivar seen: the last known value of each key.
    """

    def __init__(self, name: str, rng: Random) -> None:
        self.seen: dict[str, Item] = {}
        self._name = name
        self._rng = rng
        self._key = draw_key(rng)
        self._texts = 0

    def next(self) -> tuple[str, Input]:
        """The next operation: one of :data:`WEIGHTS`, and its input for the history."""
        if self._rng.random() >= STAYS:
            self._key = draw_key(self._rng)
        (kind,) = self._rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
        match kind:
            case "put":
                return kind, (kind, self._key, self._new_text())
            case "cas":
                item = self.seen.get(self._key)
                return kind, (kind, self._key, item and item[0], self._new_text())
            case "delete":
                return kind, (kind, self._key)
        return kind, ("get", self._key)

    def told(self, input: Input, result: Any) -> None:
        """A command was answered."""
        match input:
            case ("put", key, text):
                self.seen[key] = text, result
            case ("cas", key, _, text) if result:
                self.seen[key] = text, 0  # The revision is not known.
            case ("delete", key):
                self.seen[key] = None

    def _new_text(self) -> str:
        self._texts += 1
        return f"{self._name}.{self._texts}"


class Workload:
    """All clients.

    :param founding: the cluster as it was founded: what the first clients know.
    :param current: the cluster as it is now: what a new client knows.
    :param folder: where the histories are written.
    :param pause_seconds: how long a user pauses after each operation.
    :ivar history: the history of the key-value store, without local reads.
    :ivar locals: the history of local reads.
    :ivar asks: the history of the subjects.
    :ivar acknowledged: session and sequence of every command that was answered.
    :ivar observed_reads: the answers to reads, without watches, which may return the state of a later slot.
    :ivar answers: how many operations of each kind were answered.
    """

    def __init__(
        self,
        reactor: Any,
        founding: Cluster,
        current: Callable[[], Cluster],
        folder: Path,
        rng: Random,
        pause_seconds: float,
    ) -> None:
        self.history = HistoryRecorder(reactor, str(folder / "kv.jsonl"))
        self.locals = HistoryRecorder(reactor, str(folder / "locals.jsonl"))
        self.asks = HistoryRecorder(reactor, str(folder / "asks.jsonl"))
        self.acknowledged: list[tuple[bytes, int]] = []
        self.observed_reads: list[ObservedRead] = []
        self.answers: Counter[str] = Counter()
        self._reactor = reactor
        self._founding = founding
        self._current = current
        self._rng = rng
        self._pause_seconds = pause_seconds
        self._answered_at: list[float] = []
        self._lags: list[tuple[float, float]] = []
        self._stopping = False
        self._settled = 0
        self._failure: Failure | None = None
        self._waiting: list[tuple[int, Deferred[None]]] = []
        self._clients: set[Client] = set()
        self._faithful: set[Client] = set()
        self._ticker = LoopingCall(self._tick)
        self._ticker.clock = reactor
        self._ticker.start(TICK_SECONDS, now=False)
        self._working = [self._start(f"user-{number}", self._use, number < FAITHFUL) for number in range(USERS)]
        self._working += [self._start(f"ask-{number}", self._ask, not number) for number in range(ASKERS)]

    async def more(self, count: int, seconds: float) -> None:
        """Wait until ``count`` more operations of the store are answered, without local reads.

        :raises CommandError: if that takes longer than ``seconds``, or a client got an answer that it must not get.
        """
        there: Deferred[None] = Deferred()
        self._waiting.append((len(self._answered_at) + count, there))
        try:
            await there.addTimeout(seconds, self._reactor)
        except TimeoutError:
            raise CommandError(
                f"no {count} operations were answered within {seconds:g} s, with nothing wrong"
            ) from None
        if self._failure is not None:
            self._failure.raiseException()

    def longest_silence(self, begin: float, end: float) -> float:
        """The longest time without an answer to any client between two times, in seconds."""
        answered = self._answered_at[bisect_left(self._answered_at, begin) : bisect_right(self._answered_at, end)]
        times = [begin, *answered, end]
        return max(later - earlier for earlier, later in pairwise(times))

    def lag_seconds(self, begin: float, end: float) -> float:
        """How late this process was at most between two times, because it waited for a processor."""
        return max((lag for at, lag in self._lags if begin <= at <= end), default=0.0)

    async def stop(self) -> None:
        """Start no operation any more, wait for those under way, and submit a last command."""
        self._stopping = True
        await together(*map(_wait, self._working))
        if self._failure is not None:
            self._failure.raiseException()
        for client in self._faithful:
            await self._settle("a client that knows only founders", client)
        for node in self._current().members:
            await self._settle(f"node {node}", Client(self._reactor, self._current(), [node]))
        self.close()

    def close(self) -> None:
        """Close all clients, whatever they wait for."""
        self._stopping = True
        if self._ticker.running:
            self._ticker.stop()
        for client in list(self._clients):
            client.close()
        for working in self._working:
            working.cancel()
        self.history.close()
        self.locals.close()
        self.asks.close()

    async def _settle(self, who: str, client: Client) -> None:
        """Submit one more command with ``client``, which changes nothing. If it talks to one node, that node's votes
        record on each disk that everything before is chosen."""
        key, self._settled = next(iter(VALUE_BYTES)), self._settled + 1
        input = ("cas", key, "absent", f"settled by {who} ({self._settled})")
        self._clients.add(client)
        begin = partial(client.submit, command_of(input), SETTLING_SECONDS_MAX)
        if not await self._operation(self.history, f"settler-{self._settled}", input, begin):
            found = client.findings()
            raise CommandError(f"{who} had no answer within {SETTLING_SECONDS_MAX:g} s, with nothing wrong: {found}")

    def _start(
        self, name: str, work: Callable[[str, bool], Coroutine[Deferred[Any], Any, None]], is_faithful: bool
    ) -> Deferred[None]:
        return Deferred.fromCoroutine(work(name, is_faithful)).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if not self._stopping:
            self._failure = failure

    async def _use(self, name: str, is_faithful: bool) -> None:
        user = User(name, self._rng)
        client, timeout_seconds = self._client(is_faithful)
        while not self._stopping:
            kind, input = user.next()
            if await self._use_once(name, user, client, kind, input, timeout_seconds):
                self._answered(kind)
            else:
                client, timeout_seconds = self._client_after(client, timeout_seconds)
            await self._pause(self._pause_seconds)

    async def _use_once(
        self, name: str, user: User, client: Client, kind: str, input: Input, timeout_seconds: float
    ) -> bool:
        seconds = self._rng.uniform(0.0, HURRY_SECONDS) if self._rng.random() < HURRY else timeout_seconds
        if input[0] != "get":
            return await self._operation(self.history, name, input, partial(self._submit, client, user, input, seconds))
        begin = partial(self._read, client, user, kind, input[1], seconds)
        if kind == "local":
            return await self._operation(self.locals, name, input, begin)
        return await self._operation(self.history, name, input, begin, lambda item: item and item[0])

    async def _submit(self, client: Client, user: User, input: Input, timeout_seconds: float) -> Any:
        sequence = client.next_sequence
        result = await client.submit(command_of(input), timeout_seconds)
        assert client.session is not None
        self.acknowledged.append((client.session, sequence))
        user.told(input, result)
        return result

    async def _read(self, client: Client, user: User, kind: str, key: str, timeout_seconds: float) -> Item:
        known = user.seen.get(key)
        query = query_of("watch", key, known[1] if known else 0) if kind == "watch" else query_of("get", key)
        reading = await client.read(query, "local" if kind == "local" else "linearizable", timeout_seconds)
        item = item_of(key, reading.result)
        if kind != "watch":
            self.observed_reads.append(ObservedRead(key, item, reading.slot, len(self.history.events)))
        if kind != "local":
            user.seen[key] = item
        return item

    async def _ask(self, name: str, is_faithful: bool) -> None:
        client, timeout_seconds = self._client(is_faithful)
        asked = 0
        while not self._stopping:
            subject, value = f"subject-{asked // ASKS_PER_SUBJECT}", f"{name}-{asked}"
            begin = partial(self._begin_ask, client, subject, value, timeout_seconds)
            asked += 1
            if not await self._operation(self.asks, name, ["ask", subject, value], begin, bytes.decode):
                client, timeout_seconds = self._client_after(client, timeout_seconds)
            await self._pause(ASK_PAUSE_SECONDS)

    def _begin_ask(self, client: Client, subject: str, value: str, timeout_seconds: float) -> Deferred[Any]:
        return client.ask(subject, value.encode()).addTimeout(timeout_seconds, self._reactor)

    async def _operation(
        self,
        recorder: HistoryRecorder,
        name: str,
        input: Any,
        begin: Callable[[], Deferred[Any] | Coroutine[Deferred[Any], Any, Any]],
        output: Callable[[Any], Any] = lambda result: result,
    ) -> bool:
        """Perform and record one operation. Returns whether it was answered.

        :raises SessionExpired: an error here, since no node forgets a session so soon.
        """
        try:
            await recorder.record(name, input, begin, output)
            return True
        except SessionExpired:
            raise
        except (TimeoutError, OutcomeUnknown, NoQuorum, NotChosen, Overloaded):
            return False

    def _client(self, is_faithful: bool = False) -> tuple[Client, float]:
        """A new client, and how long it waits for answers, in seconds."""
        cluster = self._current()
        if is_faithful:
            client, timeout_seconds = Client(self._reactor, self._founding), self._rng.choice(TIMEOUT_SECONDS)
            self._faithful.add(client)
        elif self._rng.random() < KNOWS_ONE_NODE:
            node = self._rng.choice(list(cluster.members))
            client, timeout_seconds = Client(self._reactor, cluster, [node]), TIMEOUT_WITH_ONE_NODE_SECONDS
        else:
            client, timeout_seconds = Client(self._reactor, cluster), self._rng.choice(TIMEOUT_SECONDS)
        self._clients.add(client)
        return client, timeout_seconds

    def _client_after(self, client: Client, timeout_seconds: float) -> tuple[Client, float]:
        """The client that continues after ``client`` gave up: the same, or a new one."""
        if client in self._faithful or self._rng.random() < GOES_ON:
            return client, timeout_seconds
        self._clients.discard(client)
        client.close()
        return self._client()

    async def _pause(self, seconds: float) -> None:
        await deferLater(self._reactor, seconds * self._rng.uniform(0.5, 1.5))

    def _answered(self, kind: str) -> None:
        self.answers[kind] += 1
        if kind == "local":  # A local read needs no quorum.
            return
        self._answered_at.append(self._reactor.seconds())
        for target, there in list(self._waiting):
            if len(self._answered_at) >= target:
                self._waiting.remove((target, there))
                if not there.called:
                    there.callback(None)

    def _tick(self) -> None:
        now = self._reactor.seconds()
        last = self._lags[-1][0] if self._lags else now - TICK_SECONDS
        self._lags.append((now, max(0.0, now - last - TICK_SECONDS)))


async def _wait(working: Deferred[None]) -> None:
    await working
