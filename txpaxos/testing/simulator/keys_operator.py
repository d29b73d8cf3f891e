"""The operator who looks after the keys of a simulated cluster: certificates are renewed and revoked, the authority is
replaced, and nodes read their folders again.

A change is made in steps. Each begins when all nodes that run have read what the step before has put into their
folders. Nodes that do not run read it when they start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from twisted.internet.protocol import ClientFactory, Protocol

from txpaxos.core.messages import NodeId
from txpaxos.keys.factories import Newest
from txpaxos.keys.folder import Keys
from txpaxos.testing.simulator.environment import Environment
from txpaxos.testing.simulator.host import Host
from txpaxos.testing.simulator.keys import ClusterKeys
from txpaxos.testing.simulator.network import SimulatedReactor
from txpaxos.wire.codec import Codec
from txpaxos.wire.frames import frame
from txpaxos.wire.peer_messages import Hello

RELOAD_SECONDS = 0.1
"""The mean time until a node has read its folder again."""

WAIT_SECONDS = 0.1
"""The time after which the operator looks again whether all nodes have read what is new."""


PLANNED_MAX = 8
"""With more steps than this ahead, the operator plans nothing more: all must be done soon after the last fault."""


class KeysOperator:
    """Issues, replaces and revokes the keys of all nodes.

    :param hosts: the hosts of the cluster, by machine. Hosts come and go.
    """

    def __init__(self, cluster: Environment, keys: ClusterKeys, hosts: dict[str, Host]) -> None:
        self._cluster = cluster
        self._keys = keys
        self._hosts = hosts
        self._rng = Random(f"operator of keys {cluster.seed}")
        self._steps: deque[Callable[[], None]] = deque()
        self._impostors = 0

    @property
    def is_settled(self) -> bool:
        """Whether every node that runs has read what is in its folder, and nothing more is planned."""
        return not self._steps and all(self._keys.has_read(reactor) for _, reactor in self._processes())

    # what the operator does

    def renew(self, node: NodeId) -> None:
        """Issue a new certificate for ``node``, and have it read."""
        self._plan(partial(self._change, partial(self._keys.issue, node), [node]))

    def reload(self, node: NodeId) -> None:
        """Have ``node`` read its folder, in which nothing is new."""
        self._have_read([node])

    def rotate(self) -> None:
        """Replace the authority, and the certificates of all nodes."""
        new = self._keys.new_authority()
        self._plan(
            partial(self._change, partial(self._keys.believed.append, new)),
            partial(self._change, partial(self._keys.issue_all, new)),
            partial(self._change, self._believe_only_the_newest),
        )

    def revoke(self, node: NodeId) -> None:
        """Issue a new certificate for ``node``, and revoke the one before. A thief has that, and tries to be heard: at
        first in the name of another node, and when it is revoked in that of its owner."""
        stolen = self._keys.folder_of(node)
        others = [other for other, _ in self._processes() if other != node]
        self._plan(
            *(partial(self._let_a_thief_try, other, stolen) for other in others[:1]),
            partial(self._change, partial(self._keys.issue, node), [node]),
            partial(self._change, partial(self._keys.revoke, stolen.chain[0])),
            partial(self._let_a_thief_try, node, stolen),
        )

    # the steps

    def _believe_only_the_newest(self) -> None:
        self._keys.believed[:] = [self._keys.authority]

    def _let_a_thief_try(self, node: NodeId, stolen: Keys) -> None:
        """Try stolen keys at each node that runs, with all that ``node`` would say."""
        owners = [host.node for host in self._hosts.values() if host.name == node and host.node is not None]
        incarnation = owners[0]._store.incarnation if owners else 0
        for host in self._hosts.values():
            if host.alive and host.name != node:
                self._impostors += 1
                self._cluster.counts["thieves"] += 1
                machine = f"thief {self._impostors}"
                reactor = SimulatedReactor(self._cluster.network, machine)
                tls = self._keys.tls_of(machine, reactor)
                codec = Codec(self._cluster.configuration.name, node, incarnation, self._cluster.names)
                thief = _Thief(self._cluster, host.name, frame(codec.encode(Hello())))
                factory = tls.factory(Newest(tls.dialling(stolen, "")), True, thief, reactor)
                reactor.connectTCP(host.machine, host.peer_port, factory)

    # inside

    def _plan(self, *steps: Callable[[], None]) -> None:
        """Plan steps, unless too much is planned already."""
        if len(self._steps) > PLANNED_MAX:
            return
        self._steps.extend(steps)
        if len(self._steps) == len(steps):
            self._go_on()

    def _go_on(self) -> None:
        """Take the next step, if all nodes that run have read what is in their folders."""
        if self._steps and all(self._keys.has_read(reactor) for _, reactor in self._processes()):
            self._steps.popleft()()
        if self._steps:
            self._cluster.time.after(WAIT_SECONDS, self._go_on)

    def _change(self, change: Callable[[], None], nodes: Sequence[NodeId] | None = None) -> None:
        """Change what is in the folders of ``nodes``, or of all, and have it read."""
        change()
        changed = [node for node, _ in self._processes()] if nodes is None else nodes
        self._keys.changed(changed, self._processes())
        self._have_read(changed)

    def _processes(self) -> list[tuple[NodeId, SimulatedReactor]]:
        """The nodes that run, and the processes in which they do."""
        hosts = [host for host in self._hosts.values() if host.alive and host.node is not None]
        return [(host.name, host.reactor) for host in hosts if host.reactor is not None]

    def _have_read(self, nodes: Sequence[NodeId]) -> None:
        for host in self._hosts.values():
            if host.reactor is not None and host.name in nodes:
                seconds = self._rng.expovariate(1.0) * RELOAD_SECONDS
                self._cluster.time.after(seconds, host.reactor.run, self._reload, host, host.reactor)

    def _reload(self, host: Host, reactor: SimulatedReactor) -> None:
        if host.reactor is reactor and host.node is not None:
            host.node.use_keys(self._keys.read(host.name, reactor))


class _Thief(ClientFactory):
    """Dials a node with stolen keys, and speaks as their owner. Nothing may come back.

    :param says: what it says.
    """

    noisy = False

    def __init__(self, cluster: Environment, victim: NodeId, says: bytes) -> None:
        self.cluster = cluster
        self.victim = victim
        self.says = says

    def buildProtocol(self, addr: object) -> Protocol:
        """The thief's side of the connection."""
        return _ThiefConnection(self)


class _ThiefConnection(Protocol):
    def __init__(self, thief: _Thief) -> None:
        self._thief = thief

    def connectionMade(self) -> None:
        """Say Hello."""
        assert self.transport is not None
        self.transport.write(self._thief.says)

    def dataReceived(self, data: bytes) -> None:
        """The node has answered, so it believes the thief."""
        self._thief.cluster.break_rule("a thief is not heard", f"{self._thief.victim} answers a thief")
