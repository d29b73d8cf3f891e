"""Keep-alives of a client: each has a number, and counts only if the log has that very number.

The numbers of one client rise. They begin at a number of chance, so that two clients never have the same one: a number
of this client in the log shows that the keep-alive of this client was heard. Two clients may keep one timer alive, or a
client that was started anew goes on with what its predecessor kept alive. Then a higher number may be in the log. That
says nothing of this client's keep-alive, so it is sent once more with a number that is higher still. From then on that
timer has numbers of its own: whatever another client does to one timer, the others are kept alive as before.

Timers for which one keep-alive has counted together are not named again. The next one has the number of that one, and
how many timers it was. If it counts for as many, it was these: only this client's own keep-alive makes a timer one of
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from txpaxos.client.dispatcher import Dispatcher
from txpaxos.errors import NoQuorum, NotChosen
from txpaxos.wire.client_messages import KeepTimers, KeepTogether, TimersKept
from txpaxos.wire.stamps import NUMBER_MAX

FIRST_BITS = 60
"""The first number of a client is below 2**60, by chance."""

STEP_BITS = 40
"""How far, by chance, a client goes beyond a higher number of another one: up to 2**40."""

PATIENCE = 0.1
"""The part of the shortest period of timers for which a node may be silent while nothing but keep-alives wait. Nodes
collect keep-alives for a twentieth: a follower, and then the leader."""

TOGETHER_MAX = 1024
"""How many lists of timers are known to be together at the nodes."""

OWN_MAX = 10_000
"""How many timers may have numbers of their own."""


class KeepAliveNumbers:
    """The numbers of one client: those of most timers, and those of each timer that another client has kept alive, too.

    :param rng: the source of chance.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._of_most = Numbers(rng)
        self._own: dict[str, Numbers] = {}
        self._shortest_ms = 0
        self._together: dict[tuple[str, ...], int] = {}

    @property
    def patience_seconds(self) -> float:
        """How long nodes may let a keep-alive wait for others: they share a slot of the log."""
        return PATIENCE * self._shortest_ms / 1000

    def learn_period(self, period_ms: int) -> None:
        """A node has told the shortest period of some timers; 0 if it has told none."""
        if period_ms:
            self._shortest_ms = min(period_ms, self._shortest_ms or period_ms)

    def together(self, names: tuple[str, ...]) -> int | None:
        """The number of the keep-alive that counted last for all of the timers ``names``, and for no other one;
        ``None`` if there is none."""
        return self._together.get(names)

    def note_together(self, names: tuple[str, ...], number: int | None) -> None:
        """The keep-alive ``number`` has counted for all of the timers ``names``; ``None`` if none has."""
        before = self._together.pop(names, 0)
        if number is not None:
            self._together[names] = max(number, before)
            if len(self._together) > TOGETHER_MAX:
                del self._together[next(iter(self._together))]

    def by_numbers(self, names: Iterable[str]) -> dict[Numbers, list[str]]:
        """The timers ``names``, by the numbers that they have."""
        sorted_out: dict[Numbers, list[str]] = {}
        for name in names:
            sorted_out.setdefault(self._own.get(name, self._of_most), []).append(name)
        return sorted_out

    def overtake(self, name: str, confirmed: int) -> None:
        """The log has a number of another client for the timer ``name``: go on above it."""
        own = self._own.get(name)
        if own is None:
            own = self._own[name] = self._of_most.copy()
            # No two keep-alives of this client have the same number: timers with one number count as one.
            confirmed = max(confirmed, own.last + 1)
        own.overtake(confirmed)
        if len(self._own) > OWN_MAX:
            # That timer has the numbers of most again. One that it had before must confirm nothing that is sent later.
            self._of_most.overtake(self._own.pop(next(iter(self._own))).last)


class Numbers:
    """Numbers that rise, all of which one client has had.

    :param rng: the source of chance.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        # This client has had all numbers from the first one to the last one, and no other client has had any of them.
        self._first, self._last = 1, 0

    def next(self) -> int:
        """The number for the next keep-alive.

        :raises NotChosen: if another client has used up the numbers."""
        if not self._last:
            self._first = 1 + self._rng.getrandbits(FIRST_BITS)
            self._last = self._first - 1
        if self._last >= NUMBER_MAX:
            raise NotChosen("another client has kept a timer alive with the highest number that there is")
        self._last += 1
        return self._last

    def confirms(self, confirmed: int, sent: int) -> bool:
        """Whether the number ``confirmed`` in the log shows that the keep-alive ``sent``, or a later one of this
        client, was heard."""
        return max(sent, self._first) <= confirmed <= self._last

    def overtake(self, confirmed: int) -> None:
        """The log has a number of another client: go on above it."""
        if confirmed > self._last:
            self._first = confirmed + 1 + self._rng.getrandbits(STEP_BITS)
            self._last = self._first - 1

    def copy(self) -> Numbers:
        """Numbers that go on where these do."""
        copied = Numbers(self._rng)
        copied._first, copied._last = self._first, self._last
        return copied

    @property
    def last(self) -> int:
        """The last number that was had."""
        return self._last


def keep_alive(
    dispatcher: Dispatcher,
    numbers: KeepAliveNumbers,
    seconds: Callable[[], float],
    names: Sequence[str],
    deadline_seconds: float | None,
    told: Callable[[str, bool], object] | None,
) -> Deferred[dict[str, bool]]:
    """Keep the timers ``names`` alive. See :meth:`Client.keep_alive <txpaxos.Client.keep_alive>`.

    Those with numbers of their own go in messages of their own, all at once: no timer waits for another one.

    :param seconds: monotonic seconds, by which the deadline goes.
    """
    ends_at = None if deadline_seconds is None else seconds() + deadline_seconds
    is_alive: dict[str, bool] = {}

    async def send(own: Numbers, left: list[str]) -> None:
        left_seconds = None if ends_at is None else ends_at - seconds()
        if left_seconds is not None and left_seconds <= 0:
            raise NoQuorum("other clients keep the same timers alive, and no keep-alive of this one counted in time")
        number, named, size_bytes = own.next(), tuple(left), sum(map(len, left))
        before = numbers.together(named)
        message = _message(number, named, before)
        patience = numbers.patience_seconds
        answer: TimersKept = await dispatcher.ask_node(message, size_bytes, left_seconds, patience_seconds=patience)
        numbers.learn_period(answer.period_ms)
        known, again = _note_answer(answer.numbers, numbers, own, number, named, before)
        for name, is_it in known.items():
            is_alive[name] = is_it
            if told is not None:
                told(name, is_it)
        await send_all(again)

    async def send_all(timers: Iterable[str]) -> None:
        sending = [Deferred.fromCoroutine(send(own, left)) for own, left in numbers.by_numbers(timers).items()]
        results: list[tuple[bool, Any]] = await DeferredList(sending, consumeErrors=True)
        for has_succeeded, result in results:
            if not has_succeeded:  # The others were kept alive all the same.
                result.raiseException()

    async def send_each_once() -> dict[str, bool]:
        await send_all(dict.fromkeys(names))
        return is_alive

    return Deferred.fromCoroutine(send_each_once())


def _note_answer(
    answer: Sequence[int | None],
    numbers: KeepAliveNumbers,
    own: Numbers,
    number: int,
    names: tuple[str, ...],
    before: int | None,
) -> tuple[dict[str, bool], Sequence[str]]:
    """Note what ``answer`` says of the keep-alive ``number`` of the timers ``names``.

    :returns: whether they are alive, of those of which that is known; and those that are to be kept alive again.
    """
    counted_for_all = answer == (number,) * (len(names) if before is None else 1)
    numbers.note_together(names, number if counted_for_all and len(names) > 1 else None)
    if counted_for_all:
        return dict.fromkeys(names, True), ()
    if before is not None:  # They are not together any more. Which of them is alive?
        return {}, names
    known, again = {}, []
    for name, confirmed in zip(names, answer, strict=False):
        if confirmed is None or own.confirms(confirmed, number):
            known[name] = confirmed is not None
        else:
            numbers.overtake(name, confirmed)
            again.append(name)
    return known, again


def _message(number: int, names: tuple[str, ...], before: int | None) -> Callable[[int], KeepTimers | KeepTogether]:
    if before is None:
        return lambda request: KeepTimers(request, number, names)
    return lambda request: KeepTogether(request, before, number, len(names))
