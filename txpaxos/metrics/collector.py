"""The metrics of a node as families of Prometheus, made when they are asked for.

The names follow the rules of https://prometheus.io/docs/practices/naming/: base units, ``_total`` for what only counts
up. :data:`DESCRIPTIONS` has all of them. No label has values without a bound: peers are members, reasons and kinds are
those of this release.

It is rendered in the reactor's thread, since a node is looked at nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from txpaxos.application import name_of
from txpaxos.core.drops import Drop
from txpaxos.metrics.histogram import Histogram
from txpaxos.metrics.meter import Meter
from txpaxos.node.counts import Count
from txpaxos.node.node import Node
from txpaxos.node.status import NodeStatus

DESCRIPTIONS: Mapping[str, str] = {
    "txpaxos_info": "1, with the release and the application in labels.",
    "txpaxos_up_seconds": "How long ago the node started.",
    "txpaxos_has_leader": "1 if the node knows a leader.",
    "txpaxos_is_leader": "1 if the node leads.",
    "txpaxos_failure_tolerance": (
        "How many more voters may fail, whichever they are, until the service stops; -1 if it has. Only the leader"
        " knows, so only it has this metric."
    ),
    "txpaxos_ready": "1 if the node can serve clients, as /readyz says, but that no quorum is asked.",
    "txpaxos_leader_changes_total": "How often the node saw another leader than before, or none.",
    "txpaxos_elections_won_total": "How often the node began to lead.",
    "txpaxos_leads_lost_total": "How often the node ceased to lead.",
    "txpaxos_ballot_round": "The round of the ballot that the node follows.",
    "txpaxos_chosen_through_slot": "The last slot up to which the node knows all values to be chosen.",
    "txpaxos_applied_through_slot": "The last slot that the node has applied.",
    "txpaxos_open_slots": "On the leader: slots that are proposed and not known to be chosen.",
    "txpaxos_peer_lag_slots": "On the leader: how many chosen slots each follower had not learned when last heard.",
    "txpaxos_peer_silence_seconds": "How long ago the node last heard each peer. Followers need not hear each other.",
    "txpaxos_peer_round_trip_seconds": (
        "On the leader: how long each peer took to answer a heartbeat. It answers after the saves that it has begun."
    ),
    "txpaxos_peers_unheard": "On the leader: how many peers it expects to hear, and does not.",
    "txpaxos_members": "How many members there are, by role.",
    "txpaxos_commands_waiting": "Commands that the node has accepted and not yet seen applied.",
    "txpaxos_clients": "How many clients are connected.",
    "txpaxos_sessions": "How many sessions of clients the node remembers.",
    "txpaxos_requests_total": "Requests of clients, by kind and outcome. Commands are counted one by one.",
    "txpaxos_request_seconds": "How long requests of clients took at this node, from their arrival to their answer.",
    "txpaxos_sync_seconds": "How long saves took, until they were on disk.",
    "txpaxos_apply_seconds": "How long slots took to be applied.",
    "txpaxos_reactor_stall_seconds": "By how much a timer of the reactor came late: how long something held it up.",
    "txpaxos_journal_bytes": "The size of the journal on disk. It grows by a whole file, whose room is taken at once.",
    "txpaxos_disk_hangs_seconds": "How long the save under way has hung; 0 if none does.",
    "txpaxos_snapshot_slot": "The slot of the newest snapshot; 0 if there is none.",
    "txpaxos_snapshot_age_slots": "How many slots were applied since the newest snapshot.",
    "txpaxos_snapshots_bytes": "The size of all snapshots on disk, with one that is not complete.",
    "txpaxos_snapshot_sent_bytes_total": "Bytes of snapshots that were sent to other nodes.",
    "txpaxos_snapshot_received_bytes_total": "Bytes of snapshots that came from other nodes.",
    "txpaxos_snapshot_in_work": "1 while a snapshot is taken.",
    "txpaxos_catching_up": "1 while the node fetches a snapshot, or the log after it.",
    "txpaxos_registers": "How many registers are decided.",
    "txpaxos_timers": "How many timers are set in the replicated state.",
    "txpaxos_key_expiry_seconds": "How long the certificate of the node is still valid. Only with keys.",
    "txpaxos_clock_offset_seconds": "On the leader: by how much the clock of each other voter is ahead of its own.",
    "txpaxos_clock_jump_refused_seconds": "On the leader: how much later than it should be the clocks say it is.",
    "txpaxos_messages_dropped_total": "Messages that the core dropped, by reason. Small counts of most are normal.",
    "txpaxos_events_total": "Events on the network and with clients that were counted, by reason.",
}
"""Every metric, and what it says."""

_ZEROS: Mapping[type[Drop | Count], dict[str, int]] = {
    reasons: dict.fromkeys((one.metric_name for one in reasons), 0) for reasons in (Drop, Count)
}
"""Each reason is there from the start: what Prometheus first sees as 1 has not increased for it."""


class NodeCollector(Collector):
    """The metrics of one node, for a registry of ``prometheus_client``.

    :param node: the node.
    :param meter: what is counted and timed there.
    :param status: the node's status, as ``txpaxos status`` has it: it knows how many clients are connected.
    :param is_ready: tells whether the node can serve clients.
    """

    def __init__(
        self, node: Node, meter: Meter, status: Callable[[], dict[str, Any]], is_ready: Callable[[], bool]
    ) -> None:
        self._node = node
        self._meter = meter
        self._status = status
        self._is_ready = is_ready
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def rendered(self) -> bytes:
        """All of it as Prometheus reads it."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry would ask the node."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Each family, with its values now."""
        node, status = self._node, self._node.status()
        yield from self._of_the_lead(status)
        yield from self._of_the_log(status)
        yield from self._of_peers(status)
        yield from self._of_clients(status)
        yield from self._of_the_machine(status)
        yield _counter("txpaxos_messages_dropped_total", {**_ZEROS[Drop], **status.replica.dropped}, "reason")
        yield _counter("txpaxos_events_total", {**_ZEROS[Count], **_by_reason(status.counters)}, "reason")
        info = _gauge_family("txpaxos_info", ["node", "release", "application"])
        info.add_metric([node.name, version("txpaxos"), name_of(node.application)], 1)
        yield info

    def _of_the_lead(self, status: NodeStatus) -> Iterator[Metric]:
        replica, meter = status.replica, self._meter
        yield _gauge("txpaxos_has_leader", replica.leader is not None)
        yield _gauge("txpaxos_is_leader", replica.leader == self._node.name)
        yield _gauge("txpaxos_ready", self._is_ready())
        yield _gauge("txpaxos_ballot_round", replica.ballot.round)
        if status.failure_tolerance is not None:
            yield _gauge("txpaxos_failure_tolerance", status.failure_tolerance)
        yield _counter("txpaxos_leader_changes_total", meter.leader_changes)
        yield _counter("txpaxos_elections_won_total", meter.elections_won)
        yield _counter("txpaxos_leads_lost_total", meter.leads_lost)

    def _of_the_log(self, status: NodeStatus) -> Iterator[Metric]:
        replica, compaction = status.replica, status.compaction
        yield _gauge("txpaxos_chosen_through_slot", replica.chosen_through)
        yield _gauge("txpaxos_applied_through_slot", status.applied_through)
        yield _gauge("txpaxos_open_slots", replica.open_slots)
        yield _gauge("txpaxos_snapshot_slot", compaction.snapshot_slot)
        yield _gauge("txpaxos_snapshot_age_slots", status.applied_through - compaction.snapshot_slot)
        yield _gauge("txpaxos_snapshot_in_work", compaction.taking is not None)
        yield _gauge("txpaxos_snapshots_bytes", compaction.snapshots_bytes)
        yield _counter("txpaxos_snapshot_sent_bytes_total", compaction.snapshot_sent_bytes)
        yield _counter("txpaxos_snapshot_received_bytes_total", compaction.snapshot_received_bytes)
        yield _gauge("txpaxos_catching_up", self._node.is_catching_up)
        yield _gauge("txpaxos_timers", len(self._node.timers))
        yield _gauge("txpaxos_registers", self._node.registers_total)
        yield _gauge("txpaxos_sessions", self._node.sessions_total)

    def _of_peers(self, status: NodeStatus) -> Iterator[Metric]:
        yield _gauge("txpaxos_peer_lag_slots", status.replica.lag_slots, "peer")
        heard = {peer: seconds for peer, seconds in status.heard.items() if seconds is not None}
        yield _gauge("txpaxos_peer_silence_seconds", heard, "peer")
        timed = {peer: times for peer, times in self._meter.round_trips.seconds.items() if peer in status.heard}
        yield _histogram("txpaxos_peer_round_trip_seconds", timed, "peer")
        yield _gauge("txpaxos_peers_unheard", len(status.unheard))
        roles = [one.role for one in self._node.members.entry.members.values()]
        yield _gauge("txpaxos_members", {role: roles.count(role) for role in ("voter", "learner")}, "role")
        yield _gauge("txpaxos_clock_offset_seconds", status.clock_offsets_seconds, "peer")
        yield _gauge("txpaxos_clock_jump_refused_seconds", status.clock_jump_refused_seconds)

    def _of_clients(self, status: NodeStatus) -> Iterator[Metric]:
        meter = self._meter
        yield _gauge("txpaxos_commands_waiting", status.waiting)
        yield _gauge("txpaxos_clients", self._status()["clients"])
        total = CounterMetricFamily(
            "txpaxos_requests", DESCRIPTIONS["txpaxos_requests_total"], labels=["kind", "outcome"]
        )
        for labels, count in meter.outcomes.items():
            total.add_metric([*labels], count)
        yield total
        yield _histogram("txpaxos_request_seconds", meter.requests, "kind")

    def _of_the_machine(self, status: NodeStatus) -> Iterator[Metric]:
        meter = self._meter
        yield _gauge("txpaxos_up_seconds", status.up_seconds)
        yield _histogram("txpaxos_sync_seconds", meter.syncs)
        yield _histogram("txpaxos_apply_seconds", meter.applies)
        yield _histogram("txpaxos_reactor_stall_seconds", meter.stalls)
        yield _gauge("txpaxos_journal_bytes", status.journal_bytes)
        yield _gauge("txpaxos_disk_hangs_seconds", status.disk_hangs_seconds or 0.0)
        if status.keys_expire_in_seconds is not None:
            yield _gauge("txpaxos_key_expiry_seconds", status.keys_expire_in_seconds)


def _by_reason(counters: Mapping[str, int]) -> dict[str, int]:
    """The counters by their reasons alone. What follows the colon of some of them is for people."""
    found: dict[str, int] = {}
    for name, count in counters.items():
        reason = name.partition(":")[0]
        found[reason] = found.get(reason, 0) + count
    return found


def _gauge_family(name: str, labels: list[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, DESCRIPTIONS[name], labels=labels)


def _gauge(name: str, value: float | Mapping[str, float], label: str = "") -> GaugeMetricFamily:
    """A gauge, with one value, or with a value for each value of ``label``."""
    family = _gauge_family(name, [label] if label else [])
    _add(family, value)
    return family


def _counter(name: str, value: float | Mapping[str, float], label: str = "") -> CounterMetricFamily:
    family = CounterMetricFamily(name.removesuffix("_total"), DESCRIPTIONS[name], labels=[label] if label else [])
    _add(family, value)
    return family


def _add(family: Any, value: float | Mapping[str, float]) -> None:
    if isinstance(value, Mapping):
        for labelled, one in value.items():
            family.add_metric([labelled], one)
    else:
        family.add_metric([], float(value))


def _histogram(name: str, value: Histogram | Mapping[str, Histogram], label: str = "") -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, DESCRIPTIONS[name], labels=[label] if label else [])
    for labelled, one in value.items() if isinstance(value, Mapping) else (("", value),):
        family.add_metric([labelled] if label else [], one.buckets(), one.sum)
    return family
