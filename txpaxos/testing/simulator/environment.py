"""What the hosts and clients of a simulated cluster share: time, network, random numbers and the checker."""

from __future__ import annotations

from collections import Counter, deque
from random import Random
from typing import TYPE_CHECKING

from txpaxos import cluster as configuration
from txpaxos.core.config import Timing
from txpaxos.core.messages import NodeId
from txpaxos.node.sessions import SESSIONS_MAX
from txpaxos.node.settings import Settings
from txpaxos.node.snapshots.taking import Policy
from txpaxos.node.snapshots.transfer import TransferLimits
from txpaxos.protocol import PaxosProtocol
from txpaxos.recording.options import RecordingOptions
from txpaxos.testing.checkers.checker import Checker, Violation
from txpaxos.testing.checkers.keys import KeysChecker
from txpaxos.testing.simulator.clock import SimulatedTime
from txpaxos.testing.simulator.network import SimulatedNetwork
from txpaxos.testing.simulator.trace import TraceEvent
from txpaxos.wire.members import MembersEntry, base_name, founding_entry

if TYPE_CHECKING:
    from txpaxos.testing.simulator.keys import ClusterKeys

PEER_PORT = 1
CLIENT_PORT = 2
TRACE_EVENTS = 200

TRANSFER_BYTES_PER_SECOND = (2**24, 2**24, 4000, 1000)
"""Low limits, so that in many runs a snapshot is still being sent when the next one is due."""

SNAPSHOT_LOG_BYTES = (1_000, 2_000, 5_000, 20_000, 2**40)
"""Bytes of log between two snapshots. Small values give many snapshots in a short run. The last value gives none."""

SPARE_MACHINES = 4
"""How many machines there are for nodes that join, if members change."""

SESSIONS_REMEMBERED = (SESSIONS_MAX, SESSIONS_MAX, 4, 3)
"""Small values, so that sessions are forgotten while they are still in use."""


def machine_member(name: str, peer_port: int = PEER_PORT) -> configuration.Member:
    """The addresses of the node on the machine ``name``, which listens for other nodes at ``peer_port``."""
    return configuration.Member(configuration.Address(name, peer_port), configuration.Address(name, CLIENT_PORT))


class Environment:
    """What all parts of one simulated cluster share.

    :param seed: decides everything that is random.
    :param nodes: how many nodes there are.
    :param snapshot_policy: when nodes take snapshots; drawn from the seed unless given.
    :param sessions_max: how many sessions a node keeps; drawn from the seed unless given.
    :param app: the application's class.
    :param transfer_limits: how fast snapshots are sent; drawn from the seed if ``snapshot_policy`` is drawn, too.
    :param changes: whether members change. Then there are spare machines, too.
    :param keys: whether nodes have keys.
    :param record: where all that enters the cores of the nodes is recorded; nowhere unless given.
    :ivar keys: the keys of the nodes; ``None`` if they have none.
    :ivar names: the ids of the nodes that found the cluster.
    :ivar configuration: the cluster file of the founders.
    :ivar all_machines: the machines on which nodes may run, the spare ones last.
    :ivar client_configuration: the cluster file of clients. It has all machines.
    :ivar faulty_node: the node that cannot be expected to answer now, if there is one.
    :ivar violation: the first broken rule that was found outside the checker.
    :ivar counts: how often each kind of event happened.
    :ivar trace: the last events, as (time, node, event).
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
        changes: bool = False,
        keys: bool = False,
        record: RecordingOptions | None = None,
    ) -> None:
        self.seed = seed
        self.record = record
        self.changes = changes
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
        self.configuration = configuration.Cluster("simulated", {name: machine_member(name) for name in self.names})
        spares = [chr(ord("a") + nodes + index) for index in range(SPARE_MACHINES if changes else 0)]
        self.all_machines = (*self.names, *spares)
        self.client_configuration = configuration.Cluster(
            "simulated", {name: machine_member(name) for name in self.all_machines}
        )
        alpha = self.settings.limits.window_slots
        self.checker = Checker(self.names, self.snapshot_policy, self.sessions_max, alpha)
        self.keys = self._make_keys() if keys else None
        self.violation: Violation | None = None
        self.faulty_node: NodeId | None = None
        self.counts: Counter[str] = Counter()
        self.trace: deque[tuple[float, NodeId, TraceEvent]] = deque(maxlen=TRACE_EVENTS)
        self.app = app

    def _make_keys(self) -> ClusterKeys:
        from txpaxos.testing.simulator.keys import ClusterKeys

        return ClusterKeys(Random(f"keys {self.seed}"), KeysChecker(self.break_rule))

    def break_rule(self, rule: str, detail: str) -> None:
        """Note that a rule is broken. The first one ends the run, after this event."""
        self.violation = self.violation or Violation(rule, detail)

    def members_changed(self) -> None:
        """A change of members may be complete. Nothing follows from that here."""

    def is_member(self, node: NodeId) -> bool:
        """Whether ``node`` is a member now, learners included."""
        return not self.changes or node in self.checker.members.members

    @property
    def entry(self) -> MembersEntry:
        """The members now, as the log has them."""
        return self.checker.members.entry or founding_entry(self.configuration)

    def configuration_of(self, node: NodeId, peer_port: int) -> configuration.Cluster:
        """The cluster file that ``node`` is started with. A founder has that of the founding, as long as it names
        another member; all others have one that names the members of now. A node that has moved has its new address in
        it, as an operator has to see to.

        :param peer_port: where it listens for other nodes.
        """
        own = machine_member(base_name(node), peer_port)
        if node in self.names and (not self.changes or any(self.is_member(one) for one in self.names if one != node)):
            if self.configuration.members[node] == own:
                return self.configuration
            return configuration.Cluster("simulated", {**self.configuration.members, node: own})
        members = {**self.entry.cluster("simulated").members, node: own}
        return configuration.Cluster("simulated", members, founding=self.configuration.members)

    def fork_rng(self) -> Random:
        """A new random number generator, seeded from this one."""
        return Random(self.rng.random())

    def note(self, who: str, what: str) -> None:
        """Add an event to the trace."""
        self.trace.append((self.time.now, who, what))
