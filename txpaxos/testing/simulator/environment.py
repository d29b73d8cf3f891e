"""What the hosts and clients of a simulated cluster share: time, network, random numbers and the checker."""

from __future__ import annotations

from collections import Counter, deque
from random import Random
from typing import Any

from txpaxos import cluster as configuration
from txpaxos.core.config import Timing
from txpaxos.core.messages import NodeId
from txpaxos.node.sessions import SESSIONS_MAX
from txpaxos.node.settings import Settings
from txpaxos.node.snapshots.taking import Policy
from txpaxos.node.snapshots.transfer import TransferLimits
from txpaxos.protocol import PaxosProtocol
from txpaxos.testing.checkers.checker import Checker, Violation
from txpaxos.testing.simulator.clock import SimulatedTime
from txpaxos.testing.simulator.network import SimulatedNetwork

PEER_PORT = 1
CLIENT_PORT = 2
TRACE_EVENTS = 200

TRANSFER_BYTES_PER_SECOND = (2**24, 2**24, 4000, 1000)
"""Low limits, so that in many runs a snapshot is still being sent when the next one is due."""

SNAPSHOT_LOG_BYTES = (1_000, 2_000, 5_000, 20_000, 2**40)
"""Bytes of log between two snapshots. Small values give many snapshots in a short run. The last value gives none."""

SESSIONS_REMEMBERED = (SESSIONS_MAX, SESSIONS_MAX, 4, 3)
"""Small values, so that sessions are forgotten while they are still in use."""


def _member(name: NodeId) -> configuration.Member:
    """The addresses of a node: it runs on a host with its own name."""
    return configuration.Member(configuration.Address(name, PEER_PORT), configuration.Address(name, CLIENT_PORT))


class Environment:
    """What all parts of one simulated cluster share.

    :param seed: decides everything that is random.
    :param nodes: how many nodes there are.
    :param snapshot_policy: when nodes take snapshots; drawn from the seed unless given.
    :param sessions_max: how many sessions a node keeps; drawn from the seed unless given.
    :param app: the application's class.
    :param transfer_limits: how fast snapshots are sent; drawn from the seed if ``snapshot_policy`` is drawn, too.
    :ivar faulty_node: the node that cannot be expected to answer now, if there is one.
    :ivar violation: the first broken rule that was found outside the checker.
    :ivar counts: how often each kind of event happened.
    :ivar trace: the last events, as (time, node, event). An event is a note, or (target, datagram).
    """

    def __init__(
        self,
        seed: int,
        nodes: int,
        timing: Timing | None,
        snapshot_policy: Policy | None,
        sessions_max: int | None,
        app: type[PaxosProtocol],
        transfer_limits: TransferLimits | None,
    ) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.time = SimulatedTime()
        self.network = SimulatedNetwork(self.time, Random(self.rng.random()))
        self.timing = timing or Timing()
        self.snapshot_policy = snapshot_policy or Policy(self.rng.choice(SNAPSHOT_LOG_BYTES))
        self.sessions_max = sessions_max or self.rng.choice(SESSIONS_REMEMBERED)
        # A generator of its own, so that the other random numbers of a seed stay the same.
        chance = Random(f"transfers {seed}")
        bytes_per_second = chance.choice(TRANSFER_BYTES_PER_SECOND)
        self.transfer_limits = transfer_limits
        if transfer_limits is None and snapshot_policy is None:
            self.transfer_limits = TransferLimits(bytes_per_second)
        self.settings = Settings(
            self.timing,
            snapshot_policy=self.snapshot_policy,
            transfer_limits=self.transfer_limits or TransferLimits(),
            sessions_max=self.sessions_max,
        )
        self.names = tuple(chr(ord("a") + index) for index in range(nodes))
        self.configuration = configuration.Cluster("simulated", {name: _member(name) for name in self.names})
        self.checker = Checker(self.names, self.snapshot_policy, self.sessions_max)
        self.violation: Violation | None = None
        self.faulty_node: NodeId | None = None
        self.counts: Counter[str] = Counter()
        self.trace: deque[tuple[float, str, Any]] = deque(maxlen=TRACE_EVENTS)
        self.app = app

    def fork_rng(self) -> Random:
        """A new random number generator, seeded from this one."""
        return Random(self.rng.random())

    def note(self, who: str, what: str) -> None:
        """Add an event to the trace."""
        self.trace.append((self.time.now, who, what))
