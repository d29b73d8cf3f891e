"""A node that was away gets its snapshot while others write, whatever else happens. Sizes and rates are a 64th of those
of a state of 256 MiB with the default settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Any, ClassVar

import pytest
from twisted.logger import LogLevel

from test.helpers.fakes import logged
from txpaxos.client import Client
from txpaxos.counter import Counter
from txpaxos.node.snapshots.taking import FETCHED_SHARE, STATE_SHARE, Policy
from txpaxos.node.snapshots.transfer import TransferLimits
from txpaxos.testing.simulator import host
from txpaxos.testing.simulator.cluster import SimulatedCluster
from txpaxos.testing.simulator.host import Host
from txpaxos.testing.simulator.network import SimulatedReactor

pytestmark = pytest.mark.no_cover  # Under coverage it would take three times as long.

LOG_BYTES = 2**19
STATE_BYTES = 2**22
TRANSFER_BYTES_PER_SECOND = 2**18
WRITE_BYTES = 2**13
BALLAST = Random(1).randbytes(STATE_BYTES)
PIECE_BYTES = 2**16
LEVEL_SLOTS = 8


class Heavy(Counter):
    """A counter with a big state. A state that grows does so by a slot's value for each slot."""

    state_fields: ClassVar[tuple[str, ...]] = ()  # type: ignore[assignment]
    growth_bytes = 0

    def apply(self, slot: int, command: bytes) -> int:
        self.total += 1
        return self.total

    def snapshot(self) -> bytes | Iterable[bytes]:
        size, total = STATE_BYTES + self.growth_bytes * self.total, self.total
        return (
            (BALLAST + BALLAST)[at : at + min(PIECE_BYTES, size - at)] if at >= 0 else b"%d" % total
            for at in (-1, *range(0, size, PIECE_BYTES))
        )

    def restore(self, chunks: Iterator[bytes]) -> None:
        self.total = int(next(chunks))
        for _ in chunks:
            pass


class Load:
    """A cluster of which some nodes are away, and a client that writes all the time.

    :ivar answered: how many writes.
    """

    def __init__(
        self,
        seed: int,
        nodes: int = 3,
        away: str = "c",
        app: type[Counter] = Heavy,
        bytes_per_second: float = 48 * 1024,
        log_bytes: int = LOG_BYTES,
        sent_bytes_per_second: float = TRANSFER_BYTES_PER_SECOND,
    ) -> None:
        self.cluster = SimulatedCluster(
            seed,
            nodes,
            app,
            clients=0,
            askers=0,
            callers=0,
            readers=0,
            snapshot_policy=Policy(log_bytes),
            sessions_max=64,
            transfer_limits=TransferLimits(bytes_per_second=sent_bytes_per_second),
        )
        self.away = [self.cluster.hosts[name] for name in away]
        self.up = [one for one in self.cluster.hosts.values() if one not in self.away]
        self.answered = 0
        self.largest_log_bytes = 0
        self._under_way = 0
        self._pause_seconds = WRITE_BYTES / bytes_per_second
        self._reactor = SimulatedReactor(self.cluster.network, "writer")
        names = [one.name for one in self.up]
        rng, sending = self.cluster.fork_rng(), self.cluster.checker.submitting
        self._client = Client(self._reactor, self.cluster.configuration, names, rng=rng, sending=sending)

    def write(self) -> None:
        """One more command."""
        if self._under_way > 100:
            return
        self._under_way += 1

        def done(_: object) -> None:
            self._under_way -= 1
            self.answered += 1

        def submit() -> None:
            run = b"1" * WRITE_BYTES
            self._client.submit(run).addBoth(done)

        self._reactor.run(submit)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Write for so long."""
        end = self.cluster.time.now + seconds
        while self.cluster.time.now < end and not until():
            self.write()
            self.cluster.run(self._pause_seconds)
            for one in self.up:
                if one.node is not None:
                    log = one.node._replica.log
                    self.largest_log_bytes = max(self.largest_log_bytes, sum(map(len, log._values)))
        return until()

    def leave(self) -> None:
        """Those that are away miss so much that the log of the others no longer has it."""
        self.run(1.0)
        for one in self.away:
            one.crash()

        def forgotten() -> bool:
            nodes = [one.node for one in self.up if one.node is not None]
            return all(node._replica.log.first_slot > 50 for node in nodes)

        assert self.run(600.0, forgotten)

    def is_level(self) -> bool:
        """Whether those that were away have what the others have, but for what is on its way."""
        through = max(one.node.status().replica.chosen_through for one in self.up if one.node is not None)
        return all(
            one.node is not None and one.node.status().applied_through > through - LEVEL_SLOTS for one in self.away
        )

    def check_return_under_load(self, within_seconds: float) -> float:
        """They are started again. In how many seconds they were level."""
        for one in self.away:
            one.start()
        begun = self.cluster.time.now
        transfers = {one.name: one.node.status().compaction.transfer for one in self.away if one.node}
        assert self.run(within_seconds, self.is_level), transfers
        return self.cluster.time.now - begun

    def every(self, seconds: float, what: Callable[[], object]) -> None:
        """Do something again and again."""

        def again() -> None:
            what()
            self.cluster.time.after(seconds, again)

        self.cluster.time.after(seconds, again)


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "SEGMENT_BYTES", 2**20)


@pytest.fixture(autouse=True)
def expected_errors(logged_errors: list[Any]) -> Iterator[None]:
    yield
    logged_errors.clear()


def restart(one: Host) -> None:
    if one.alive:
        one.crash()
    one.start()


def pause_the_leader(load: Load) -> None:
    for one in load.up:
        if one.alive and one.node is not None and one.node.leader == one.name and one.reactor is not None:
            one.reactor.pause(0.7)


FULL_SECONDS = STATE_BYTES / TRANSFER_BYTES_PER_SECOND


@pytest.mark.parametrize("seed", [1])
def test_it_arrives_while_others_write(seed: int) -> None:
    """At the rate at which it always began anew, when nothing was kept for it."""
    load = Load(seed)
    load.leave()
    seconds = load.check_return_under_load(2 * FULL_SECONDS)
    assert seconds >= 0.9 * FULL_SECONDS
    interval_bytes = max(LOG_BYTES, STATE_BYTES // STATE_SHARE)
    assert load.largest_log_bytes <= 2 * FETCHED_SHARE * STATE_BYTES + 2 * interval_bytes


def test_it_is_not_begun_anew_where_the_next_one_is_about_to_be_taken() -> None:
    """The log grows by more than two intervals while it travels: without a hold its file would be gone by then."""
    load = Load(1, bytes_per_second=TRANSFER_BYTES_PER_SECOND)
    load.leave()
    interval_bytes = STATE_BYTES // STATE_SHARE

    def is_about_to() -> bool:
        nodes = [one.node._snapshots._taker for one in load.up if one.node is not None]
        since_bytes = [node.applied_bytes - node._newest_at_bytes for node in nodes]
        return all(0.8 * interval_bytes < one < 0.95 * interval_bytes for one in since_bytes)

    assert load.run(100.0, is_about_to)
    events = logged(lambda: load.check_return_under_load(2 * FULL_SECONDS), LogLevel.warn)
    assert not [event for event in events if "starts over" in event["log_format"]]


def test_it_arrives_where_the_log_grows_faster_than_a_sender_may_send() -> None:
    rate = TRANSFER_BYTES_PER_SECOND
    load = Load(1, bytes_per_second=rate / 2, sent_bytes_per_second=rate / 8)
    load.leave()
    assert load.check_return_under_load(4 * FULL_SECONDS) < 8 * FULL_SECONDS


def test_two_of_five_at_once() -> None:
    load = Load(1, nodes=5, away="de")
    load.leave()
    load.check_return_under_load(3 * FULL_SECONDS)


def test_a_state_that_grows() -> None:
    class Growing(Heavy):
        growth_bytes = WRITE_BYTES // 2

    load = Load(1, app=Growing)
    load.leave()
    load.check_return_under_load(3 * FULL_SECONDS)


def test_intervals_of_a_second() -> None:
    load = Load(1, log_bytes=LOG_BYTES // 16)
    load.leave()
    load.check_return_under_load(2 * FULL_SECONDS)


def test_a_receiver_with_a_slow_disk() -> None:
    load = Load(1)
    load.leave()
    load.away[0].save_seconds = 0.1
    load.check_return_under_load(4 * FULL_SECONDS)


def test_a_lead_that_changes_every_few_seconds() -> None:
    load = Load(1)
    load.leave()
    load.every(3.0, lambda: pause_the_leader(load))
    load.check_return_under_load(3 * FULL_SECONDS)


def test_a_sender_that_dies_on_the_way() -> None:
    """Another node goes on with what it has sent."""
    load = Load(1)
    load.leave()
    receiver = load.away[0]

    def kill() -> None:
        assert receiver.node is not None
        peer = receiver.node._snapshots._receiver._peer
        assert peer is not None
        load.cluster.hosts[peer].crash()

    load.cluster.time.after(FULL_SECONDS / 2, kill)
    assert load.check_return_under_load(3 * FULL_SECONDS) < 1.6 * FULL_SECONDS


@pytest.mark.parametrize("who", ["a receiver", "a sender", "all senders in turn"])
def test_restarts_every_few_seconds(who: str) -> None:
    load = Load(2)
    load.leave()
    hosts = load.away if who == "a receiver" else load.up[:1] if who == "a sender" else load.up
    turns = iter(range(10**6))
    load.every(FULL_SECONDS / 4, lambda: restart(hosts[next(turns) % len(hosts)]))
    assert load.check_return_under_load(4 * FULL_SECONDS) < 3 * FULL_SECONDS


def test_nothing_is_kept_for_a_node_that_is_silent_for_long() -> None:
    """And then snapshots are taken as before."""
    load = Load(1)
    load.leave()
    (receiver,) = load.away
    receiver.start()
    load.run(FULL_SECONDS / 2)
    receiver.crash()
    before = {one.name: one.node.status().compaction.snapshot_slot for one in load.up if one.node}
    load.run(150.0)
    for one in load.up:
        assert one.node is not None
        assert one.node.status().compaction.snapshot_slot > before[one.name]
        assert one.node._snapshots._fetches.count == 0


def test_for_a_node_that_fetches_for_ever_not_everything_is_kept() -> None:
    load = Load(1)
    load.leave()

    def fetch() -> None:
        for one in load.up:
            assert one.node is not None
            one.node._snapshots._fetches.note("c", one.node.status().compaction.snapshot_slot)

    load.every(1.0, fetch)
    load.largest_log_bytes = 0
    load.run(500.0)
    interval_bytes = max(LOG_BYTES, STATE_BYTES // STATE_SHARE)
    assert 2 * STATE_BYTES < load.largest_log_bytes <= 2 * (FETCHED_SHARE * STATE_BYTES + interval_bytes)


def test_a_receiver_with_a_full_disk_goes_on_when_there_is_room() -> None:
    load = Load(1)
    load.leave()
    (receiver,) = load.away
    receiver.start()
    load.run(FULL_SECONDS / 2)
    assert receiver.node is not None
    receiver.disk.bytes_max = receiver.disk._bytes_used() + 2**17
    load.run(FULL_SECONDS / 2)
    progress = receiver.node.status().compaction.transfer or ""
    assert progress.startswith("no snapshot for ")
    counts = [one.node.counters.total() for one in load.up if one.node]
    load.run(FULL_SECONDS)
    assert [one.node.counters.total() for one in load.up if one.node] == counts
    receiver.disk.bytes_max = None
    begun = load.cluster.time.now
    assert load.run(90.0, load.is_level)
    assert load.cluster.time.now - begun < 60.0 + FULL_SECONDS
