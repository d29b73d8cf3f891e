"""Nodes whose log stays short: they take snapshots, restart from them, give them to those behind, watch each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from test.helpers.connected_nodes import ConnectedNodes
from test.helpers.fakes import (
    SESSION,
    NodesInOneReactor,
    Reactor,
    RecordingTransport,
    alone,
    cluster_of,
    node_of,
    outcome_of,
    submit,
)
from txpaxos.core.messages import NodeId, Slot
from txpaxos.core.ready import Checkpoint, Learned, PeerMet, Promised, Voted
from txpaxos.errors import OutcomeUnknown, StoreError
from txpaxos.node.counts import Count
from txpaxos.node.sessions import value_of
from txpaxos.node.snapshots.taking import SLOT_BYTES, Policy
from txpaxos.node.snapshots.transfer import TransferLimits
from txpaxos.protocol import PaxosProtocol
from txpaxos.storage.executor import execute_now
from txpaxos.storage.store import DiskStore
from txpaxos.wire.commands import Run
from txpaxos.wire.peer_messages import Fetching, FetchSnapshot, SnapshotPart, StateDigest

SLOW = TransferLimits(bytes_per_second=2**19)
POLICY = Policy(log_bytes=10 * (SLOT_BYTES + 67))
"""A snapshot every dozen commands, or so."""


class Ledger(PaxosProtocol):
    """Its state is what it has applied. ``applied`` is what this object applied itself, since its node started."""

    state_fields = ("lines",)
    lines: list[bytes]

    def __init__(self) -> None:
        super().__init__()
        self.lines = []
        self.applied: list[Slot] = []

    def apply(self, slot: Slot, command: bytes) -> object:
        self.applied.append(slot)
        self.lines.append(command)
        return len(self.lines)

    def query(self, query: bytes) -> object:
        return len(self.lines)


def fill(cluster: NodesInOneReactor, count: int, through: Callable[[], Any] | None = None) -> None:
    """Apply ``count`` commands, one after the other."""
    for _ in range(count):
        node = through() if through else cluster.lead()
        cluster.wait(node.submit(b"%d" % len(node.application.lines)))


def agreed(cluster: NodesInOneReactor) -> bool:
    """Whether all running nodes have come to the same."""
    return len({(node.applied_through, tuple(node.application.lines)) for node in cluster.nodes.values()}) == 1


def away(cluster: NodesInOneReactor, count: int) -> Any:
    """A follower that has missed ``count`` commands, and hears the others again from now on."""
    cluster.lead()
    node = cluster.followers()[0]
    cluster.wait(cluster.lead().submit(b"0"))
    cluster.reactor.spend(1.0, lambda: agreed(cluster))
    cluster.cut_off(node.name)
    fill(cluster, count, lambda: cluster.lead_of_the_rest(node))
    cluster.cut.clear()
    return node


def told(cluster: NodesInOneReactor, kind: type[Any]) -> list[tuple[NodeId, NodeId, Any]]:
    return [sent for sent in cluster.sent if isinstance(sent[2], kind)]


@pytest.fixture
def connected() -> ConnectedNodes:
    return ConnectedNodes(application=Ledger, snapshot_policy=POLICY)


# ------------------------------------------------------------- at one node


class TestAlone:
    def test_the_log_stays_short(self) -> None:
        harness = alone(application=Ledger, snapshot_policy=POLICY)
        for number in range(100):
            submit(harness, b"%d" % number)
        status = harness.node.status()
        slot = status.compaction.snapshot_slot
        assert slot > 80
        assert (status.compaction.taking, status.compaction.transfer) == (None, None)
        first_slot = harness.node._replica.log.first_slot
        assert 60 < first_slot <= slot
        saved = harness.store.saved
        assert saved[0] == Checkpoint(slot)
        assert len(saved) < 40
        assert len(harness.store.files.contents) == 2

    def test_a_checkpoint_holds_all_that_must_be_remembered(self) -> None:
        cluster = ConnectedNodes(application=Ledger, snapshot_policy=POLICY)
        fill(cluster, 30)
        for store in cluster.stores.values():
            checkpoints = [records for records in store.saves if Checkpoint in map(type, records)]
            assert checkpoints
            for records in checkpoints:
                rest = records[[type(record) for record in records].index(Checkpoint) :]
                assert isinstance(rest[1], Promised)
                assert {type(record) for record in rest[2:]} <= {PeerMet, Learned, Voted, Promised, Checkpoint}
                before = [record for save in store.saves[: store.saves.index(records)] for record in save]
                assert {record for record in before if isinstance(record, PeerMet)} <= set(rest)

    def test_restarts_from_the_snapshot_and_applies_only_what_came_after(self) -> None:
        cluster = ConnectedNodes(cluster_of("a"), Ledger, snapshot_policy=POLICY)
        fill(cluster, 50)
        node = cluster.nodes["a"]
        lines, slot = node.application.lines, node.status().compaction.snapshot_slot
        again = cluster.restart("a")
        cluster.lead()
        cluster.reactor.spend(1.0)
        assert again.application.lines == lines
        assert again.application.applied[0] == slot + 1
        assert len(again.application.applied) < 15
        fill(cluster, 30)
        assert again.status().compaction.snapshot_slot > slot
        assert [int(line) for line in again.application.lines] == list(range(80))

    def test_a_start_on_a_long_log_does_not_write_it_again(self) -> None:
        """A log of before there were snapshots, or of a time when none could be written. A checkpoint in the middle of
        it would hold all the rest. The next one is soon enough."""
        cluster = ConnectedNodes(cluster_of("a"), Ledger, snapshot_policy=Policy(log_bytes=10**9))
        fill(cluster, 200)
        cluster._options["snapshot_policy"] = POLICY
        again = cluster.restart("a")
        fill(cluster, 25)
        assert again.status().compaction.snapshot_slot > 200
        learned = [record for save in cluster.stores["a"].saves for record in save if isinstance(record, Learned)]
        assert sum(len(record.values) for record in learned) < 20
        assert len(cluster.restart("a").application.applied) < 15

    def test_a_command_sent_again_after_the_restart_gets_its_first_outcome(self) -> None:
        cluster = ConnectedNodes(cluster_of("a"), Ledger, snapshot_policy=POLICY)
        run = Run(SESSION, 1, 0, (b"once",))
        cluster.lead()
        first = cluster.wait(cluster.nodes["a"].submit_run(run))
        fill(cluster, 50)
        again = cluster.restart("a")
        assert again.application.applied[0] > 20
        assert cluster.wait(again.submit_run(run)) == first
        assert again.application.lines.count(b"once") == 1

    def test_the_current_state_has_the_hash_that_a_snapshot_of_it_would_have(self) -> None:
        harness = alone(application=Ledger, snapshot_policy=POLICY)
        hashes: dict[Slot, bytes] = {}
        for number in range(30):
            submit(harness, b"%d" % number)
            hashes[harness.node.applied_through] = harness.node._snapshots.state_hash()
        announced: list[Any] = []
        harness.node._snapshots._digests.announce = announced.append
        while not any(digest.state_hash for digest in announced):
            submit(harness, b"more")
            hashes[harness.node.applied_through] = harness.node._snapshots.state_hash()
        (digest,) = [digest for digest in announced if digest.state_hash]
        assert digest.state_hash == hashes[digest.slot]
        assert len(set(hashes.values())) == len(hashes)

    def test_a_node_without_the_hook_keeps_its_log(self) -> None:
        harness = alone(snapshot_policy=POLICY)
        for number in range(50):
            submit(harness, b"%d" % number)
        assert harness.node.status().compaction.snapshot_slot == 0
        assert harness.node._replica.log.first_slot == 1

    def test_a_snapshot_of_another_cluster_stops_the_start(self) -> None:
        cluster = ConnectedNodes(cluster_of("a"), Ledger, snapshot_policy=POLICY)
        fill(cluster, 20)
        store = cluster.stores["a"]
        cluster.kill("a")
        cluster.cluster = cluster_of("a", "other")
        cluster.stores["a"] = type(store)(saved=store.saved, files=store.files)
        with pytest.raises(StoreError, match="is of cluster test, not other"):
            cluster.start("a")

    def test_stop_gives_up_the_one_that_is_being_taken(self) -> None:
        harness = alone(application=Ledger, snapshot_policy=POLICY)
        harness.store.slow = True
        taking = None
        for number in range(40):
            harness.node.submit(b"%d" % number)
            for _ in range(5):
                harness.reactor.turn()
                if harness.store._in_flight:
                    harness.store.finish()
            taking = harness.node.status().compaction.taking
            if taking:
                break
        assert taking
        harness.node.stop()
        while harness.store._in_flight:
            harness.store.finish()
        harness.reactor.idle()
        assert harness.store.snapshot is None


class OnDisk:
    """A node by itself, whose folder survives it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reactor = Reactor()
        self.start()

    def start(self) -> None:
        self.store = DiskStore(self.folder, "test", "a", sync_in_thread=False, execute=execute_now, segment_bytes=4096)
        self.application = Ledger()
        self.node = node_of(
            self.application, self.reactor, "a", cluster_of("a"), self.store, rng=Random(1), snapshot_policy=POLICY
        )
        self.node.start(RecordingTransport())
        self.reactor.spend(1.0)

    def submit(self, count: int) -> None:
        for _ in range(count):
            outcome = outcome_of(self.node.submit(b"%d" % len(self.application.lines)))
            assert self.reactor.spend(5.0, lambda: outcome)  # noqa: B023
        assert self.reactor.spend(5.0, lambda: self.node.status().compaction.taking is None)

    def files(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "snapshots").iterdir())


def test_a_node_on_a_disk_is_started_again_and_again(tmp_path: Path) -> None:
    """Started again and again, also after its newest snapshot was moved away: the older one and the journal suffice."""
    disk_node = OnDisk(tmp_path)
    sizes = []
    for turn in range(6):
        disk_node.submit(60)
        assert len(disk_node.files()) == 2
        slot = disk_node.node.status().compaction.snapshot_slot
        disk_node.node.stop()
        sizes.append(sum(path.stat().st_size for path in tmp_path.glob("**/*") if "snapshots" not in path.parts))
        if turn % 2:
            (tmp_path / "snapshots" / disk_node.files()[-1]).rename(tmp_path / f"aside.{turn}")
        disk_node.start()
        assert [int(line) for line in disk_node.application.lines] == list(range(60 * (turn + 1)))
        assert len(disk_node.application.applied) < 30
        assert (disk_node.application.applied[0] == slot + 1) is not bool(turn % 2)
    assert max(sizes[1:]) < 1.5 * sizes[0], "the journal does not grow"
    disk_node.node.stop()


# ------------------------------------------------------------- among several


def test_all_take_them_at_the_same_slots_and_agree(connected: ConnectedNodes) -> None:
    fill(connected, 60)
    connected.reactor.spend(1.0)
    told_at: dict[Slot, set[tuple[NodeId, bytes]]] = {}
    for sender, _, digest in told(connected, StateDigest):
        if digest.state_hash:
            told_at.setdefault(digest.slot, set()).add((sender, digest.state_hash))
    assert len(told_at) >= 4
    for said in told_at.values():
        assert {node for node, _ in said} == {"a", "b", "c"}
        assert len({state_hash for _, state_hash in said}) == 1


def test_a_node_a_bit_behind_needs_no_snapshot(connected: ConnectedNodes) -> None:
    """The others keep the log back to the older of their two."""
    fill(connected, 20)
    node = away(connected, 8)
    assert connected.reactor.spend(10.0, lambda: agreed(connected))
    assert told(connected, FetchSnapshot) == []
    assert node.application.applied == sorted(node.application.applied)


def test_a_node_that_was_away_gets_a_snapshot_over_the_stream_and_then_the_rest(connected: ConnectedNodes) -> None:
    node = away(connected, 80)
    assert connected.reactor.spend(20.0, lambda: agreed(connected))
    assert [int(line) for line in node.application.lines] == [0, *range(1, 81)]
    snapshot = connected.stores[node.name].snapshot
    assert snapshot is not None
    assert (
        2
        <= node.application.applied.index(next(slot for slot in node.application.applied if slot > snapshot.slot)) + 1
        < 10
    )
    assert len(node.application.applied) < 40
    assert len({sender for sender, _, _ in told(connected, FetchSnapshot)}) == 1
    streamed = sum(count for (_, to), count in connected.streamed.items() if to == node.name)
    datagrams = [part for _, _, part in told(connected, SnapshotPart)]
    assert streamed or datagrams
    assert node.status().compaction.snapshot_slot >= snapshot.slot
    fill(connected, 20)
    assert connected.reactor.spend(5.0, lambda: agreed(connected))
    assert connected.wait(node.read(b"")).result == 101
    own = {digest.slot for sender, _, digest in told(connected, StateDigest) if sender == node.name}
    assert own
    assert own <= {digest.slot for sender, _, digest in told(connected, StateDigest) if sender != node.name}
    assert not any(other.counters[Count.SNAPSHOT_PART_NOT_AWAITED] for other in connected.nodes.values())


def test_a_big_one_goes_over_the_stream_in_parts() -> None:
    connected = ConnectedNodes(application=Ledger, snapshot_policy=Policy(log_bytes=10 * 30_000), transfer_limits=SLOW)
    connected.lead()
    node = connected.followers()[0]
    connected.cut_off(node.name)
    for number in range(40):
        connected.wait(connected.lead_of_the_rest(node).submit(b"%d" % number * 15_000))
    connected.cut.clear()
    assert connected.reactor.spend(20.0, lambda: agreed(connected))
    asked = [question.offset for _, _, question in told(connected, FetchSnapshot)]
    assert len(set(asked)) > 5
    assert sum(count for (_, to), count in connected.streamed.items() if to == node.name) > 300_000
    assert len(node.application.applied) < 30


def test_a_node_that_fetches_one_says_so_until_it_is_level(connected: ConnectedNodes) -> None:
    node = away(connected, 80)
    assert connected.reactor.spend(20.0, lambda: agreed(connected))
    fill(connected, 3)
    slots = [message.slot for sender, _, message in told(connected, Fetching) if sender == node.name]
    assert slots[0] > 0
    assert slots[-1] == 0
    assert node.status().compaction.transfer is None
    assert all(other._snapshots._fetches.count == 0 for other in connected.nodes.values())


def test_a_node_that_needs_one_tells_its_clients_until_it_is_level(connected: ConnectedNodes) -> None:
    """No command comes after it is level, which would show that it is."""
    node = away(connected, 80)
    told_clients: list[bool] = []
    node.watch_leader(lambda: told_clients.append(node.is_catching_up))
    assert not node.is_catching_up
    assert connected.reactor.spend(20.0, lambda: node.is_catching_up)
    assert connected.reactor.spend(20.0, lambda: agreed(connected))
    assert not node.is_catching_up
    assert [node.status().compaction.transfer, told_clients[-1], told_clients.count(True)] == [None, False, 1]


def test_restart_of_a_node_that_got_one(connected: ConnectedNodes) -> None:
    node = away(connected, 80)
    assert connected.reactor.spend(20.0, lambda: agreed(connected))
    lines = node.application.lines
    again = connected.restart(node.name)
    assert again.application.lines == lines
    assert again.application.applied[:1] != [2]
    fill(connected, 5)
    assert connected.reactor.spend(5.0, lambda: agreed(connected))


def test_the_transfer_is_gone_on_with_after_a_crash_of_the_receiver() -> None:
    connected = ConnectedNodes(application=Ledger, snapshot_policy=Policy(log_bytes=10 * 30_000), transfer_limits=SLOW)
    connected.lead()
    node = connected.followers()[0]
    connected.cut_off(node.name)
    for number in range(40):
        connected.wait(connected.lead_of_the_rest(node).submit(b"%d" % number * 15_000))
    connected.cut.clear()
    assert connected.reactor.spend(20.0, lambda: len({one.offset for _, _, one in told(connected, FetchSnapshot)}) > 4)
    assert node.status().compaction.transfer is not None
    again = connected.restart(node.name)
    before = len(connected.sent)
    assert connected.reactor.spend(20.0, lambda: agreed(connected))
    offsets = [one.offset for _, _, one in connected.sent[before:] if isinstance(one, FetchSnapshot)]
    assert min(offsets) > 2 * 2**16
    assert len(again.application.lines) == 40


def test_callers_that_wait_at_a_node_that_installs_get_their_first_outcome(connected: ConnectedNodes) -> None:
    """Their commands were applied on the way, through another node, and are in the snapshot."""
    connected.lead()
    node = connected.followers()[0]
    connected.cut_off(node.name)
    runs = [Run(SESSION, sequence, 0, (b"once %d" % sequence,)) for sequence in (1, 2, 3)]
    waiting: list[list[Any]] = [outcome_of(node.submit_run(run)) for run in runs]
    leader = connected.lead_of_the_rest(node)
    first = [connected.wait(leader.submit_run(run)) for run in runs[:2]]
    fill(connected, 80, lambda: connected.lead_of_the_rest(node))
    assert waiting == [[], [], []]
    connected.cut.clear()
    assert connected.reactor.spend(20.0, lambda: all(waiting))
    assert [outcome for (outcome,) in waiting[:2]] == first
    assert [value_of(outcome) for outcome in waiting[2][0]] == [83]
    assert told(connected, FetchSnapshot)
    assert all(node.application.lines.count(payload) == 1 for run in runs for payload in run.payloads)


def test_of_an_outcome_that_is_no_longer_kept_nothing_is_known(connected: ConnectedNodes) -> None:
    connected.lead()
    node = connected.followers()[0]
    connected.cut_off(node.name)
    waiting: list[Any] = outcome_of(node.submit_run(Run(SESSION, 1, 0, (b"once",))))
    leader = connected.lead_of_the_rest(node)
    connected.wait(leader.submit_run(Run(SESSION, 1, 0, (b"once",))))
    connected.wait(leader.submit_run(Run(SESSION, 2, 1, (b"acknowledges it",))))
    fill(connected, 80, lambda: connected.lead_of_the_rest(node))
    connected.cut.clear()
    assert connected.reactor.spend(20.0, lambda: waiting)
    ((outcome,),) = waiting
    assert outcome.error is OutcomeUnknown


def test_a_read_that_waits_at_a_node_that_installs_sees_what_is_in_it(connected: ConnectedNodes) -> None:
    connected.lead()
    node = connected.followers()[0]
    connected.cut_off(node.name)
    waiting: list[Any] = outcome_of(node.read(b""))
    fill(connected, 80, lambda: connected.lead_of_the_rest(node))
    connected.cut.clear()
    assert connected.reactor.spend(20.0, lambda: waiting)
    assert waiting[0].result >= 80
    assert told(connected, FetchSnapshot)


def test_the_one_that_lags_is_needed_for_a_quorum(connected: ConnectedNodes) -> None:
    """Of three, one is away for good, and one has just lost more than the log goes back to."""
    node = away(connected, 80)
    gone = next(other for other in connected.followers() if other is not node)
    connected.kill(gone.name)
    fill(connected, 20)
    assert agreed(connected) or connected.reactor.spend(5.0, lambda: agreed(connected))
    assert len(node.application.lines) == 101
    assert told(connected, FetchSnapshot)


# ------------------------------------------------------------- what raises


def test_snapshots_that_raise_leave_the_node_alive(logged_errors: list[dict[str, Any]]) -> None:
    class Odd(Ledger):
        def snapshot(self) -> Iterator[bytes]:
            raise ValueError("no")

        def restore(self, chunks: Iterator[bytes]) -> None:
            raise AssertionError("there is none")

    harness = alone(application=Odd, snapshot_policy=POLICY)
    for number in range(30):
        submit(harness, b"%d" % number)
    assert harness.failures == []
    assert harness.node._replica.log.first_slot == 1
    assert len(logged_errors) == 2
    logged_errors.clear()


def test_a_snapshot_that_the_application_refuses_stops_the_node(logged_errors: list[dict[str, Any]]) -> None:
    """Its state would be another than that of the others."""

    class Picky(Ledger):
        def restore(self, chunks: Iterator[bytes]) -> None:
            raise ValueError("too new")

    connected = ConnectedNodes(application=Picky, snapshot_policy=POLICY)
    node = away(connected, 80)
    failures: list[Any] = []
    node.failed.addErrback(failures.append)
    assert connected.reactor.spend(20.0, lambda: failures)
    assert failures[0].check(StoreError)
    assert "cannot be used: ValueError: too new" in str(failures[0].value)
    logged_errors.clear()
