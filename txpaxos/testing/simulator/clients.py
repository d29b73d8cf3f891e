"""Clients of a simulated cluster. Some submit commands, as clients or on a node; others read or ask about subjects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from twisted.python.failure import Failure

from txpaxos.client import Client
from txpaxos.core.messages import NodeId
from txpaxos.errors import (
    CommandFailed,
    NodeStopped,
    NoQuorum,
    OutcomeUnknown,
    Overloaded,
    QueryFailed,
    SessionExpired,
)
from txpaxos.reading import Consistency
from txpaxos.testing.checkers.checker import Violation
from txpaxos.testing.simulator.environment import Environment
from txpaxos.testing.simulator.host import Host
from txpaxos.testing.simulator.network import SimulatedReactor
from txpaxos.wire.commands import Run

FORGET_CHANCE = 0.05
"""How often an asker has a register forgotten instead."""

SUBJECTS_A_SECOND = 8.0
"""How many new subjects there are per second. All askers choose among the same few subjects, so that they compete."""

CALLERS_THINK_SECONDS = 0.2

READ_SECONDS_MAX = 0.5
"""The deadline of a read. The node that it goes to may be down."""

BIG_VALUE_BYTES = 2000
"""Too large for a datagram."""


class SimulatedClient:
    """A client on a host of its own that never crashes. It submits commands, a few at a time.

    :ivar waiting: how many commands are not answered yet.
    """

    def __init__(self, cluster: Environment, index: int, workload: Callable[[Random], bytes]) -> None:
        self.name = f"client-{index}"
        self.waiting = 0
        self.answered = 0
        self._cluster = cluster
        self._workload = workload
        self._rng = cluster.fork_rng()
        self._outstanding_max = self._rng.choice((1, 1, 4, 16))
        self._think_seconds = self._rng.choice((0.003, 0.02, 0.1))
        self._stopped = False
        self.reactor = SimulatedReactor(cluster.network, self.name)
        self._client = Client(self.reactor, cluster.configuration, rng=self._rng, sending=self._sending)
        self._sessions: dict[int, bytes] = {}
        self.reactor.callLater(self._rng.random(), self._submit)

    def stop(self) -> None:
        """Submit no more commands, and keep waiting for answers."""
        self._stopped = True

    def request(self) -> None:
        """Submit one command."""
        self.waiting += 1
        payload = self._workload(self._rng)
        sequence = self._client.next_sequence
        self._client.submit(payload).addBoth(self._answered, sequence)

    def _submit(self) -> None:
        if self._stopped:
            return
        for _ in range(max(1, self._outstanding_max // 2)):  # Within one reactor iteration: they form one run.
            if self.waiting < self._outstanding_max:
                self.request()
        self.reactor.callLater(self._rng.expovariate(1.0) * self._think_seconds, self._submit)

    def _sending(self, run: Run) -> None:
        self._sessions.update(dict.fromkeys(run.sequences, run.session))
        self._cluster.checker.submitting(run)

    def _answered(self, result: Any, sequence: int) -> None:
        self.waiting -= 1
        self.answered += 1
        session = self._sessions.pop(sequence, None)
        if not isinstance(result, Failure) or result.check(CommandFailed):
            assert session is not None, sequence
            answer = str(result.value) if isinstance(result, Failure) else result
            self._cluster.checker.acknowledged(session, sequence, answer)
        elif result.check(Overloaded, OutcomeUnknown):  # Unknown, if one node accepted it and another refused it.
            self._cluster.counts[f"answered {type(result.value).__name__}"] += 1
        elif result.check(SessionExpired) and session is not None:
            self._cluster.counts["answered SessionExpired"] += 1
            self._cluster.checker.expired(session)
        else:
            self._cluster.violation = Violation("honest answers", result.getTraceback())


class SimulatedCaller:
    """The application on the nodes, which submits commands of its own: at a random node, a few at a time.

    Only the node itself answers them, so a command is lost with the process of its node.

    :ivar answered: how many commands were answered. Commands at a node that dies are not waited for.
    """

    def __init__(
        self, cluster: Environment, hosts: Mapping[NodeId, Host], index: int, workload: Callable[[Random], bytes]
    ) -> None:
        self.name = f"caller-{index}"
        self.reactor: SimulatedReactor | None = None  # It runs in the reactors of the nodes.
        self.answered = 0
        self._cluster = cluster
        self._hosts = hosts
        self._workload = workload
        self._rng = cluster.fork_rng()
        self._stopped = False
        self._asked: list[SimulatedReactor] = []
        cluster.time.after(self._rng.random(), self._next)

    @property
    def waiting(self) -> int:
        """How many commands are not answered yet, at nodes that run, whose disks work, and that fetch no snapshot.

        A node that fetches one answers when it is level again. How long that may take, other rules say: a node may fall
        behind all that the others have kept of the log within one change, where the log between two snapshots is short.
        """
        hung = [host.reactor for host in self._hosts.values() if host.disk_hangs or host.fetches_snapshot]
        return sum(reactor.alive and reactor not in hung for reactor in self._asked)

    def stop(self) -> None:
        """Submit no more commands, and keep waiting for answers."""
        self._stopped = True

    def request(self) -> None:
        """Submit a few commands in one reactor iteration, at one of the nodes that run."""
        cluster = self._cluster
        faulty_node = [
            host
            for host in self._hosts.values()
            if host.disk_hangs
            or host.folder_lost
            or host.name == cluster.faulty_node
            or not cluster.is_member(host.name)
        ]
        hosts = [host for host in self._hosts.values() if host.alive and host not in faulty_node]
        if not hosts:
            return
        host = self._rng.choice(hosts)
        reactor = host.reactor
        assert reactor is not None, host.name
        count = self._rng.choice((1, 1, 3))
        self._asked += [reactor] * count
        reactor.run(self._submit, host, reactor, count)

    def _submit(self, host: Host, reactor: SimulatedReactor, count: int) -> None:
        assert host.node is not None, host.name
        for _ in range(count):
            host.node.submit(self._workload(self._rng)).addBoth(self._answer, reactor)

    def _next(self) -> None:
        if self._stopped:
            return
        if not self.waiting:
            self.request()
        self._cluster.time.after(self._rng.expovariate(1.0) * CALLERS_THINK_SECONDS, self._next)

    def _answer(self, result: Any, reactor: SimulatedReactor) -> None:
        self._asked.remove(reactor)
        self.answered += 1
        if isinstance(result, Failure) and not result.check(CommandFailed, NodeStopped, Overloaded, SessionExpired):
            self._cluster.violation = Violation("honest answers", result.getTraceback())


class SimulatedAsker:
    """A client on a host of its own that never crashes. It proposes values for registers, reads them, and now and then
    has one forgotten, one at a time.

    It knows all nodes and stays with the first node that answers.

    :ivar waiting: how many questions are not answered yet.
    """

    def __init__(self, cluster: Environment, index: int) -> None:
        self.name = f"asker-{index}"
        self.waiting = 0
        self.answered = 0
        self._cluster = cluster
        self._rng = cluster.fork_rng()
        self._think_seconds = self._rng.choice((0.01, 0.1))
        self._stopped = False
        self.reactor = SimulatedReactor(cluster.network, self.name)
        self._client = Client(self.reactor, cluster.client_configuration, list(cluster.all_machines), self._rng)
        self.reactor.callLater(self._rng.random(), self._next)

    def stop(self) -> None:
        """Ask no more questions, and keep waiting for the answer."""
        self._stopped = True

    def request(self) -> None:
        """Ask one question."""
        rng = self._rng
        newest = int(self._cluster.time.now * SUBJECTS_A_SECOND)
        subject = f"subject {max(0, newest - rng.choice((0, 0, 0, 1, 5)))}"
        value = None
        if rng.random() < FORGET_CHANCE:
            self.waiting += 1
            known = self._cluster.checker.asking(subject, None)
            self._client.forget(subject).addBoth(self._forgotten, subject, known)
            return
        if rng.random() < 0.6:
            value = b"%s at %d" % (self.name.encode(), self._cluster.time.events)
            chance = rng.random()
            if chance < 0.1:
                value = value.ljust(BIG_VALUE_BYTES)
            elif chance < 0.4:
                value = b""
        self.waiting += 1
        known = self._cluster.checker.asking(subject, value)
        self._client.ask(subject, value).addBoth(self._answer, subject, value, known)

    def _next(self) -> None:
        if self._stopped:
            return
        if not self.waiting:
            self.request()
        self.reactor.callLater(self._rng.expovariate(1.0) * self._think_seconds, self._next)

    def _forgotten(self, result: Any, subject: str, known: int) -> None:
        self.waiting -= 1
        self.answered += 1
        if not isinstance(result, Failure):
            self._cluster.checker.forgot(subject, known, result)
        elif not result.check(SessionExpired):
            self._cluster.violation = Violation("honest answers", result.getTraceback())

    def _answer(self, result: Any, subject: str, value: bytes | None, known: int) -> None:
        self.waiting -= 1
        self.answered += 1
        if isinstance(result, Failure):
            self._cluster.violation = Violation("honest answers", result.getTraceback())
        else:
            self._cluster.checker.asked(subject, value, known, result)


class SimulatedReader:
    """A client on a host of its own that never crashes. It reads at one node after the other, one query at a time.

    :param make_query: makes its queries. Without it queries are empty, and an application may refuse an empty query.
    """

    def __init__(
        self,
        cluster: Environment,
        hosts: Mapping[NodeId, Host],
        index: int,
        make_query: Callable[[Random], bytes] | None = None,
    ) -> None:
        self.name = f"reader-{index}"
        self.answered = 0
        self._cluster = cluster
        self._hosts = hosts
        self._make_query = make_query
        self._rng = cluster.fork_rng()
        self._asked: Counter[str] = Counter()  # By the machine that alone is asked; empty for any.
        self._think_seconds = self._rng.choice((0.005, 0.05))
        self._stopped = False
        self.reactor = SimulatedReactor(cluster.network, self.name)
        # A client that knows a single node reads there, whether or not it leads. The first client knows all nodes.
        nodes = {"": list(cluster.all_machines), **{name: [name] for name in cluster.all_machines}}
        self._clients = {
            machine: Client(self.reactor, cluster.client_configuration, names, cluster.fork_rng())
            for machine, names in nodes.items()
        }
        self.reactor.callLater(self._rng.random(), self._next)

    @property
    def waiting(self) -> int:
        """How many queries are not answered yet, at nodes that fetch no snapshot. (See :class:`SimulatedCaller`.)"""
        fetch = [machine for machine, host in self._hosts.items() if host.fetches_snapshot]
        return sum(count for machine, count in self._asked.items() if machine not in fetch)

    def stop(self) -> None:
        """Read no more, and keep waiting for the answer."""
        self._stopped = True

    def request(self) -> None:
        """Read at any node."""
        self._read("", "linearizable", None)

    def request_everywhere(self) -> None:
        """Read at each node that can be expected to answer."""
        for machine in self._cluster.all_machines:
            host = self._hosts.get(machine)
            if host is not None and not host.disk_lost and self._cluster.is_member(host.name):
                self._read(machine, "linearizable", None)

    def _next(self) -> None:
        if self._stopped:
            return
        if not self._asked.total():
            kind: Consistency = "local" if self._rng.random() < 0.1 else "linearizable"
            self._read(self._rng.choice(list(self._clients)), kind, READ_SECONDS_MAX)
        self.reactor.callLater(self._rng.expovariate(1.0) * self._think_seconds, self._next)

    def _read(self, machine: str, kind: Consistency, deadline_seconds: float | None) -> None:
        self._asked[machine] += 1
        known = self._cluster.checker.reading() if kind == "linearizable" else None
        query = b"" if self._make_query is None else self._make_query(self._rng)
        self._clients[machine].read(query, kind, deadline_seconds).addBoth(self._answer, machine, query, known)

    def _answer(self, result: Any, machine: str, query: bytes, known: int | None) -> None:
        self._asked[machine] -= 1
        self.answered += 1
        if not isinstance(result, Failure):
            self._cluster.checker.read(query, result.result, result.slot, known)
        elif result.check(QueryFailed) and self._make_query is None:
            self._cluster.counts["empty queries refused"] += 1
        elif not result.check(NoQuorum):
            self._cluster.violation = Violation("honest answers", result.getTraceback())
