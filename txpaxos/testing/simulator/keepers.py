"""Clients of a simulated cluster that keep timers alive, and the timers in its application."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, cast

from twisted.python.failure import Failure

from txpaxos.client import Client
from txpaxos.core.messages import Slot
from txpaxos.errors import OutcomeUnknown, Overloaded
from txpaxos.protocol import PaxosProtocol
from txpaxos.testing.checkers.checker import Violation
from txpaxos.testing.simulator.environment import Environment
from txpaxos.testing.simulator.network import SimulatedReactor

KEEP = b"\0keep "
"""The beginning of a command that sets a kept-alive timer. The application is not given it."""

TIMER_PREFIX = "keeper "
"""The beginning of the names of such timers. The application is not told when they fire."""

PERIODS_SECONDS = (0.5, 1.0, 2.0, 4.0)

CADENCE = 0.4
"""How much of the period passes at most between two keep-alives."""

LEAVE_CHANCE = 0.05
"""How often a client lets its timers fire, and has others set."""

TWIN_PERIOD = 0.5
"""The period of the other one of two timers, as a part of that of the first one."""


def twins(name: str) -> tuple[tuple[str, float], tuple[str, float]]:
    """The names of two timers that are set and kept alive together, and their periods as parts of that of the first.
    The other one may end while the first one lives."""
    return (name, 1.0), (f"{name} twin", TWIN_PERIOD)


def with_kept_alive_timers(app: type[PaxosProtocol], fired: Callable[[Slot, str], object]) -> type[PaxosProtocol]:
    """A subclass of ``app`` that also sets the timers of :class:`SimulatedKeeper`.

    :param fired: called when one of them fires.
    """

    def apply(self: PaxosProtocol, slot: Slot, command: bytes) -> object:
        if not command.startswith(KEEP):
            return app.apply(self, slot, command)
        period_ms, name = command.removeprefix(KEEP).split(b" ", 1)
        for one, part in twins(name.decode()):
            self.timers.set(one, part * int(period_ms) / 1000, kept_alive=True)
        return True

    def timer_fired(self: PaxosProtocol, slot: Slot, name: str, payload: bytes) -> None:
        if name.startswith(TIMER_PREFIX):
            fired(slot, name)
        else:
            app.timer_fired(self, slot, name, payload)

    return cast(
        "type[PaxosProtocol]",
        type(app.__name__, (app,), cast("dict[str, Any]", {"apply": apply, "timer_fired": timer_fired})),
    )


class SimulatedKeeper:
    """A client on a host of its own that never crashes. It has two timers set and keeps them alive, two at a time.

    Every other one follows the leader. The others stay with the first node that answers, which may be a follower.

    :ivar waiting: how many calls are not answered yet.
    """

    def __init__(self, cluster: Environment, index: int) -> None:
        self.name = f"keeper-{index}"
        self.waiting = 0
        self.answered = 0
        self._cluster = cluster
        self._index = index
        self._count = 0
        self._stopped = False
        self._timer: str | None = None
        # A generator of its own, so that the other random numbers of a seed stay the same.
        rng = self._rng = Random(f"keeper {index} {cluster.seed}")
        self._period_seconds = rng.choice(PERIODS_SECONDS)
        self.reactor = SimulatedReactor(cluster.network, self.name)
        self._client = (
            Client(self.reactor, cluster.configuration, rng=rng, sending=cluster.checker.submitting)
            if index % 2 == 0
            else Client(
                *(self.reactor, cluster.client_configuration, list(cluster.all_machines)),
                *(rng, cluster.checker.submitting),
            )
        )
        self.reactor.callLater(rng.random(), self._next)

    def stop(self) -> None:
        """Keep nothing alive any more, and keep waiting for answers."""
        self._stopped = True

    def request(self) -> None:
        """Keep the timers alive, or have two set."""
        self.waiting += 1
        called_at = self._cluster.time.now
        if self._timer is None:
            self._count += 1
            name = f"{TIMER_PREFIX}{self._index} {self._count}"
            for one, part in twins(name):
                self._cluster.checker.timers.set(one, part * self._period_seconds)
            command = KEEP + b"%d %s" % (self._period_seconds * 1000, name.encode())
            self._client.submit(command).addBoth(self._set, name, called_at)
        else:
            self._client.keep_alive([one for one, _ in twins(self._timer)]).addBoth(self._kept, self._timer, called_at)

    def _next(self) -> None:
        if self._stopped:
            return
        if self._timer is not None and self._rng.random() < LEAVE_CHANCE:
            self._timer = None
        if self.waiting < 2:
            self.request()
        self.reactor.callLater(CADENCE * self._period_seconds * self._rng.uniform(0.3, 1.0), self._next)

    def _set(self, result: Any, name: str, called_at: float) -> None:
        self.waiting -= 1
        self.answered += 1
        if isinstance(result, Failure):
            if not result.check(Overloaded, OutcomeUnknown):
                self._cluster.violation = Violation("honest answers", result.getTraceback())
            return
        self._timer = name
        for one, _ in twins(name):
            self._require(self._cluster.checker.timers.confirmed(one, called_at), one)

    def _kept(self, result: Any, name: str, called_at: float) -> None:
        self.waiting -= 1
        self.answered += 1
        timers, counts = self._cluster.checker.timers, self._cluster.counts
        if isinstance(result, Failure):
            if not result.check(Overloaded):
                self._cluster.violation = Violation("honest answers", result.getTraceback())
            return
        for one, _ in twins(name):
            if result[one]:
                counts["timers kept alive"] += 1
                self._require(timers.confirmed(one, called_at), one)
                continue
            counts["timers found gone"] += 1
            self._require(timers.gone(one), one)
            if self._timer == name:
                self._timer = None

    def _require(self, wrong: str, name: str) -> None:
        if wrong:
            self._cluster.break_rule(wrong, name)
