"""Clients that count and ask as long as they are let, and remember everything they were told.

Each has one operation under way, and a pause after it. One that had no answer for as long as it has patience gives up:
what became of its command nobody knows then. In its place may come a new client, which may know one node only.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from test.processes import Increment
from txpaxos.cli.running import CommandError, together
from txpaxos.client import Client
from txpaxos.cluster import Cluster
from txpaxos.errors import NoQuorum, NotChosen, OutcomeUnknown, Overloaded
from txpaxos.testing.history import UNKNOWN, HistoryRecorder
from txpaxos.testing.linear_models import Model

COUNTERS = 6
ASKERS = 2
AMOUNTS = (0, 0, *range(1, 10))
"""What is added. Instead of adding 0, a client reads."""

ASK_PAUSE_SECONDS = 0.25
ASKS_PER_SUBJECT = 3
KNOWS_ONE_NODE = 0.3
"""The share of clients that know one node only."""

PATIENCE_SECONDS = (30.0, 30.0, 3.0, 0.5)
"""How long a client waits for an answer, in seconds: one of these."""

PATIENCE_WITH_ONE_NODE_SECONDS = 2.0
HURRY = 1 / 300
HURRY_SECONDS = 0.01
"""In that share of operations the client gives up after so short a time at most, though nothing may be wrong."""

GOES_ON = 0.3
"""The share of clients that go on after giving up on a command. The others are closed, and new ones come."""

TICK_SECONDS = 0.05


class Decision(Model):
    """A subject, which is decided on the value that was asked for first. Input: ``["ask", subject, value]``."""

    def partition(self, input: Any) -> Any:
        """The subject."""
        return input[1]

    def step(self, state: Any, input: Any, output: Any) -> tuple[bool, Any]:
        """See :class:`Model`."""
        decided = input[2] if state is None else state
        return output is UNKNOWN or output == decided, decided


class Workload:
    """All clients.

    :param folder: where the histories go.
    :param pause_seconds: of a client that counts, after each operation.
    :ivar increments: all that were sent.
    :ivar counts: the history of the counter.
    :ivar asks: the history of the subjects.
    :ivar lag_seconds: how late this very process was at most, for want of a processor.
    """

    def __init__(self, reactor: Any, cluster: Cluster, folder: Path, rng: Random, pause_seconds: float) -> None:
        self.increments: list[Increment] = []
        self.counts = HistoryRecorder(reactor, str(folder / "counts.jsonl"))
        self.asks = HistoryRecorder(reactor, str(folder / "asks.jsonl"))
        self._reactor = reactor
        self._cluster = cluster
        self._rng = rng
        self._pause_seconds = pause_seconds
        self._answered_at: list[float] = []
        self._lags: list[tuple[float, float]] = []
        self._stopping = False
        self._failure: Failure | None = None
        self._waiting: list[tuple[int, Deferred[None]]] = []
        self._clients: set[Client] = set()
        self._ticker = LoopingCall(self._tick)
        self._ticker.clock = reactor
        self._ticker.start(TICK_SECONDS, now=False)
        self._working = [self._start(f"count-{number}", self._count) for number in range(COUNTERS)]
        self._working += [self._start(f"ask-{number}", self._ask) for number in range(ASKERS)]

    async def more(self, count: int, seconds: float) -> None:
        """Wait until ``count`` more operations of the counter are answered.

        :raises CommandError: if that takes longer than ``seconds``, or a client was told what it must not be.
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
        """The longest time without an answer to anybody between two times, in seconds."""
        answered = self._answered_at[bisect_left(self._answered_at, begin) : bisect_right(self._answered_at, end)]
        times = [begin, *answered, end]
        return max(later - earlier for earlier, later in pairwise(times))

    def lag_seconds(self, begin: float, end: float) -> float:
        """How late this very process was at most between two times, for want of a processor."""
        return max((lag for at, lag in self._lags if begin <= at <= end), default=0.0)

    async def stop(self) -> None:
        """Begin nothing more, and wait for what is under way."""
        self._stopping = True
        await together(*map(_wait, self._working))
        self.close()
        if self._failure is not None:
            self._failure.raiseException()

    def close(self) -> None:
        """Away with the clients, whatever they wait for."""
        self._stopping = True
        if self._ticker.running:
            self._ticker.stop()
        for client in list(self._clients):
            client.close()
        for working in self._working:
            working.cancel()
        self.counts.close()
        self.asks.close()

    def _start(self, name: str, work: Callable[[str], Coroutine[Deferred[Any], Any, None]]) -> Deferred[None]:
        return Deferred.fromCoroutine(work(name)).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if not self._stopping:
            self._failure = failure

    async def _count(self, name: str) -> None:
        client, patience = self._client()
        while not self._stopping:
            amount = self._rng.choice(AMOUNTS)
            seconds = self._rng.uniform(0.0, HURRY_SECONDS) if self._rng.random() < HURRY else patience
            if not await self._operation(self.counts, name, *self._add(client, amount, seconds)):
                client, patience = self._client_after(client, patience)
            await self._pause(self._pause_seconds)

    def _add(self, client: Client, amount: int, patience: float) -> tuple[Any, Callable[[], Deferred[Any]]]:
        """The input of one increment, and what begins it."""
        increment = Increment(b"", client.next_sequence, amount)
        if amount:
            self.increments.append(increment)

        def answered(total: Any) -> Any:
            increment.total = total
            self._answered()
            return total

        def ended(result: Any) -> Any:
            increment.session = client.session or b""
            return result

        def begin() -> Deferred[Any]:
            if not amount:
                return client.read(b"", deadline_seconds=patience).addCallback(lambda reading: answered(reading.result))
            return client.submit(b"+%d" % amount, patience).addBoth(ended).addCallback(answered)

        return ["add", amount] if amount else ["read"], begin

    async def _ask(self, name: str) -> None:
        client, patience = self._client()
        asked = 0
        while not self._stopping:
            subject, value = f"subject-{asked // ASKS_PER_SUBJECT}", f"{name}-{asked}"
            begin = partial(self._begin_ask, client, subject, value, patience)
            asked += 1
            if not await self._operation(self.asks, name, ["ask", subject, value], begin, bytes.decode):
                client, patience = self._client_after(client, patience)
            await self._pause(ASK_PAUSE_SECONDS)

    def _begin_ask(self, client: Client, subject: str, value: str, patience: float) -> Deferred[Any]:
        return client.ask(subject, value.encode()).addTimeout(patience, self._reactor)

    async def _operation(
        self,
        recorder: HistoryRecorder,
        name: str,
        input: Any,
        begin: Callable[[], Deferred[Any]],
        output: Callable[[Any], Any] = lambda result: result,
    ) -> bool:
        """One operation, recorded. Whether it was answered."""
        try:
            await recorder.record(name, input, begin, output)
            return True
        except (TimeoutError, OutcomeUnknown, NoQuorum, NotChosen, Overloaded):
            return False

    def _client(self) -> tuple[Client, float]:
        """A new client, and its patience in seconds."""
        if self._rng.random() < KNOWS_ONE_NODE:
            node = self._rng.choice(list(self._cluster.members))
            client, patience = Client(self._reactor, self._cluster, [node]), PATIENCE_WITH_ONE_NODE_SECONDS
        else:
            client, patience = Client(self._reactor, self._cluster), self._rng.choice(PATIENCE_SECONDS)
        self._clients.add(client)
        return client, patience

    def _client_after(self, client: Client, patience: float) -> tuple[Client, float]:
        """The one to go on with when ``client`` gave up: itself, or a new one."""
        if self._rng.random() < GOES_ON:
            return client, patience
        self._clients.discard(client)
        client.close()
        return self._client()

    async def _pause(self, seconds: float) -> None:
        await deferLater(self._reactor, seconds * self._rng.uniform(0.5, 1.5))

    def _answered(self) -> None:
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
