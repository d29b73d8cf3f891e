"""Faults drawn from a seed. Each seed enables a random few kinds, so that runs differ in what they test ("swarm
testing")."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from txpaxos.cluster import Address, Member
from txpaxos.core.messages import NO_OP, ChosenValues
from txpaxos.node.node import Node
from txpaxos.storage.segment import Frames, SegmentHeader
from txpaxos.testing.checkers.disk_use import segments
from txpaxos.testing.simulator.cluster import SimulatedCluster
from txpaxos.testing.simulator.environment import CLIENT_PORT, PEER_PORT
from txpaxos.testing.simulator.host import DATA, Host
from txpaxos.testing.simulator.key_faults import KEY_FAULTS
from txpaxos.testing.simulator.network import Faults
from txpaxos.testing.simulator.operator import CHANGES
from txpaxos.wire.codec import Codec
from txpaxos.wire.members import base_name
from txpaxos.wire.peer_messages import RegisterVotes

KIND_CHANCE = 0.3
CHANGE_CHANCE = 0.6
CHANGES_FROM_SECONDS = 0.3
FREQUENT_CHANGES = ("member joins", "member replaced")
"""Changes that are in every schedule of changes, since the others need them."""

REIGN_SECONDS = 0.05

HAND_OVER_SECONDS = 0.1
"""The mean time between two hand-overs."""

DEPARTURE_SECONDS_MAX = 2.5
"""By then a node that was told to stop has ended."""

LEADER_AWAY_SECONDS = 0.3
"""The minimum for a fault of the leader, so that another leader may be elected."""

LASTING = ("short reigns",)
"""Kinds that last until the end of the run, since their harm takes several elections."""


@attrs.frozen
class Fault:
    """One fault.

    :ivar at_seconds: when it begins, from the start of the run.
    :ivar kind: one of ``KINDS``, ``CHANGES`` or ``KEY_FAULTS``.
    :ivar node: the node it affects.
    :ivar seconds: how long it lasts.
    :ivar seed: decides everything that is random in it.
    """

    at_seconds: float
    kind: str
    node: str
    seconds: float
    seed: int

    def __str__(self) -> str:
        return f"{self.at_seconds:8.3f} s  {self.kind} at {self.node} for {self.seconds:.3f} s"


def draw(seed: int, names: tuple[str, ...], seconds: float, changes: bool = False, keys: bool = False) -> list[Fault]:
    """Draw a schedule for a run of ``seconds``: which kinds of faults there are, how often, and when.

    :param names: the machines.
    :param changes: whether members change, too.
    :param keys: whether nodes have keys, which are replaced and stolen.
    """
    rng = Random(seed)
    kinds = [kind for kind in KINDS if rng.random() < KIND_CHANCE] or [rng.choice(list(KINDS))]
    faults = []
    for kind in kinds:
        mean_seconds = rng.choice((0.5, 1.5, 4.0))
        when = rng.expovariate(1.0) * mean_seconds
        while when < seconds:
            longest = seconds - when
            lasts = longest if kind in LASTING else min(rng.expovariate(1.0) * rng.choice((0.05, 0.5, 2.0)), longest)
            faults.append(Fault(when, kind, rng.choice(names), lasts, rng.getrandbits(32)))
            when += rng.expovariate(1.0) * mean_seconds
    if changes:
        faults += _draw_changes(Random(f"changes {seed}"), names, seconds)
    if keys:
        faults += _draw_key_faults(Random(f"keys {seed}"), names, seconds)
    return sorted(faults, key=lambda fault: fault.at_seconds)


def _draw_changes(rng: Random, names: tuple[str, ...], seconds: float) -> list[Fault]:
    """Draw changes of members. They have a source of chance of their own, so that the faults of a seed stay the
    same."""
    kinds = [kind for kind in CHANGES if rng.random() < CHANGE_CHANCE]
    mean_seconds = rng.choice((0.2, 0.5, 1.0))
    faults = []
    when = CHANGES_FROM_SECONDS + rng.expovariate(1.0) * mean_seconds
    while when < seconds:
        kind = rng.choice((*kinds, *FREQUENT_CHANGES))
        faults.append(Fault(when, kind, rng.choice(names), rng.expovariate(1.0) * 0.2, rng.getrandbits(32)))
        when += rng.expovariate(1.0) * mean_seconds
    return faults


def _draw_key_faults(rng: Random, names: tuple[str, ...], seconds: float) -> list[Fault]:
    """Draw what happens to keys, from a source of chance of its own, too."""
    kinds = [kind for kind in KEY_FAULTS if rng.random() < CHANGE_CHANCE] or list(KEY_FAULTS)
    mean_seconds = rng.choice((0.1, 0.3, 0.5))
    faults = []
    when = rng.expovariate(1.0) * mean_seconds
    while when < seconds:
        faults.append(Fault(when, rng.choice(kinds), rng.choice(names), rng.expovariate(1.0), rng.getrandbits(32)))
        when += rng.expovariate(1.0) * mean_seconds
    return faults


def plan(cluster: SimulatedCluster, faults: list[Fault]) -> None:
    """Schedule ``faults`` in ``cluster``, counted from now."""
    for fault in faults:
        cluster.time.after(fault.at_seconds, _inject, cluster, fault)


def _inject(cluster: SimulatedCluster, fault: Fault) -> None:
    if fault.kind not in CHANGES and fault.node not in cluster.hosts:
        return  # The machine is not used.
    cluster.counts[fault.kind] += 1
    cluster.note(fault.node, f"{fault.kind} for {fault.seconds:.3f} s")
    if fault.kind in CHANGES:
        cluster.operator.change(fault.kind, fault.node, fault.seconds, Random(fault.seed))
    elif fault.kind in KEY_FAULTS:
        KEY_FAULTS[fault.kind](cluster, fault.node, fault.seconds, Random(fault.seed))
    else:
        KINDS[fault.kind](cluster, fault, Random(fault.seed))


def _restart(cluster: SimulatedCluster, node: str) -> None:
    host = cluster.hosts.get(node)
    if host is not None and not host.alive:
        host.start()


def _crash(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    host = cluster.hosts.get(fault.node)
    if host is not None and host.alive:
        host.crash()
    cluster.time.after(fault.seconds, _restart, cluster, fault.node)


def _process_death(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    """Kill the process, between two steps or within one, and start it again. The machine's power may fail a moment
    after that. Then both processes lose what was not synced."""
    host = cluster.hosts[fault.node]
    if not host.alive:
        return
    if rng.random() < 0.5:
        host.die()
    else:
        host.crash_in, host.keeps_power = rng.randrange(1, 40), True
    cluster.time.after(fault.seconds + 0.1, _restart, cluster, fault.node)
    if rng.random() < 0.5:
        again = attrs.evolve(fault, seconds=0.1)
        cluster.time.after(fault.seconds + 0.1 + rng.expovariate(1.0) * 0.02, _crash, cluster, again, rng)


def _crash_everything(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    for name in cluster.machines:
        _crash(cluster, attrs.evolve(fault, node=name, seconds=fault.seconds * rng.random()), rng)


def _crash_between_steps(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    cluster.hosts[fault.node].crash_in = rng.randrange(1, 40)
    cluster.time.after(fault.seconds + 0.1, _restart, cluster, fault.node)


def _crash_in_a_snapshot(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    """Kill the node somewhere within the next snapshot that it takes or receives."""
    host = cluster.hosts[fault.node]
    host.crash_in_snapshot = rng.randrange(1, 30)
    host.keeps_power = rng.random() < 0.3
    until = cluster.time.now + fault.seconds

    def restart() -> None:
        _restart(cluster, fault.node)
        if cluster.time.now < until:
            cluster.time.after(rng.random(), restart)

    cluster.time.after(rng.random(), restart)


def _long_absence(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    """Keep the node away so long that the other nodes may have truncated what it misses."""
    longer = attrs.evolve(fault, seconds=fault.seconds + rng.choice((1.0, 3.0)))
    rng.choice((_crash, _isolate, _deafen))(cluster, longer, rng)


def _leader_in_trouble(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    """Pause the leader, or cut it off from other nodes. The leader does not notice, and clients still reach it."""
    for host in cluster.hosts.values():
        if host.alive and host.node is not None and host.node.leader == host.name:
            trouble = attrs.evolve(fault, node=host.machine, seconds=fault.seconds + LEADER_AWAY_SECONDS)
            rng.choice((_pause, _isolate, _deafen, _mute))(cluster, trouble, rng)


def _pause(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    reactor = cluster.hosts[fault.node].reactor
    if reactor is not None and reactor.alive:
        reactor.pause(fault.seconds)


def _step_clock(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    reactor = cluster.hosts[fault.node].reactor
    if reactor is not None:
        reactor.step_wall_clock(rng.choice((-3600.0, -2.0, 2.0, 3600.0)))


def _step_every_clock(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    """Step all wall clocks at once, as one wrong time server does."""
    seconds = rng.choice((-3600.0, 3600.0))
    for reactor in cluster.reactors():
        reactor.step_wall_clock(seconds)


def _step_a_client_s_clock(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    """Step the wall clock of one client, so that only its deadlines and attempts are affected."""
    reactors = [client.reactor for client in cluster.clients if client.reactor is not None]
    if reactors:
        rng.choice(reactors).step_wall_clock(rng.choice((-3600.0, -2.0, 2.0, 3600.0)))


def _drift(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    cluster.hosts[fault.node].rate = rng.choice((0.8, 0.95, 1.05, 1.25))  # From its next start on.


def _cut(cluster: SimulatedCluster, pairs: set[tuple[str, str]], seconds: float) -> None:
    added = pairs - cluster.network.cut
    cluster.network.cut |= added

    def end() -> None:
        cluster.network.reconnect(added)

    cluster.time.after(seconds, end)


def _isolate(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    others = [name for name in cluster.machines if name != fault.node]
    pairs = {(fault.node, name) for name in others}
    _cut(cluster, pairs | {(b, a) for a, b in pairs}, fault.seconds)


def _deafen(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    """Drop what is sent to the node. What the node sends arrives."""
    _cut(cluster, {(name, fault.node) for name in cluster.machines if name != fault.node}, fault.seconds)


def _mute(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    """Drop what the node sends. What is sent to the node arrives."""
    _cut(cluster, {(fault.node, name) for name in cluster.machines if name != fault.node}, fault.seconds)


def _cut_one_link(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    other = rng.choice([name for name in cluster.machines if name != fault.node] or [fault.node])
    _cut(cluster, {(fault.node, other), (other, fault.node)}, fault.seconds)


def _cut_at_random(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    pairs = [(a, b) for a, b in itertools.permutations(cluster.machines, 2) if rng.random() < 0.4]
    _cut(cluster, set(pairs), fault.seconds)


def _split(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    side = {name: rng.random() < 0.5 for name in cluster.machines}
    _cut(cluster, {(a, b) for a, b in itertools.permutations(cluster.machines, 2) if side[a] != side[b]}, fault.seconds)


def _short_reigns(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    """Cut each leader off soon after its election. At most one other node still receives its messages, so that nodes
    vote differently at the open slots."""
    until = cluster.time.now + fault.seconds

    def strike() -> None:
        if cluster.time.now >= until:
            return
        for host in cluster.hosts.values():
            if host.alive and host.node is not None and host.node.leader == host.name:
                others = [name for name in cluster.machines if name != host.machine]
                spared = rng.choice([None, *others])
                unheard = {(host.machine, name) for name in others if name != spared}
                seconds = min(rng.expovariate(1.0), until - cluster.time.now)
                _cut(cluster, unheard | {(name, host.machine) for name in others}, seconds)
        cluster.time.after(rng.expovariate(1.0) * REIGN_SECONDS, strike)

    strike()


def _hand_overs(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    """Have the leader hand over, again and again, to any node. Now and then the leader or another node dies between two
    steps of that. All messages of the hand-over are subject to the network's faults."""
    until = cluster.time.now + fault.seconds

    def hand_over() -> None:
        if cluster.time.now >= until:
            return
        for host in _leaders(cluster):
            others = [name for name in cluster.names if name != host.name]
            dies = rng.choice([None, None, host.name, *others])
            if dies is not None:
                machine, crash_in, seconds = base_name(dies), rng.randrange(1, 40), rng.random() + 0.1
                if machine in cluster.hosts:  # Where members change, it may be gone.
                    cluster.hosts[machine].crash_in = crash_in
                    cluster.time.after(seconds, _restart, cluster, machine)
            cluster.counts["leads handed over"] += 1
            _in_process(host, partial(Node.hand_over, to=rng.choice([None, *others])))
        cluster.time.after(rng.expovariate(1.0) * HAND_OVER_SECONDS, hand_over)

    hand_over()


def _departures(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    """Tell the leader, a node, or all nodes to stop, as SIGTERM does. Each ends when it has handed over, and is started
    again."""
    every = list(cluster.hosts.values())
    leaving = rng.choice(([cluster.hosts[fault.node]], list(_leaders(cluster)), every))
    for host in leaving:
        _in_process(host, partial(_leave, cluster, host, host.reactor))
        cluster.time.after(fault.seconds + DEPARTURE_SECONDS_MAX, _restart, cluster, host.name)


def _leave(cluster: SimulatedCluster, host: Host, reactor: object, node: Node) -> Deferred[None]:
    """Have ``node`` prepare to stop, and end its process then."""

    def end() -> None:
        if host.alive and host.reactor is reactor:
            host.die()

    def ready(_: None) -> None:
        cluster.time.after(0.0, end)

    return node.leave().addCallback(ready)


def _leaders(cluster: SimulatedCluster) -> Iterator[Host]:
    """The nodes that believe to lead."""
    for host in cluster.hosts.values():
        if host.alive and host.node is not None and host.node.leader == host.name:
            yield host


def _in_process(host: Host, call: Callable[[Node], Deferred[Any]]) -> None:
    """Call the node of ``host``, in its process. Whether the call succeeds is of no concern."""

    def run() -> None:
        if host.node is not None:
            call(host.node).addErrback(lambda _: None)

    if host.reactor is not None and host.alive:
        host.reactor.run(run)


def _bad_network(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    network = cluster.network
    network.faults = Faults(
        delay_seconds=(rng.choice((0.0001, 0.005)), rng.choice((0.0001, 0.002, 0.02, 0.1))),
        loss=rng.choice((0.0, 0.02, 0.2, 0.5)),
        doubled=rng.choice((0.0, 0.02, 0.2)),
        breaks=rng.choice((0.0, 0.0, 0.02, 0.2)),
    )
    good = Faults()

    def end(bad: Faults) -> None:
        if network.faults is bad:
            network.faults = good

    cluster.time.after(fault.seconds, end, network.faults)


def _bad_link(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    other = rng.choice([name for name in cluster.machines if name != fault.node] or [fault.node])
    links = cluster.network.link_faults
    links[fault.node, other] = Faults((0.001, rng.choice((0.001, 0.05))), rng.choice((0.1, 0.5, 0.9)), 0.1, 0.1)
    if rng.random() < 0.3:  # A message this late comes from an earlier leader, or to a node that has restarted.
        links[fault.node, other] = Faults((0.001, rng.choice((0.3, 1.0))))
    cluster.time.after(fault.seconds, links.pop, (fault.node, other), None)


def _slow_disk(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    host = cluster.hosts[fault.node]
    host.save_seconds = rng.choice((0.002, 0.02, 0.2))
    cluster.time.after(fault.seconds, setattr, host, "save_seconds", 0.0)


def _hung_disk(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    host = cluster.hosts[fault.node]
    host.save_seconds = fault.seconds
    cluster.time.after(fault.seconds, setattr, host, "save_seconds", 0.0)


def _dead_disk(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    """Let the node's disk hang for good. The cluster must be able to spare the node."""
    host = cluster.hosts[fault.node]
    if host.alive and not host.disk_lost and cluster.can_spare(fault.node):
        host.disk_lost = host.disk_hangs = True


def _vanishing(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    """Kill the process and remove data that other nodes rely on: the newest segment or its end, the file of a subject,
    or the file that records what must be there. The node must not start again."""
    host = cluster.hosts[fault.node]
    if not host.alive or host.disk_lost or not cluster.can_spare(fault.node):
        return
    host.die()
    host.disk_lost = True
    disk = host.disk
    newest = segments(disk, DATA)[-1]
    data = disk.content(newest)
    frames = Frames(data, SegmentHeader.unpack(data, newest), newest)
    files = [newest, *(path for path in disk.files() if "/subjects/" in path or path.endswith("/acknowledged"))]
    if len(frames) and rng.random() < 0.5:
        offset = rng.choice(frames).offset
        disk.zero(newest, offset)
        host.removed_data = f"the bytes of {newest} from {offset} on"
        host.removed_frames = True
    else:
        host.removed_data = rng.choice(files)
        disk.remove(host.removed_data)
    cluster.time.after(fault.seconds, _restart, cluster, fault.node)


def _failing_sync(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    host = cluster.hosts[fault.node]
    host.sync_fails = True
    host.sync_fails_once = rng.random() < 0.5

    def end() -> None:
        host.sync_fails = host.sync_fails_once = False
        if not host.alive:
            host.start()

    cluster.time.after(fault.seconds, end)


def _full_disk(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    host = cluster.hosts[fault.node]
    host.disk.bytes_max = 0

    def end() -> None:
        host.disk.bytes_max = None
        if not host.alive:
            host.start()

    cluster.time.after(fault.seconds, end)


def _bit_rot(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    """Flip a bit in a file of the node's disk and restart the node; or leave it running and flip a bit in every
    snapshot that it may send. The cluster must be able to spare the node."""
    host = cluster.hosts[fault.node]
    files = [path for path in host.disk.files() if not path.endswith(("lock", ".temporary"))]
    if not files or not cluster.can_spare(fault.node):
        return
    host.disk_lost = True
    if host.alive and rng.random() < 0.5:
        host.damages_snapshots = True
        host.snapshot_completed()
        return
    if host.alive:
        host.crash()
    path = rng.choice(files)
    host.disk.flip_bit(path, rng.randrange(8 * max(1, host.disk.size(path))))
    cluster.time.after(fault.seconds, _restart, cluster, fault.node)


def _folder_lost(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    """Remove the node's data folder. The node starts again with an empty folder under its old name, and the other nodes
    must do without its vote."""
    if cluster.can_spare(fault.node):
        cluster.hosts[fault.node].lose_folder()
        cluster.counts["folders lost"] += 1
        cluster.time.after(fault.seconds, _restart, cluster, fault.node)


def _other_cluster_file(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    """Start the node with a wrong cluster file: it has a node more, a node less, or another node in place of one.

    This does not happen while the cluster is being founded. An operator would have to repair that
    (docs/operations.rst).
    """
    host = cluster.hosts[fault.node]
    if any(known.voter is None for known in cluster.checker.nodes.values()) or host.name not in cluster.names:
        return
    right = host.right_configuration
    if right.founding:
        return  # It is not what the founders are taken from.
    members = dict(right.members)
    others = [name for name in members if name != host.name]
    kind = rng.choice(("more", "less", "another"))
    if kind != "more" and others:
        del members[rng.choice(others)]
    if kind != "less" or not others:
        members["x"] = Member(Address("x", PEER_PORT), Address("x", CLIENT_PORT))
    if host.alive:
        host.crash()
    host.configuration = attrs.evolve(right, members=members)
    host.start()

    def end() -> None:
        if host.alive:
            host.crash()
        host.configuration = host.right_configuration
        host.start()

    cluster.time.after(fault.seconds, end)


def _remove_snapshot(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    """Remove the node's newest snapshot, as if it were found damaged. The snapshot before it and the journal replace
    it."""
    host = cluster.hosts[fault.node]
    if host.alive:
        host.crash()
    snapshots = [path for path in host.disk.files() if path.endswith(".snapshot")]
    if len(snapshots) > 1 and snapshots[-1] > host.removed_snapshot and not host.disk_lost:
        host.removed_snapshot = snapshots[-1]
        host.disk.remove(host.removed_snapshot)
        cluster.counts["snapshots removed"] += 1
    cluster.time.after(fault.seconds, _restart, cluster, fault.node)


def _stranger(cluster: SimulatedCluster, fault: Fault, rng: Random) -> None:
    """Send the node messages in the name of its peers, from another address."""
    codec = Codec(
        cluster.configuration.name,
        rng.choice([name for name in cluster.machines if name != fault.node] or ["x"]),
        members=cluster.names,
    )
    until = cluster.time.now + fault.seconds

    def speak() -> None:
        if cluster.time.now < until:
            slot = len(cluster.checker.chosen) + 1
            lie = rng.choice((ChosenValues(slot, (NO_OP,), slot), RegisterVotes(0, "", (), is_last=True)))
            cluster.network.send_datagram(("stranger", PEER_PORT), (fault.node, PEER_PORT), codec.encode(lie))
            cluster.time.after(rng.expovariate(1.0) * 0.02, speak)

    speak()


KINDS: dict[str, Callable[[SimulatedCluster, Fault, Random], Any]] = {
    "crash": _crash,
    "crash of all": _crash_everything,
    "process death": _process_death,
    "crash between steps": _crash_between_steps,
    "crash in a snapshot": _crash_in_a_snapshot,
    "long absence": _long_absence,
    "leader in trouble": _leader_in_trouble,
    "pause": _pause,
    "clock step": _step_clock,
    "clock step of all": _step_every_clock,
    "clock step of a client": _step_a_client_s_clock,
    "clock drift": _drift,
    "isolation": _isolate,
    "deafness": _deafen,
    "muteness": _mute,
    "cut link": _cut_one_link,
    "random cuts": _cut_at_random,
    "split": _split,
    "short reigns": _short_reigns,
    "hand-overs": _hand_overs,
    "departures": _departures,
    "bad network": _bad_network,
    "bad link": _bad_link,
    "slow disk": _slow_disk,
    "hung disk": _hung_disk,
    "dead disk": _dead_disk,
    "vanishing": _vanishing,
    "failing sync": _failing_sync,
    "full disk": _full_disk,
    "bit rot": _bit_rot,
    "folder lost": _folder_lost,
    "other cluster file": _other_cluster_file,
    "snapshot removed": _remove_snapshot,
    "stranger": _stranger,
}
"""Every kind of fault, by name."""
