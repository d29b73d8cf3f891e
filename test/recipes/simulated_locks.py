"""Programs that contend for a lock in a simulated cluster, are stopped at the worst moments, and write all the same."""

from __future__ import annotations

from collections.abc import Collection
from random import Random
from typing import Any, cast

from twisted.application.service import Service as TwistedService
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from txpaxos import Client, PaxosError, ServiceError, encode_call
from txpaxos.clock import monotonic_clock
from txpaxos.recipes import Fence, Fenced, Hold, LeaderService, Recipes
from txpaxos.recipes.replicated.permits import Permits
from txpaxos.recipes.replicated.sessions import Sessions
from txpaxos.service.application import ServiceApplication, application_of
from txpaxos.service.declaration import Service, command, state
from txpaxos.testing.simulator.cluster import SimulatedCluster
from txpaxos.testing.simulator.network import SimulatedReactor
from txpaxos.testing.simulator.schedule import KINDS, draw, plan

TTL_SECONDS = 1.0
PAUSE_SECONDS = 3 * TTL_SECONDS
PAUSE_CHANCE = 0.03


class Ledger(Service):
    """Writes in the same cluster, which ask the state itself."""

    tokens: list[int] = state(list)

    @command(raises=Fenced)
    def write(self, token: int) -> None:
        self.sibling(Permits).check_fence("lock", token)
        self.tokens.append(token)


Application = application_of(Sessions, Permits, Ledger)


class Storage:
    """What the lock protects, outside of the cluster.

    :ivar written: the tokens of all writes in their order, without a fence.
    :ivar fenced: those of the writes that a fence lets through.
    """

    def __init__(self) -> None:
        self.fence = Fence()
        self.written: list[int] = []
        self.fenced: list[int] = []

    def write(self, token: int) -> None:
        self.written.append(token)
        try:
            self.fence.check(token)
        except Fenced:
            return
        self.fenced.append(token)


class Writer:
    """A program that writes to the storage and to the ledger while it thinks that it holds the lock."""

    def __init__(self, run: LockRun, index: int) -> None:
        self.run = run
        self.rng = Random(f"writer {index} {run.cluster.seed}")
        self.reactor = SimulatedReactor(run.cluster.network, f"writer-{index}")
        client = run.client(self.reactor)
        self.clock = monotonic_clock(self.reactor)
        self.recipes = Recipes(client, self.reactor)
        self.ledger = client.service(Ledger)
        self.is_over = False
        self.working = Deferred.fromCoroutine(self.work())

    async def work(self) -> None:
        while not self.is_over:
            try:
                async with await self.recipes.session(TTL_SECONDS) as session:
                    while session.state == "held" and not self.is_over:
                        await self.hold(await session.lock("lock", timeout_seconds=10.0).acquire())
            except (PaxosError, ServiceError) as error:
                self.run.count(type(error).__name__)

    async def hold(self, hold: Hold) -> None:
        self.run.count("holds")
        for _ in range(self.rng.randrange(1, 10)):
            await self.sleep(self.rng.random() * 0.1)
            if not hold.still_held():
                break
            self.run.check_that_none_came_after(hold)
            if self.rng.random() < PAUSE_CHANCE:
                self.reactor.pause(PAUSE_SECONDS)  # Between the check and the act.
                await self.sleep(0)
                self.run.count("pauses")
            self.run.storage.write(hold.token)
            self.ledger.write(hold.token).addErrback(_refused)
        if hold.still_held():
            await hold.release()

    async def sleep(self, seconds: float) -> None:
        await deferLater(self.clock, seconds)


def _refused(failure: Failure) -> None:
    failure.trap(Fenced, PaxosError)


class Child(TwistedService):
    def __init__(self, run: LockRun, lead: Hold) -> None:
        self.run = run
        self.lead = lead

    def startService(self) -> None:
        super().startService()
        assert self.run.child is None, "two children at one time"
        assert self.lead.token > self.run.last_term
        self.run.child, self.run.last_term = self, self.lead.token
        self.run.count("terms")

    def stopService(self) -> None:
        super().stopService()
        assert self.run.child is self
        self.run.child = None


class LockRun:
    """One seed.

    :param kinds: the faults that nodes may have.
    :ivar counts: how often something has happened.
    :ivar child: the child of a leader service that runs.
    """

    def __init__(
        self, seed: int, seconds: float, writers: int = 3, leaders: int = 2, kinds: Collection[str] = KINDS
    ) -> None:
        workload = encode_call(Sessions, Sessions.close, "none")
        self.cluster = SimulatedCluster(
            seed, 3, Application, lambda rng: workload, clients=1, askers=0, callers=0, readers=0, sessions_max=64
        )
        self.counts: dict[str, int] = {}
        self.storage = Storage()
        self.child: Child | None = None
        self.last_term = 0
        # Clocks whose rates differ by more than a percent are not promised anything.
        faults = draw(seed, self.cluster.all_machines, seconds)
        plan(self.cluster, [fault for fault in faults if fault.kind in kinds and fault.kind != "clock drift"])
        self.writers = [Writer(self, index) for index in range(3)]
        self.leaders = [self.leader(index) for index in range(2)]
        self.cluster.run(seconds)
        self.finish()

    def leader(self, index: int) -> LeaderService:
        reactor = SimulatedReactor(self.cluster.network, f"leader-{index}")
        recipes = Recipes(self.client(reactor), reactor)
        service = LeaderService(recipes, "job", lambda lead: Child(self, lead), ttl_seconds=TTL_SECONDS)
        service.startService()
        return service

    def client(self, reactor: SimulatedReactor) -> Client:
        rng, sending = self.cluster.fork_rng(), self.cluster.checker.submitting
        return Client(reactor, self.cluster.configuration, rng=rng, sending=sending)

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def check_that_none_came_after(self, hold: Hold) -> None:
        """While a program may say that it holds, no node has granted the lock to another."""
        for name, permits in self.states(Permits).items():
            holder = permits.holder("lock")
            assert holder is None or holder.token <= hold.token, f"{name} has granted {holder}, after {hold.token}"

    def states(self, kind: type[Any]) -> dict[str, Any]:
        """The state of a service on all nodes that are heard by the others."""
        hosts = {name: one for name, one in self.cluster.hosts.items() if not (one.folder_lost or one.disk_lost)}
        nodes = {name: one.node for name, one in hosts.items() if one.alive and one.node is not None}
        return {name: cast("ServiceApplication", node.application).state_of(kind) for name, node in nodes.items()}

    def finish(self) -> None:
        """End all, and see that nothing is left."""
        for writer in self.writers:
            writer.is_over = True
        stopped = [leader.stopService() for leader in self.leaders]
        self.cluster.heal()
        self.cluster.run(8.0)
        self.cluster.wait_until_converged()
        self.cluster.run(4 * TTL_SECONDS)  # A cluster that came back late gives sessions a grace.
        assert all(writer.working.called for writer in self.writers)
        assert all(one.called for one in stopped)
        for permits in self.states(Permits).values():
            assert (permits.permits, permits.requests, permits.holders) == ({}, {}, {})
        (self.tokens,) = {tuple(ledger.tokens) for ledger in self.states(Ledger).values()}
