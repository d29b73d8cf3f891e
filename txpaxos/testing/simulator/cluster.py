"""A cluster in one process: your application on real nodes, on simulated hosts.

.. code-block:: python

    cluster = SimulatedCluster(seed=7, app=MyService, workload=lambda rng: b"+%d" % rng.randrange(9))
    plan(cluster, draw(seed=7, names=cluster.names, seconds=30))  # from txpaxos.testing.simulator.schedule
    cluster.run(seconds=30)
    cluster.heal()
    cluster.wait_until_converged()

Every rule of :class:`~txpaxos.testing.checkers.checker.Checker` is checked at every step. A step that breaks a rule
raises :class:`~txpaxos.testing.checkers.checker.Violation`. The same seed gives the same run, event for event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from random import Random
from typing import TYPE_CHECKING

from txpaxos.client import Client
from txpaxos.core.config import Timing
from txpaxos.core.messages import NodeId
from txpaxos.core.ready import PeerMet, Record, Voter
from txpaxos.counter import Counter
from txpaxos.node.counts import Count
from txpaxos.node.node import Node
from txpaxos.node.snapshots.taking import Policy
from txpaxos.node.snapshots.transfer import TransferLimits
from txpaxos.protocol import PaxosProtocol
from txpaxos.recording.options import RecordingOptions
from txpaxos.testing.checkers.checker import FAIL_OVER_SECONDS_MAX, Violation
from txpaxos.testing.older_registers import draw_registers, make_older_folder
from txpaxos.testing.simulator.clients import SimulatedAsker, SimulatedCaller, SimulatedClient, SimulatedReader
from txpaxos.testing.simulator.disk import Crash
from txpaxos.testing.simulator.environment import Environment
from txpaxos.testing.simulator.host import DATA, Host
from txpaxos.testing.simulator.keepers import PERIODS_SECONDS, TIMER_PREFIX, SimulatedKeeper
from txpaxos.testing.simulator.network import SimulatedReactor
from txpaxos.testing.simulator.operator import Operator
from txpaxos.testing.simulator.trace import DatagramArrived, DatagramSent

if TYPE_CHECKING:
    from txpaxos.testing.simulator.keys import ClusterKeys
    from txpaxos.testing.simulator.keys_operator import KeysOperator

CLOCK_STEP_SECONDS = 3600.0
FAILURES = tuple(FAIL_OVER_SECONDS_MAX)
"""The ways in which the leader can fail at the end of a run."""

HUNG_SECONDS = 3600.0
"""How long a save takes on a hung disk."""

SILENT_SECONDS = 4.0
"""Extra seconds to converge for each node that never answers. A node that takes a snapshot may ask such a node twice
for its state digest, and once to confirm another node's snapshot."""

DAMAGED_NODE_FACTOR = 4
"""How many times longer convergence may take while a node with a damaged disk runs. Other nodes may ask it for a
snapshot several times."""

CATCH_UP_CHANCE = 0.3
MISSED_ROUNDS = (1, 1, 10)
"""How many requests of every client a cut-off follower misses. After many requests it may need a snapshot."""

RETURN_CHANCE = 0.5
AWAY_ROUNDS_MAX = 400
"""Upper bound on the requests of every client until the other nodes have truncated the log that the absent node
needs."""
LEVEL_SLOTS = 8
"""A node has caught up when it lacks no more than these slots, which may still be on their way."""

RECORDED_MAX = 2000
RECORDED_EVERY = 5
"""Of this number of datagrams one is recorded."""

STREAMS_SECONDS = 20.0
"""By then each node has its streams to all others again, which it tries every 4 s at the longest."""

TIMERS_SECONDS = (max(PERIODS_SECONDS) + 3.0) / 0.8
"""By then each timer has fired that no client keeps alive: after its period, and a leader's grace, by a slow clock."""

CALM_CHANGES = 2
"""How many changes of members there are at the end of a run."""

RESULTS_KEPT_MAX = 64
"""More results than any client leaves unacknowledged."""

BIG_COMMAND_BYTES = 2000
"""Too large for a datagram."""


def counter_workload(rng: Random) -> bytes:
    """Make a command for :class:`txpaxos.counter.Counter`. A few commands are refused by it, and a few need a
    stream."""
    chance = rng.random()
    command = b"no number" if chance < 0.01 else b"%d" % rng.randrange(-9, 99)
    return command.rjust(BIG_COMMAND_BYTES) if chance > 0.99 else command


class SimulatedCluster(Environment):
    """A whole cluster in one process.

    :param seed: decides everything that is random.
    :param nodes: how many nodes there are.
    :param app: the application, a subclass of :class:`~txpaxos.protocol.PaxosProtocol`.
    :param workload: makes the clients' commands.
    :param query: makes the readers' queries. Queries are empty unless it is given.
    :param clients: how many clients submit commands.
    :param askers: how many clients ask about registers.
    :param callers: how many callers submit commands at the nodes themselves, as an application may.
    :param readers: how many clients read, if the application answers queries.
    :param snapshot_policy: when nodes take snapshots; drawn from the seed unless given.
    :param sessions_max: how many sessions a node keeps; drawn from the seed unless given.
    :param transfer_limits: how fast snapshots are sent; drawn from the seed if ``snapshot_policy`` is drawn, too.
    :param older_registers: whether the nodes begin with data folders of an earlier release, and registers in them.
    :param changes: whether members change.
    :param keys: whether nodes have keys.
    :param keepers: how many clients keep timers alive.
    :param record: where all that enters the cores of the nodes is recorded; nowhere unless given.
    :ivar hosts: the hosts, by the name of their machine.
    :ivar operator: who changes the members.
    :ivar keys_operator: who looks after the keys; ``None`` if nodes have none.
    :ivar recorded: some of the datagrams that nodes have sent, with their source and target, if nodes have keys.
    :ivar datagrams: how many datagrams the nodes have sent.
    :ivar gap_seconds: the longest time that a client waited when the leader failed at the end.
    """

    gap_seconds = 0.0

    def __init__(
        self,
        seed: int,
        nodes: int = 3,
        app: type[PaxosProtocol] = Counter,
        workload: Callable[[Random], bytes] = counter_workload,
        clients: int = 3,
        askers: int = 3,
        callers: int = 1,
        readers: int = 1,
        timing: Timing | None = None,
        snapshot_policy: Policy | None = None,
        sessions_max: int | None = None,
        query: Callable[[Random], bytes] | None = None,
        transfer_limits: TransferLimits | None = None,
        older_registers: bool = False,
        changes: bool = False,
        keys: bool = False,
        keepers: int = 0,
        record: RecordingOptions | None = None,
    ) -> None:
        super().__init__(
            *(seed, nodes, timing, snapshot_policy, sessions_max, app, transfer_limits, changes, keys, record)
        )
        self.datagrams = 0
        self.recorded: deque[tuple[str, str, bytes]] = deque(maxlen=RECORDED_MAX)
        self.network.on_datagram = self._datagram
        self.network.on_arrival = self._arrival
        self.hosts = {name: Host(self, name) for name in self.names}
        self.operator = Operator(self, self.hosts, self.live)
        self.keys_operator = None if self.keys is None else self._make_keys_operator(self.keys)
        has_queries = app.query is not PaxosProtocol.query
        self.clients: list[SimulatedClient | SimulatedAsker | SimulatedCaller | SimulatedReader | SimulatedKeeper] = [
            *(SimulatedClient(self, index, workload) for index in range(clients)),
            *(SimulatedAsker(self, index) for index in range(askers)),
            *(SimulatedCaller(self, self.hosts, index, workload) for index in range(callers)),
            *(SimulatedReader(self, self.hosts, index, query) for index in range(readers if has_queries else 0)),
            *(SimulatedKeeper(self, index) for index in range(keepers)),
        ]
        if older_registers:
            self._begin_with_older_registers()
        for host in self.hosts.values():
            host.start()

    def end_recordings(self) -> None:
        """Write what was recorded and is not on disk yet."""
        for host in self.hosts.values():
            host.end_recording()

    def _make_keys_operator(self, keys: ClusterKeys) -> KeysOperator:
        from txpaxos.testing.simulator.keys_operator import KeysOperator

        return KeysOperator(self, keys, self.hosts)

    def _begin_with_older_registers(self) -> None:
        """Give each host the data folder of a node that an earlier release has run, with registers half decided."""
        rng = self.fork_rng()
        count, value_bytes = rng.choice(((12, 0), (12, 0), (40, 30_000)))
        names = [f"subject {number}" for number in range(count)]
        drawn = draw_registers(rng, self.names, names, value_bytes)
        self.checker.registers.begin_with(drawn.chosen, drawn.proposed)
        self.counts["older registers"] += 1
        incarnations = {name: int.from_bytes(Random(name).randbytes(8), "little") for name in self.names}
        for host in self.hosts.values():
            met = [PeerMet(name, incarnations[name]) for name in self.names if name != host.name]
            records: list[Record] = [Voter(self.names), *met, *drawn.states[host.name]]
            make_older_folder(host.disk, DATA, self.configuration.name, host.name, records)

    def members_changed(self) -> None:
        """A change of members may be complete: what the former members had is not needed then."""
        self.operator.follow_members()

    # running

    def run(self, seconds: float) -> None:
        """Let ``seconds`` pass.

        :raises Violation: if a rule is broken meanwhile.
        """
        until = self.time.now + seconds
        time = self.time
        while True:
            try:
                time.run_until(until)
            except Crash:
                continue
            finally:
                violation = self.checker.violation or self.violation
                if violation is not None:
                    raise violation
            return

    def heal(self) -> None:
        """End every fault, and start every node that can start."""
        self.network.heal()
        self.faulty_node = None
        for host in self.hosts.values():
            host.crash_in = host.crash_in_snapshot = None
            host.save_seconds = 0.0
            host.sync_fails = host.sync_fails_once = False
            host.disk.bytes_max = None
            if host.configuration is not host.right_configuration:
                host.configuration = host.right_configuration
                if host.alive:
                    host.crash()
            if self.operator.is_out_of_touch(host):
                host.crash()
            if not host.alive:
                host.start()

    def wait_until_converged(self, seconds: float = 10.0) -> None:
        """Require that every client is answered and all nodes have applied the same slots. Call it after :meth:`heal`.

        The time limit is ``seconds``, and more for each node that is lost for good and for snapshots that take long to
        send.

        :raises Violation: if a command of a client is not answered in time, or a node stays behind.
        """
        for client in self.clients:
            client.request()
            client.stop()
        began, longest = self.time.now, 0.0
        while not self._has_converged():
            longest = max(longest, self._seconds_to_converge(seconds))
            if self.time.now >= began + longest:
                raise Violation("live once healed", self._describe_nodes())
            for host in self.live():
                if self.operator.is_out_of_touch(host):  # It was behind when the last member that it knows was removed.
                    host.crash()
                if not host.alive:  # The node may have stopped only now, because of an earlier fault.
                    host.start()
            self.run(0.25)

    def _seconds_to_converge(self, seconds: float) -> float:
        """How long convergence may take: ``seconds`` if nothing is in the way. A snapshot may become big meanwhile."""
        seconds += SILENT_SECONDS * len(self._silent()) + self._transfer_seconds()
        damaged = any(host.disk_lost and host.alive for host in self.hosts.values())
        return DAMAGED_NODE_FACTOR * seconds if damaged else seconds

    def _silent(self) -> set[str]:
        """The nodes that are lost, or gone, and that others may ask in vain, since they do not know it yet."""
        live = list(self.live())
        known = {name for host in live if host.node is not None for name in host.node.members.entry.members}
        lost = {host.name for host in self.hosts.values() if host.disk_lost}
        return lost | (known - {host.name for host in live})

    def _transfer_seconds(self) -> float:
        """How long the largest snapshot of the current state takes to reach all other nodes, one after another."""
        if self.transfer_limits is None:
            return 0.0
        snapshots = [(host, path) for host in self.live() for path in host.disk.files() if path.endswith(".snapshot")]
        size = max((host.disk.size(path) for host, path in snapshots), default=0)
        return (len(self.hosts) - 1) * size / self.transfer_limits.bytes_per_second

    def check_quiescence(self, seconds: float = 4.0) -> None:
        """Require a cluster at rest. Call it after :meth:`wait_until_converged`.

        After ``seconds`` one node leads, every node knows it, and it stays. Idle nodes send little more than
        heartbeats. Every client gets its answers promptly.

        :raises Violation: if a rule is broken.
        """
        self.run(seconds)
        won, events = self.checker.ballots_won, self.datagrams
        seconds /= 2
        self.run(seconds)
        leaders = [host.node and host.node.leader for host in self.live()]
        if None in leaders or len(set(leaders)) != 1 or self.checker.ballots_won != won:
            raise Violation("one leader once healed", f"{leaders} after {self.checker.ballots_won - won} elections")
        beats = seconds / self.timing.heartbeat_seconds * (len(self.hosts) - 1)
        if self.datagrams - events > 4 * beats:  # A heartbeat is answered, and a clock may drift.
            raise Violation("quiet when idle", f"{self.datagrams - events} datagrams in {seconds} s")
        self._answer_within(1.0, "prompt answers")
        for client in self.clients:
            if isinstance(client, SimulatedReader):
                client.request_everywhere()
        self._answer_within(1.0, "reads are answered at every node")
        self._step_clocks(won)
        self.check_keys()
        for host in self.live():
            assert host.node is not None, host.name
            taking = host.node.status().compaction.taking
            if taking is not None:
                raise Violation("snapshots end", f"{host.name} is taking one at slot {taking}")
            for session in host.node._applier.sessions._sessions.values():
                if len(session.outcomes) > RESULTS_KEPT_MAX:
                    raise Violation("acknowledged results are forgotten", f"{host.name} keeps {len(session.outcomes)}")

    def check_timers(self) -> None:
        """Require that the timers fire which the clients keep alive no more. Call it when they have stopped and nothing
        is wrong.

        :raises Violation: if one is left.
        """
        self.run(TIMERS_SECONDS)
        for host in self.live():
            if host.node is not None and len(host.node.timers):
                left = [name for name in host.node.timers if name.startswith(TIMER_PREFIX)]
                if left:
                    raise Violation("timers fire in the end", f"{host.name} has {', '.join(left)}")

    def check_keys(self) -> None:
        """If nodes have keys, require that all are heard, and that no stream goes on with keys of before. Call it when
        nothing has been wrong for a while.

        :raises Violation: if that is not so.
        """
        hosts = list(self.live())
        if self.keys is None or any(host.alive and host not in hosts for host in self.hosts.values()):
            return  # A node that is lost, or was removed, is not heard.
        until = self.time.now + STREAMS_SECONDS
        while (missing := [trouble for host in hosts for trouble in self._streams_missing(host, hosts)]) != []:
            if self.time.now >= until:
                raise Violation("new keys are used", "; ".join(missing))
            self.run(0.25)
        before = self._unknown_sessions(hosts)
        self.run(1.0)
        if self._unknown_sessions(hosts) != before:
            raise Violation("sealed datagrams are opened", f"{self._unknown_sessions(hosts)}, a second ago {before}")

    def _streams_missing(self, host: Host, hosts: list[Host]) -> Iterator[str]:
        """Which streams ``host`` does not have to ``hosts`` and from them, with the newest certificates."""
        assert self.keys is not None
        if host.node is None:
            return
        streams = host.node._peers._streams
        for other in [other for other in hosts if other is not host]:
            newest = self.keys.folder_of(other.name).chain
            for direction, known in (("to", streams._own), ("from", streams._theirs)):
                stream = known.get(other.name)
                if stream is None or not stream.is_established:
                    yield f"{host.name} has no stream {direction} {other.name}"
                elif stream.transport.peer_chain != newest:
                    yield f"the stream of {host.name} {direction} {other.name} has former keys"

    def _unknown_sessions(self, hosts: list[Host]) -> list[int]:
        """How many datagrams each node could not open, for they were sealed with a secret that it does not have."""
        nodes = [host.node for host in hosts if host.node is not None]
        return [node.counters[Count.DATAGRAM_OF_AN_UNKNOWN_SESSION] for node in nodes]

    def fail_over(self, kind: str = "", seconds: float = 5.0) -> None:
        """Have the leader fail, if the other nodes can do without it. Call it after :meth:`check_quiescence`.

        The other nodes must elect a new leader and answer clients. The failed node must rejoin afterwards.

        :param kind: one of ``FAILURES``; drawn from the seed unless given.
        :param seconds: how long the failure lasts.
        :raises Violation: if clients wait longer than ``FAIL_OVER_SECONDS_MAX`` of the checker, or a node does not
            rejoin.
        """
        leader = next(host for host in self.hosts.values() if host.node and host.node.leader == host.name)
        if not self._can_do_without(leader):
            return
        kind = kind or self.rng.choice(FAILURES)
        self.note(leader.name, f"is the leader, and fails by {kind}")
        self.faulty_node = leader.name
        others = [machine for machine in self.machines if machine != leader.machine]
        if kind == "silence":  # No power, or a pulled cable: clients do not reach it either, and no connection breaks.
            others += [client.name for client in self.clients]
        if kind == "crash":
            leader.crash()
        elif kind == "pause" and leader.reactor is not None:
            leader.reactor.pause(seconds)
        elif kind == "hung disk":
            leader.save_seconds = HUNG_SECONDS
        if kind in ("isolation", "deafness", "silence"):
            self.network.cut |= {(name, leader.machine) for name in others}
        if kind in ("isolation", "muteness", "silence"):
            self.network.cut |= {(leader.machine, name) for name in others}
        self.gap_seconds = self._answer_within(seconds, "a failing leader is replaced")
        self.checker.failed_over(kind, self.gap_seconds)
        if kind == "hung disk" and leader.alive:
            leader.crash()  # Only a crash ends the save that hangs.
        self.heal()
        self.wait_until_converged()

    def check_follower_catches_up(self, seconds: float = 60.0) -> None:
        """In some seeds, require that a follower whom its leader no longer hears still catches up.

        Call it after :meth:`wait_until_converged`. The follower misses part of the log. Then its messages reach the
        other followers, and do not reach the leader. It must have the whole log within ``seconds``.

        :raises Violation: if it does not catch up in time.
        """
        followers = [host for host in self.live() if host.node and host.node.leader not in (None, host.name)]
        can_go = [host for host in followers if self._can_do_without(host)]
        if len(followers) < self.checker.members.newest.quorum or not can_go or self.rng.random() > CATCH_UP_CHANCE:
            return
        follower = self.rng.choice(can_go)
        leader = follower.node.leader if follower.node is not None else None
        assert leader is not None, follower.name
        self.note(follower.name, "misses slots, and its leader does not hear it")
        self.faulty_node = follower.name
        others = [machine for machine in self.machines if machine != follower.machine]
        self.network.cut |= {(name, follower.machine) for name in others}
        for _ in range(self.rng.choice(MISSED_ROUNDS)):
            self._answer_within(5.0, "a missing follower does no harm")
        self.network.reconnect({(name, follower.machine) for name in others})
        self.network.cut.add((follower.machine, self.host_of(leader).machine))
        until = self.time.now + seconds
        while not self._has_converged():
            if self.time.now >= until:
                raise Violation("a follower keeps up", self._describe_nodes())
            self.run(0.05)
        self.heal()

    def check_return_under_load(self, seconds: float = 60.0) -> None:
        """In some seeds, require that a node which was down for long catches up while clients keep submitting commands.

        Call it after :meth:`wait_until_converged`. The node stays down until the other nodes have truncated the part
        of the log that it misses. So it needs a snapshot. It must have caught up within ``seconds``, and the time that
        the snapshot takes at the limit on its speed.

        :raises Violation: if it does not catch up in time.
        """
        nodes = [host.node for host in self.live() if host.node is not None]
        may_go = [host for host in self.live() if host.node is not None and self._can_do_without(host)]
        takes_snapshots = all(node.status().compaction.snapshot_slot for node in nodes)
        if (
            len(nodes) <= self.checker.members.newest.quorum
            or not may_go
            or not takes_snapshots
            or self.rng.random() > RETURN_CHANCE
        ):
            return
        away = self.rng.choice(may_go)
        assert away.node is not None, away.name
        slot = away.node.status().replica.chosen_through
        self.note(away.name, "is down until the other nodes have truncated what it misses")
        away.crash()
        others = [host.node for host in self.live() if host is not away and host.node is not None]
        for _ in range(AWAY_ROUNDS_MAX):
            if all(node._replica.log.first_slot > slot + 1 for node in others):
                break
            self._answer_within(5.0, "a missing node does no harm")
        self.counts["nodes that came back under load"] += 1
        away.start()
        began, longest = self.time.now, 0.0
        while not self._has_caught_up(away, others):
            longest = max(longest, seconds + self._transfer_seconds())
            if self.time.now >= began + longest:
                raise Violation("a node comes back while others write", self._describe_nodes())
            for client in self.clients:
                if not client.waiting:
                    client.request()
            self.run(0.05)

    def _has_caught_up(self, host: Host, others: list[Node]) -> bool:
        through = max(node.applied_through for node in others)
        return host.node is not None and host.node.applied_through >= through - LEVEL_SLOTS

    def live(self) -> Iterator[Host]:
        """The hosts that must work once everything is healed."""
        return (host for host in self.hosts.values() if not host.disk_lost and self.is_member(host.name))

    @property
    def machines(self) -> tuple[str, ...]:
        """The machines that are in use."""
        return tuple(self.hosts)

    def host_of(self, node: NodeId) -> Host:
        """The host of ``node``."""
        return next(host for host in self.hosts.values() if host.name == node)

    def new_client(self, name: str) -> Client:
        """A client on a host of its own, which never crashes. The checker sees what it submits.

        :param name: the host's name, which must be unique.
        """
        reactor = SimulatedReactor(self.network, name)
        return Client(reactor, self.configuration, rng=self.fork_rng(), sending=self.checker.submitting)

    @property
    def leader(self) -> NodeId | None:
        """The leader's id; ``None`` if no node takes itself for the leader."""
        leads = (host.name for host in self.hosts.values() if host.node is not None and host.node.leader == host.name)
        return next(leads, None)

    def reactors(self) -> list[SimulatedReactor]:
        """The reactors of all processes that run, nodes and clients."""
        nodes = [host.reactor for host in self.hosts.values() if host.alive and host.reactor is not None]
        return nodes + [client.reactor for client in self.clients if client.reactor is not None]

    def can_spare(self, name: str) -> bool:
        """Whether the other nodes can do without the node on the machine ``name`` for good.

        A cluster in which a node does not vote yet can spare none. A newcomer is only made a voter while enough voters
        are up.
        """
        if self.changes:
            return self.operator.can_spare(name)
        lost = sum(host.disk_lost for host in self.hosts.values() if host.name != name)
        all_vote = all(self.checker.nodes[host.name].voter is not None for host in self.live())
        return all_vote and lost < (len(self.names) - 1) // 2

    def check_changes(self) -> None:
        """Change the members while nothing else is wrong. Call it after :meth:`wait_until_converged`.

        Commands must go on during each change and after it, and former members must disturb no other node.

        :raises Violation: if a client waits too long, a change does not end, or a former member is heard.
        """
        for _ in range(CALM_CHANGES if self.changes else 0):
            self.operator.change_in_calm()
            self._answer_within(1.0, "commands go on during a change")
            self.wait_until_settled()
            self._answer_within(1.0, "commands go on after a change")
        if self.changes:
            self.operator.destroy_former()
            self.wait_until_converged()

    def wait_until_settled(self, seconds: float = 10.0) -> None:
        """Require that no change of members is under way any more, in time.

        :raises Violation: if one is.
        """
        began, longest = self.time.now, 0.0
        while not self.operator.is_settled:
            longest = max(longest, self._seconds_to_converge(seconds))
            if self.time.now >= began + longest:
                raise Violation("changes end", f"{self.checker.members.newest}: {self._describe_nodes()}")
            self.run(0.05)

    # inside

    def _can_do_without(self, host: Host) -> bool:
        """Whether the other hosts that must work hold a majority of the voters."""
        others = [one.name for one in self.live() if one is not host]
        return self.checker.members.newest.is_majority(others)

    def _answer_within(self, seconds: float, rule: str) -> float:
        """Let every client make one more request, and require its answer in time. Returns how long the slowest answer
        took."""
        for client in self.clients:
            client.request()
        began = self.time.now
        while any(client.waiting for client in self.clients):
            if self.time.now >= began + seconds:
                raise Violation(rule, self._describe_nodes())
            self.run(0.01)
        return self.time.now - began

    def _step_clocks(self, won: int) -> None:
        """Step all wall clocks by an hour, those of nodes and of clients. Timers must still fire on time. At most one
        new leader may be elected, and clients must not wait."""
        seconds = self.rng.choice((-CLOCK_STEP_SECONDS, CLOCK_STEP_SECONDS))
        for reactor in self.reactors():
            reactor.step_wall_clock(seconds)
        self._answer_within(1.0, "prompt answers")
        self.run(2 * self.timing.liveness_window_seconds[0])
        if self.checker.ballots_won > won + 1:
            raise Violation("a clock step causes at most one election", f"{self.checker.ballots_won - won} elections")

    def _has_converged(self) -> bool:
        if any(client.waiting for client in self.clients) or not self.operator.is_settled:
            return False
        if self.keys_operator is not None and not self.keys_operator.is_settled:
            return False
        nodes = [host.node for host in self.live()]
        statuses = [node.status() for node in nodes if node is not None]
        return len(statuses) == len(nodes) and len({status.applied_through for status in statuses}) == 1

    def _describe_nodes(self) -> str:
        waiting = {client.name: client.waiting for client in self.clients if client.waiting}
        nodes = {host.name: host.node and host.node.status() for host in self.live()}
        return f"commands without an answer: {waiting}; nodes: {nodes}"

    def _datagram(self, source: str, target: str, data: bytes) -> None:
        host = self.hosts.get(source)
        if host is not None:
            self.datagrams += 1
            message = data if self.keys is None else self.keys.checker.newest
            self.trace.append((self.time.now, source, DatagramSent(target, data, message)))
            if self.keys is not None and self.datagrams % RECORDED_EVERY == 0:
                self.recorded.append((source, target, data))
            host.point()

    def _arrival(self, source: str, target: str, data: bytes) -> None:
        if target in self.hosts:
            self.trace.append((self.time.now, target, DatagramArrived(source, data)))
