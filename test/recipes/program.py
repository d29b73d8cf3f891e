"""A program with recipes, and a network between it and a node in memory that the test has in its hands."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure

from txpaxos.errors import NoQuorum, NotChosen
from txpaxos.reading import Consistency, Reading
from txpaxos.recipes import COORDINATION, Recipes
from txpaxos.service.declaration import Remote, S
from txpaxos.service.remote import remote_service
from txpaxos.testing.services_harness import ServicesHarness

STEP_SECONDS = 0.05


class Program:
    """A program of its own, with the client of a cluster.

    :param harness: the node; a new one unless given.
    :ivar is_slow: whether requests and answers wait until the test lets them go on, in any order.
    :ivar is_cut_off: whether keep-alives get no answer.
    :ivar unheard: timers of which keep-alives get no answer.
    :ivar kept: the timers of each keep-alive that was sent.
    :ivar drops: whether commands wait here for a node, and are not made if they are cancelled. They fail in the end.
    :ivar is_closed: whether it has closed its client.
    :ivar lagging: nodes that lag: each answers one of the next local reads, the last one first.
    :ivar reads: the consistency of each read.
    :ivar failures: with what the next commands fail before a node has them, the last one first.
    :ivar answers: how many answers were sent to it, but for those of keep-alives.
    :ivar answer_seconds: how long the answer of a keep-alive is on its way.
    """

    def __init__(self, harness: ServicesHarness | None = None) -> None:
        self.harness = harness or ServicesHarness(*COORDINATION)
        self.clock: Any = Clock()
        self.is_slow = self.is_cut_off = self.drops = self.is_closed = False
        self.unheard: set[str] = set()
        self.kept: list[list[str]] = []
        self.lagging: list[ServicesHarness] = []
        self.reads: list[Consistency] = []
        self.failures: list[Exception] = []
        self.answer_seconds = 0.0
        self.answers = 0
        self._steps = 0
        self.on_the_way: list[Callable[[], None]] = []
        client: Any = self
        self.recipes = Recipes(client, self.clock)

    def advance(self, seconds: float) -> None:
        """Let time pass, here and at the node, in small steps."""
        for _ in range(round(seconds / STEP_SECONDS)):
            self._steps += 1
            self.harness.advance(STEP_SECONDS)
            self.clock.rightNow = self._steps * STEP_SECONDS  # Not the sum, which is not exact.
            self.clock.advance(0)

    def go_on(self, rng: Random) -> None:
        """Let one request or answer go on."""
        if self.on_the_way:
            self.on_the_way.pop(rng.randrange(len(self.on_the_way)))()

    # as a client

    def service(
        self,
        kind: type[S],
        name: str | None = None,
        *,
        deadline_seconds: float | None = None,
        consistency: Consistency = "linearizable",
    ) -> Remote[S]:
        return remote_service(self, kind, name, deadline_seconds, consistency)

    def submit(self, command: bytes, deadline_seconds: float | None = None, /) -> Deferred[Any]:
        if self.failures:
            return fail(self.failures.pop())
        if self.drops:
            never: Deferred[Any] = Deferred()
            self.clock.callLater(1.0, _fire, never, Failure(NotChosen("there is no leader")))
            return never
        return self._carried(lambda: self.harness.submit(command))

    def read(
        self, query: bytes, consistency: Consistency = "linearizable", deadline_seconds: float | None = None, /
    ) -> Deferred[Reading]:
        self.reads.append(consistency)
        node = self.lagging.pop() if self.lagging and consistency == "local" else self.harness
        return self._carried(lambda: node.read(query))

    def keep_alive(
        self,
        names: Iterable[str],
        deadline_seconds: float | None = None,
        told: Callable[[str, bool], object] | None = None,
    ) -> Deferred[dict[str, bool]]:
        names = list(names)
        self.kept.append(names)
        heard = [] if self.is_cut_off else [name for name in names if name not in self.unheard]
        self.harness.keep_alive(*heard)
        kept = {name: self.harness.timers.kept_alive(name) is not None for name in heard}

        def answered() -> dict[str, bool]:
            if told is not None:
                for name in heard:
                    told(name, kept[name])
            return kept

        if heard == names:
            return deferLater(self.clock, self.answer_seconds, answered) if self.answer_seconds else succeed(answered())
        answered()
        answer: Deferred[dict[str, bool]] = Deferred(lambda _: deadline.cancel())
        assert deadline_seconds is not None
        deadline = self.clock.callLater(deadline_seconds, lambda: answer.errback(NoQuorum("none answered")))
        return answer

    def _carried(self, make: Callable[[], Deferred[Any]]) -> Deferred[Any]:
        """Carry a request to the node, and its answer back. It is made there even if the caller does not wait."""
        answer: Deferred[Any] = Deferred(lambda _: None)

        def arrived() -> None:
            make().addBoth(answered)

        def answered(result: Any) -> None:
            self.answers += 1
            self._later(lambda: _fire(answer, result))

        self._later(arrived)
        return answer

    def _later(self, step: Callable[[], None]) -> None:
        if self.is_slow:
            self.on_the_way.append(step)
        else:
            step()


def _fire(answer: Deferred[Any], result: Any) -> None:
    if answer.called:  # It was cancelled.
        return
    if isinstance(result, Failure):
        answer.errback(result)
    else:
        answer.callback(result)


def result_of(deferred: Deferred[Any]) -> Any:
    """What a Deferred has fired with, or its failure's error; ``None`` if it has not."""
    found: list[Any] = []
    deferred.addBoth(found.append)
    result = found[0] if found else None
    return result.value if isinstance(result, Failure) else result
