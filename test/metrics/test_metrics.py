"""The metrics: histograms, what a meter counts, and that each metric is documented and has the right form."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from test.helpers.connected_nodes import ConnectedNodes
from test.helpers.fakes import ONE, NodeHarness
from test.node.snapshots.test_coordinator import POLICY, Ledger, agreed, away
from txpaxos.core.messages import Ballot
from txpaxos.core.ready import Chosen, LeadershipAcquired, LeadershipChanged, LeadershipLost, Ready
from txpaxos.errors import CommandFailed, NotChosen
from txpaxos.metrics.collector import DESCRIPTIONS, NodeCollector
from txpaxos.metrics.histogram import SECONDS, Histogram
from txpaxos.metrics.meter import Meter
from txpaxos.metrics.round_trips import RoundTrips
from txpaxos.node.events import ReadyReleased, SaveFinished, SlotApplied, ValueReached
from txpaxos.node.sessions import Failed
from txpaxos.server.measuring import kind_of, metered
from txpaxos.wire.client_messages import KeepTimers, KeepTogether, Read, StatusRequest, Submit
from txpaxos.wire.peer_messages import SnapshotPart

DOCS = Path(__file__).parents[2] / "docs"


def test_a_histogram_counts_what_is_at_most_each_bound() -> None:
    rng, histogram = Random(1), Histogram()
    values = [rng.expovariate(50.0) for _ in range(500)] + [SECONDS[0], SECONDS[-1], 99.0]
    for value in values:
        histogram.observe(value)
    bounds = [*SECONDS, float("inf")]
    assert histogram.buckets() == [
        ("+Inf" if bound == float("inf") else repr(bound), sum(value <= bound for value in values)) for bound in bounds
    ]
    assert histogram.total == len(values)
    assert histogram.sum == pytest.approx(sum(values))


def test_a_quantile_is_the_bound_of_its_bucket() -> None:
    histogram = Histogram((1.0, 2.0, 3.0))
    assert histogram.quantile(0.5) is None
    histogram.observe(0.5, 98)
    histogram.observe(2.5)
    histogram.observe(9.0)
    assert [histogram.quantile(part) for part in (0.5, 0.98, 0.99, 1.0)] == [1.0, 1.0, 3.0, 3.0]


def test_what_a_meter_sees() -> None:
    clock = Clock()
    meter = Meter(clock.seconds)
    meter(ValueReached(Chosen(1, b"")))
    clock.advance(0.004)
    meter(SlotApplied(1))
    meter(SaveFinished(0.02))
    ballot = Ballot(1, "a")
    facts = (LeadershipAcquired(ballot), LeadershipChanged(None, "a"), LeadershipLost(ballot))
    meter(ReadyReleased(Ready(leadership=facts), 1))
    assert meter.applies.total == 1
    assert meter.applies.sum == pytest.approx(0.004)
    assert (meter.syncs.total, meter.syncs.sum) == (1, 0.02)
    assert (meter.elections_won, meter.leads_lost, meter.leader_changes) == (1, 1, 1)


def test_the_next_heartbeat_is_timed_when_one_was_answered() -> None:
    times = RoundTrips()
    times.answered("b", 1, 0.0)  # None was sent.
    times.sent(("b", "c"), 1, 1.0)
    times.sent(("b", "c"), 2, 1.1)
    times.answered("c", 1, 1.3)  # It takes longer than heartbeats follow each other.
    times.answered("b", 2, 1.4)  # The first one was lost.
    times.answered("b", 1, 1.5)  # It was only late.
    times.answered("c", 2, 1.6)
    times.sent(("b", "c"), 3, 2.0)
    times.answered("b", 3, 2.004)
    times.answered("b", 3, 2.9)
    assert {peer: one.total for peer, one in times.seconds.items()} == {"b": 1, "c": 1}
    assert [times.seconds[peer].sum for peer in ("b", "c")] == pytest.approx([0.004, 0.3])


class Watched(ConnectedNodes):
    """Nodes with a meter each."""

    def __init__(self, **options: Any) -> None:
        self.meters: dict[str, Meter] = {}
        super().__init__(**options)

    def start(self, node: str) -> None:
        self.meters[node] = self._options["observe"] = Meter(self.reactor.monotonic)
        super().start(node)

    def samples(self, node: str) -> dict[tuple[str, ...], float]:
        """What the metrics of a node say, by name and labels."""
        return samples_of(self.nodes[node], self.meters[node])


def samples_of(node: Any, meter: Meter) -> dict[tuple[str, ...], float]:
    text = NodeCollector(node, meter, lambda: {"clients": 3}, lambda: True).rendered().decode()
    families = text_string_to_metric_families(text)
    return {(sample.name, *sample.labels.values()): sample.value for one in families for sample in one.samples}


def test_how_long_peers_take_to_answer_the_leader() -> None:
    """A message takes half a millisecond here. A peer answers after the saves that it has begun."""
    nodes = Watched()
    leader = nodes.lead()
    slow, other = nodes.followers()
    nodes.reactor.spend(1.0)
    samples = nodes.samples(leader.name)
    for peer in (slow.name, other.name):
        count = samples["txpaxos_peer_round_trip_seconds_count", peer]
        assert count > 5
        assert samples["txpaxos_peer_round_trip_seconds_sum", peer] / count == pytest.approx(0.001, rel=0.01)
    assert ("txpaxos_peer_round_trip_seconds_count", leader.name) not in nodes.samples(slow.name)

    store = nodes.stores[slow.name]
    store.slow = True
    nodes.wait(leader.submit(b"x"))
    assert nodes.reactor.spend(1.0, lambda: store._in_flight)
    nodes.reactor.spend(0.2)
    store.slow = False
    while store._in_flight:
        store.finish()
    nodes.reactor.spend(0.5)
    after = nodes.samples(leader.name)
    buckets = {
        peer: [after["txpaxos_peer_round_trip_seconds_bucket", bound, peer] for bound in ("0.0025", "0.25", "+Inf")]
        for peer in (slow.name, other.name)
    }
    fast, longer, total = buckets[slow.name]
    assert fast + 1 == longer == total
    assert buckets[other.name] == [buckets[other.name][0]] * 3


def test_a_peer_that_was_removed_is_not_shown() -> None:
    nodes = Watched()
    leader = nodes.lead()
    nodes.reactor.spend(1.0)
    gone, other = (node.name for node in nodes.followers())
    leader._peers.remove_peer(gone)
    samples = nodes.samples(leader.name)
    assert ("txpaxos_peer_round_trip_seconds_count", other) in samples
    assert ("txpaxos_peer_round_trip_seconds_count", gone) not in samples


def test_the_bytes_of_snapshots_on_their_way() -> None:
    """A node that was away gets another's snapshot. No part is lost here, so all nodes count the same."""
    nodes = Watched(application=Ledger, snapshot_policy=POLICY)
    node = away(nodes, 80)
    nodes.reactor.spend(10.0, lambda: agreed(nodes) and not node.is_catching_up)
    assert agreed(nodes)
    snapshot = node._store.snapshot
    assert snapshot is not None
    sent = {name: nodes.samples(name)["txpaxos_snapshot_sent_bytes_total",] for name in nodes.nodes}
    received = nodes.samples(node.name)["txpaxos_snapshot_received_bytes_total",]
    parts = [message for _, to, message in nodes.sent if isinstance(message, SnapshotPart) and to == node.name]
    assert received == sum(sent.values()) == sum(len(part.data) for part in parts) > 0
    assert sent[node.name] == 0
    status = node.status().compaction
    assert status.snapshots_bytes == nodes.samples(node.name)["txpaxos_snapshots_bytes",] >= snapshot.size_bytes


def test_requests_by_kind_and_outcome() -> None:
    clock, meter = Clock(), Meter()
    run = Submit(1, b"session1", 1, 0, (b"a", b"b", b"c"))
    result: Deferred[Any] = Deferred()
    seen: list[Any] = []
    metered(meter, clock, run, result).addCallback(seen.append)
    clock.advance(0.5)
    outcomes = [b"x", Failed(CommandFailed, ""), b"y"]
    result.callback(outcomes)
    assert seen == [outcomes]
    metered(meter, clock, run, fail(NotChosen("no"))).addErrback(lambda _: None)
    metered(meter, clock, run, fail(RuntimeError("of an application"))).addErrback(lambda _: None)
    cancelled: Deferred[Any] = Deferred()
    metered(meter, clock, Read(1, b"", True), cancelled).addErrback(lambda _: None)
    cancelled.cancel()
    metered(meter, clock, Read(1, b"", False), succeed(None))
    assert meter.outcomes == {
        ("command", "ok"): 2,
        ("command", "CommandFailed"): 1,
        ("command", "NotChosen"): 3,
        ("command", "other"): 3,
        ("local read", "cancelled"): 1,
        ("read", "ok"): 1,
    }
    assert meter.requests["command"].total == 9
    assert kind_of(StatusRequest(1)) == "other"
    assert kind_of(KeepTimers(1, 2, ("t",))) == kind_of(KeepTogether(1, 2, 3, 1)) == "keep-alive"


def test_each_metric_is_there_and_no_other() -> None:
    node = NodeHarness("a", ONE).node
    meter = Meter()
    meter.request_ended("command", 1, 0.01, "ok")
    text = NodeCollector(node, meter, lambda: {"clients": 3}, lambda: True).rendered().decode()
    families = list(text_string_to_metric_families(text))
    names = {one.name + "_total" * (one.type == "counter") for one in families}
    assert names | {"txpaxos_key_expiry_seconds", "txpaxos_failure_tolerance"} == set(DESCRIPTIONS)
    samples = samples_of(node, meter)
    assert samples["txpaxos_clients",] == 3.0
    assert samples["txpaxos_requests_total", "command", "ok"] == 1.0
    assert samples["txpaxos_request_seconds_bucket", "command", "0.01"] == 1.0


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_names_follow_the_rules(name: str) -> None:
    """https://prometheus.io/docs/practices/naming/: one prefix, base units at the end, ``_total`` for counters."""
    assert re.fullmatch(r"txpaxos(_[a-z]+)+", name)
    assert not re.search(r"(_ms|_milliseconds|_percent|_count|_sum|_bucket)$", name)


def test_the_page_has_each_metric_and_no_other() -> None:
    page = (DOCS / "monitoring.rst").read_text()
    listed = set(re.findall(r"^``(txpaxos_\w+)``", page, re.MULTILINE))
    assert listed == set(DESCRIPTIONS)
