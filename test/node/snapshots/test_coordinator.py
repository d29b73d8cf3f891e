"""Nodes whose log stays short: they take snapshots, restart from them, give them to those behind, watch each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from test.helpers.fakes import (
    SESSION,
    Reactor,
    RecordingTransport,
    Together,
    alone,
    cluster_of,
    node_of,
    outcome_of,
    submit,
)
from test.helpers.joined import Joined
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
POLICY = Policy(log_bytes=10 * (SLOT_BYTES + 50))
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


def fill(together: Together, count: int, through: Callable[[], Any] | None = None) -> None:
    """So many commands are applied, one after the other."""
    for _ in range(count):
        node = through() if through else together.lead()
        together.wait(node.submit(b"%d" % len(node.application.lines)))


def agreed(together: Together) -> bool:
    """Whether all running nodes have come to the same."""
    return len({(node.applied_through, tuple(node.application.lines)) for node in together.nodes.values()}) == 1


def away(together: Together, count: int) -> Any:
    """A follower that has missed so many commands, and hears the others again from now on."""
    together.lead()
    node = together.followers()[0]
    together.wait(together.lead().submit(b"0"))
    together.reactor.spend(1.0, lambda: agreed(together))
    together.cut_off(node.name)
    fill(together, count, lambda: together.lead_of_the_rest(node))
    together.cut.clear()
    return node


def told(together: Together, kind: type[Any]) -> list[tuple[NodeId, NodeId, Any]]:
    return [sent for sent in together.sent if isinstance(sent[2], kind)]


@pytest.fixture
def joined() -> Joined:
    return Joined(application=Ledger, snapshot_policy=POLICY)


# ------------------------------------------------------------- at one node


class TestAlone:
    def test_the_log_stays_short(self) -> None:
        bench = alone(application=Ledger, snapshot_policy=POLICY)
        for number in range(100):
            submit(bench, b"%d" % number)
        status = bench.node.status()
        slot = status.compaction.snapshot_slot
        assert slot > 80
        assert (status.compaction.taking, status.compaction.transfer) == (None, None)
        first_slot = bench.node._replica.log.first_slot
        assert 60 < first_slot <= slot
        saved = bench.store.saved
        assert saved[0] == Checkpoint(slot)
        assert len(saved) < 40
        assert len(bench.store.files.contents) == 2

    def test_a_checkpoint_holds_all_that_must_be_remembered(self) -> None:
        together = Joined(application=Ledger, snapshot_policy=POLICY)
        fill(together, 30)
        for store in together.stores.values():
            checkpoints = [records for records in store.saves if Checkpoint in map(type, records)]
            assert checkpoints
            for records in checkpoints:
                rest = records[[type(record) for record in records].index(Checkpoint) :]
                assert isinstance(rest[1], Promised)
                assert {type(record) for record in rest[2:]} <= {PeerMet, Learned, Voted, Promised, Checkpoint}
                before = [record for save in store.saves[: store.saves.index(records)] for record in save]
                assert {record for record in before if isinstance(record, PeerMet)} <= set(rest)

    def test_restarts_from_the_snapshot_and_applies_only_what_came_after(self) -> None:
        together = Joined(cluster_of("a"), Ledger, snapshot_policy=POLICY)
        fill(together, 50)
        node = together.nodes["a"]
        lines, slot = node.application.lines, node.status().compaction.snapshot_slot
        again = together.restart("a")
        together.lead()
        together.reactor.spend(1.0)
        assert again.application.lines == lines
        assert again.application.applied[0] == slot + 1
        assert len(again.application.applied) < 15
        fill(together, 30)
        assert again.status().compaction.snapshot_slot > slot
        assert [int(line) for line in again.application.lines] == list(range(80))

    def test_a_start_on_a_long_log_does_not_write_it_again(self) -> None:
        """A log of before there were snapshots, or of a time when none could be written. A checkpoint in the middle of
        it would hold all the rest. The next one is soon enough."""
        together = Joined(cluster_of("a"), Ledger, snapshot_policy=Policy(log_bytes=10**9))
        fill(together, 200)
        together._options["snapshot_policy"] = POLICY
        again = together.restart("a")
        fill(together, 25)
        assert again.status().compaction.snapshot_slot > 200
        learned = [record for save in together.stores["a"].saves for record in save if isinstance(record, Learned)]
        assert sum(len(record.values) for record in learned) < 20
        assert len(together.restart("a").application.applied) < 15

    def test_a_command_sent_again_after_the_restart_gets_its_first_outcome(self) -> None:
        together = Joined(cluster_of("a"), Ledger, snapshot_policy=POLICY)
        run = Run(SESSION, 1, 0, (b"once",))
        together.lead()
        first = together.wait(together.nodes["a"].submit_run(run))
        fill(together, 50)
        again = together.restart("a")
        assert again.application.applied[0] > 20
        assert together.wait(again.submit_run(run)) == first
        assert again.application.lines.count(b"once") == 1

    def test_the_present_state_has_the_hash_that_a_snapshot_of_it_would_have(self) -> None:
        bench = alone(application=Ledger, snapshot_policy=POLICY)
        hashes: dict[Slot, bytes] = {}
        for number in range(30):
            submit(bench, b"%d" % number)
            hashes[bench.node.applied_through] = bench.node._snapshots.state_hash()
        taken: list[Any] = []
        bench.node._snapshots._digests.announce = taken.append
        while not taken:
            submit(bench, b"more")
            hashes[bench.node.applied_through] = bench.node._snapshots.state_hash()
        (digest,) = taken
        assert digest.state_hash == hashes[digest.slot]
        assert len(set(hashes.values())) == len(hashes)

    def test_a_node_without_the_hook_keeps_its_log(self) -> None:
        bench = alone(snapshot_policy=POLICY)
        for number in range(50):
            submit(bench, b"%d" % number)
        assert bench.node.status().compaction.snapshot_slot == 0
        assert bench.node._replica.log.first_slot == 1

    def test_a_snapshot_of_another_cluster_stops_the_start(self) -> None:
        together = Joined(cluster_of("a"), Ledger, snapshot_policy=POLICY)
        fill(together, 20)
        store = together.stores["a"]
        together.kill("a")
        together.cluster = cluster_of("a", "other")
        together.stores["a"] = type(store)(saved=store.saved, files=store.files)
        with pytest.raises(StoreError, match="is of cluster test, not other"):
            together.start("a")

    def test_stop_gives_up_the_one_that_is_being_taken(self) -> None:
        bench = alone(application=Ledger, snapshot_policy=POLICY)
        bench.store.slow = True
        taking = None
        for number in range(40):
            bench.node.submit(b"%d" % number)
            for _ in range(5):
                bench.reactor.turn()
                if bench.store._in_flight:
                    bench.store.finish()
            taking = bench.node.status().compaction.taking
            if taking:
                break
        assert taking
        bench.node.stop()
        while bench.store._in_flight:
            bench.store.finish()
        bench.reactor.idle()
        assert bench.store.snapshot is None


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

    def files(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "snapshots").iterdir())


def test_a_node_on_a_disk_lives_long(tmp_path: Path) -> None:
    """Started again and again, also after its newest snapshot was put aside: the older one and the journal do."""
    life = OnDisk(tmp_path)
    sizes = []
    for turn in range(6):
        life.submit(60)
        assert len(life.files()) == 2
        slot = life.node.status().compaction.snapshot_slot
        life.node.stop()
        sizes.append(sum(path.stat().st_size for path in tmp_path.glob("**/*") if "snapshots" not in path.parts))
        if turn % 2:
            (tmp_path / "snapshots" / life.files()[-1]).rename(tmp_path / f"aside.{turn}")
        life.start()
        assert [int(line) for line in life.application.lines] == list(range(60 * (turn + 1)))
        assert len(life.application.applied) < 30
        assert (life.application.applied[0] == slot + 1) is not bool(turn % 2)
    assert max(sizes[1:]) < 1.5 * sizes[0], "the journal does not grow"
    life.node.stop()


# ------------------------------------------------------------- among several


def test_all_take_them_at_the_same_slots_and_agree(joined: Joined) -> None:
    fill(joined, 60)
    joined.reactor.spend(1.0)
    told_at: dict[Slot, set[tuple[NodeId, bytes]]] = {}
    for sender, _, digest in told(joined, StateDigest):
        if digest.state_hash:
            told_at.setdefault(digest.slot, set()).add((sender, digest.state_hash))
    assert len(told_at) >= 4
    for said in told_at.values():
        assert {node for node, _ in said} == {"a", "b", "c"}
        assert len({state_hash for _, state_hash in said}) == 1


def test_a_node_a_bit_behind_needs_no_snapshot(joined: Joined) -> None:
    """The others keep the log back to the older of their two."""
    fill(joined, 20)
    node = away(joined, 8)
    assert joined.reactor.spend(10.0, lambda: agreed(joined))
    assert told(joined, FetchSnapshot) == []
    assert node.application.applied == sorted(node.application.applied)


def test_a_node_that_was_away_gets_a_snapshot_over_the_stream_and_then_the_rest(joined: Joined) -> None:
    node = away(joined, 80)
    assert joined.reactor.spend(20.0, lambda: agreed(joined))
    assert [int(line) for line in node.application.lines] == [0, *range(1, 81)]
    snapshot = joined.stores[node.name].snapshot
    assert snapshot is not None
    assert (
        2
        <= node.application.applied.index(next(slot for slot in node.application.applied if slot > snapshot.slot)) + 1
        < 10
    )
    assert len(node.application.applied) < 40
    assert len({sender for sender, _, _ in told(joined, FetchSnapshot)}) == 1
    streamed = sum(count for (_, to), count in joined.streamed.items() if to == node.name)
    datagrams = [part for _, _, part in told(joined, SnapshotPart)]
    assert streamed or datagrams
    assert node.status().compaction.snapshot_slot >= snapshot.slot
    fill(joined, 20)
    assert joined.reactor.spend(5.0, lambda: agreed(joined))
    assert joined.wait(node.read(b"")).result == 101
    own = {digest.slot for sender, _, digest in told(joined, StateDigest) if sender == node.name}
    assert own
    assert own <= {digest.slot for sender, _, digest in told(joined, StateDigest) if sender != node.name}
    assert not any(other.counters[Count.SNAPSHOT_PART_NOT_AWAITED] for other in joined.nodes.values())


def test_a_big_one_goes_over_the_stream_in_parts() -> None:
    joined = Joined(application=Ledger, snapshot_policy=Policy(log_bytes=10 * 30_000), transfer_limits=SLOW)
    joined.lead()
    node = joined.followers()[0]
    joined.cut_off(node.name)
    for number in range(40):
        joined.wait(joined.lead_of_the_rest(node).submit(b"%d" % number * 15_000))
    joined.cut.clear()
    assert joined.reactor.spend(20.0, lambda: agreed(joined))
    asked = [question.offset for _, _, question in told(joined, FetchSnapshot)]
    assert len(set(asked)) > 5
    assert sum(count for (_, to), count in joined.streamed.items() if to == node.name) > 300_000
    assert len(node.application.applied) < 30


def test_a_node_that_fetches_one_says_so_until_it_is_level(joined: Joined) -> None:
    node = away(joined, 80)
    assert joined.reactor.spend(20.0, lambda: agreed(joined))
    fill(joined, 3)
    slots = [message.slot for sender, _, message in told(joined, Fetching) if sender == node.name]
    assert slots[0] > 0
    assert slots[-1] == 0
    assert node.status().compaction.transfer is None
    assert all(other._snapshots._fetches.count == 0 for other in joined.nodes.values())


def test_restart_of_a_node_that_got_one(joined: Joined) -> None:
    node = away(joined, 80)
    assert joined.reactor.spend(20.0, lambda: agreed(joined))
    lines = node.application.lines
    again = joined.restart(node.name)
    assert again.application.lines == lines
    assert again.application.applied[:1] != [2]
    fill(joined, 5)
    assert joined.reactor.spend(5.0, lambda: agreed(joined))


def test_the_transfer_is_gone_on_with_after_a_crash_of_the_receiver() -> None:
    joined = Joined(application=Ledger, snapshot_policy=Policy(log_bytes=10 * 30_000), transfer_limits=SLOW)
    joined.lead()
    node = joined.followers()[0]
    joined.cut_off(node.name)
    for number in range(40):
        joined.wait(joined.lead_of_the_rest(node).submit(b"%d" % number * 15_000))
    joined.cut.clear()
    assert joined.reactor.spend(20.0, lambda: len({one.offset for _, _, one in told(joined, FetchSnapshot)}) > 4)
    assert node.status().compaction.transfer is not None
    again = joined.restart(node.name)
    before = len(joined.sent)
    assert joined.reactor.spend(20.0, lambda: agreed(joined))
    offsets = [one.offset for _, _, one in joined.sent[before:] if isinstance(one, FetchSnapshot)]
    assert min(offsets) > 2 * 2**16
    assert len(again.application.lines) == 40


def test_callers_that_wait_at_a_node_that_installs_get_their_first_outcome(joined: Joined) -> None:
    """Their commands were applied on the way, through another node, and are in the snapshot."""
    joined.lead()
    node = joined.followers()[0]
    joined.cut_off(node.name)
    runs = [Run(SESSION, sequence, 0, (b"once %d" % sequence,)) for sequence in (1, 2, 3)]
    waiting: list[list[Any]] = [outcome_of(node.submit_run(run)) for run in runs]
    leader = joined.lead_of_the_rest(node)
    first = [joined.wait(leader.submit_run(run)) for run in runs[:2]]
    fill(joined, 80, lambda: joined.lead_of_the_rest(node))
    assert waiting == [[], [], []]
    joined.cut.clear()
    assert joined.reactor.spend(20.0, lambda: all(waiting))
    assert [outcome for (outcome,) in waiting[:2]] == first
    assert [value_of(outcome) for outcome in waiting[2][0]] == [83]
    assert told(joined, FetchSnapshot)
    assert all(node.application.lines.count(payload) == 1 for run in runs for payload in run.payloads)


def test_of_an_outcome_that_is_no_longer_kept_nothing_is_known(joined: Joined) -> None:
    joined.lead()
    node = joined.followers()[0]
    joined.cut_off(node.name)
    waiting: list[Any] = outcome_of(node.submit_run(Run(SESSION, 1, 0, (b"once",))))
    leader = joined.lead_of_the_rest(node)
    joined.wait(leader.submit_run(Run(SESSION, 1, 0, (b"once",))))
    joined.wait(leader.submit_run(Run(SESSION, 2, 1, (b"acknowledges it",))))
    fill(joined, 80, lambda: joined.lead_of_the_rest(node))
    joined.cut.clear()
    assert joined.reactor.spend(20.0, lambda: waiting)
    ((outcome,),) = waiting
    assert outcome.error is OutcomeUnknown


def test_a_read_that_waits_at_a_node_that_installs_sees_what_is_in_it(joined: Joined) -> None:
    joined.lead()
    node = joined.followers()[0]
    joined.cut_off(node.name)
    waiting: list[Any] = outcome_of(node.read(b""))
    fill(joined, 80, lambda: joined.lead_of_the_rest(node))
    joined.cut.clear()
    assert joined.reactor.spend(20.0, lambda: waiting)
    assert waiting[0].result >= 80
    assert told(joined, FetchSnapshot)


def test_the_one_that_lags_is_needed_for_a_quorum(joined: Joined) -> None:
    """Of three, one is away for good, and one has just lost more than the log goes back to."""
    node = away(joined, 80)
    gone = next(other for other in joined.followers() if other is not node)
    joined.kill(gone.name)
    fill(joined, 20)
    assert agreed(joined) or joined.reactor.spend(5.0, lambda: agreed(joined))
    assert len(node.application.lines) == 101
    assert told(joined, FetchSnapshot)


# ------------------------------------------------------------- what raises


def test_snapshots_that_raise_leave_the_node_alive(logged_errors: list[dict[str, Any]]) -> None:
    class Odd(Ledger):
        def snapshot(self) -> Iterator[bytes]:
            raise ValueError("no")

        def restore(self, chunks: Iterator[bytes]) -> None:
            raise AssertionError("there is none")

    bench = alone(application=Odd, snapshot_policy=POLICY)
    for number in range(30):
        submit(bench, b"%d" % number)
    assert bench.failures == []
    assert bench.node._replica.log.first_slot == 1
    assert len(logged_errors) == 2
    logged_errors.clear()


def test_a_snapshot_that_the_application_refuses_stops_the_node(logged_errors: list[dict[str, Any]]) -> None:
    """Its state would be another than that of the others."""

    class Picky(Ledger):
        def restore(self, chunks: Iterator[bytes]) -> None:
            raise ValueError("too new")

    joined = Joined(application=Picky, snapshot_policy=POLICY)
    node = away(joined, 80)
    failures: list[Any] = []
    node.failed.addErrback(failures.append)
    assert joined.reactor.spend(20.0, lambda: failures)
    assert failures[0].check(StoreError)
    assert "cannot be used: ValueError: too new" in str(failures[0].value)
    logged_errors.clear()
