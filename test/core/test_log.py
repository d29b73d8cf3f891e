"""One node's memory of the log, and that it is the same after a restart."""

from __future__ import annotations

import pytest

from test.helpers.core_cluster import CoreCluster, Faults
from txpaxos.core.guards import BrokenInvariant
from txpaxos.core.log import Log
from txpaxos.core.messages import LOWEST, Ballot, Vote
from txpaxos.core.ready import Checkpoint, Chosen, Learned, LearnedThrough, LogRecord, Promised, Voted

ONE, TWO, THREE = Ballot(1, "a"), Ballot(2, "b"), Ballot(3, "c")


def chosen_log(*values: bytes) -> Log:
    """A log that was told ``values``."""
    log = Log()
    for slot, value in enumerate(values, 1):
        log.learn(slot, value)
    log.advance()
    return log


class TestAcceptor:
    def test_promise_rises_and_is_saved_once(self) -> None:
        log = Log()
        assert log.promise(ONE) == Promised(ONE)
        assert log.promise(ONE) is None
        assert log.promise(TWO) == Promised(TWO)
        with pytest.raises(AssertionError):
            log.promise(ONE)

    def test_vote_promises_for_all_slots(self) -> None:
        """Trap 3."""
        log = Log()
        assert log.accept(TWO, 3, b"v") == Voted(TWO, 3, b"v", 0)
        assert log.promised == TWO
        assert log.promise(TWO) is None, "the vote has saved it"
        with pytest.raises(AssertionError):
            log.accept(ONE, 4, b"w")

    def test_repeated_vote_is_on_disk_already(self) -> None:
        log = Log()
        log.accept(ONE, 1, b"v")
        assert log.accept(ONE, 1, b"v") is None

    def test_two_values_in_one_ballot_are_a_broken_invariant(self) -> None:
        log = Log()
        log.accept(ONE, 1, b"v")
        with pytest.raises(AssertionError):
            log.accept(ONE, 1, b"w")

    def test_higher_ballot_replaces_a_vote(self) -> None:
        log = Log()
        log.accept(ONE, 1, b"v")
        assert log.accept(TWO, 1, b"w") == Voted(TWO, 1, b"w", 0)
        assert log.votes_from(1) == (Vote(1, TWO, b"w"),)

    def test_vote_for_a_chosen_slot_cannot_matter(self) -> None:
        log = chosen_log(b"v")
        assert log.accept(TWO, 1, b"v") == Promised(TWO), "but it promises"
        assert log.accept(TWO, 1, b"v") is None
        assert log.votes_from(1) == ()

    def test_vote_against_what_is_chosen_is_a_broken_invariant(self) -> None:
        log = chosen_log(b"v")
        with pytest.raises(BrokenInvariant, match="another value is chosen"):
            log.accept(TWO, 1, b"w")
        assert log.promised == LOWEST

    def test_votes_are_told_in_slot_order_from_where_they_were_asked_for(self) -> None:
        log = chosen_log(b"v")
        for slot in (5, 2, 3):
            log.accept(ONE, slot, b"%d" % slot)
        assert log.votes_from(1) == (Vote(2, ONE, b"2"), Vote(3, ONE, b"3"), Vote(5, ONE, b"5"))
        assert log.votes_from(3) == (Vote(3, ONE, b"3"), Vote(5, ONE, b"5"))


class TestLearner:
    def test_values_are_handed_out_in_slot_order(self) -> None:
        log = Log()
        log.learn(2, b"")
        assert log.advance() == []
        log.learn(1, b"v")
        assert log.advance() == [Chosen(1, b"v"), Chosen(2, b"")]
        assert log.advance() == []
        assert log.chosen_through == 2

    def test_saved_unless_the_own_vote_says_the_same(self) -> None:
        log = Log()
        log.accept(ONE, 1, b"v")
        log.accept(ONE, 2, b"v")
        assert log.learn(1, b"v") is None
        assert log.learn(2, b"w") == Learned(2, (b"w",))
        assert log.learn(3, b"x") == Learned(3, (b"x",))

    def test_learning_again_changes_nothing(self) -> None:
        log = chosen_log(b"v")
        assert log.learn(1, b"v") is None
        assert log.advance() == []

    @pytest.mark.parametrize("advanced", [True, False])
    def test_two_chosen_values_are_a_broken_invariant(self, advanced: bool) -> None:
        log = Log()
        log.learn(1, b"v")
        if advanced:
            log.advance()
        with pytest.raises(AssertionError):
            log.learn(1, b"w")

    def test_marked_chosen_only_in_the_ballot_of_the_vote(self) -> None:
        """Design rule 6: a vote of another ballot may be for a value that was never chosen."""
        log = Log()
        log.accept(ONE, 1, b"never chosen")
        log.accept(TWO, 2, b"v")
        log.mark_chosen_by_ballot(TWO, 2)
        assert log.advance() == []
        log.learn(1, b"w")
        log.mark_chosen_by_ballot(TWO, 2)
        assert log.advance() == [Chosen(1, b"w"), Chosen(2, b"v")]

    def test_marking_chosen_goes_no_further_than_was_said(self) -> None:
        log = Log()
        for slot in (1, 2, 3):
            log.accept(ONE, slot, b"%d" % slot)
        log.mark_chosen_by_ballot(ONE, 2)
        assert log.advance() == [Chosen(1, b"1"), Chosen(2, b"2")]
        log.mark_chosen_by_ballot(ONE, 1)
        assert log.advance() == []

    def test_marking_chosen_passes_over_what_was_learned_otherwise(self) -> None:
        log = Log()
        log.learn(2, b"told")
        log.accept(ONE, 1, b"1")
        log.accept(ONE, 3, b"3")
        log.mark_chosen_by_ballot(ONE, 3)
        assert [item.value for item in log.advance()] == [b"1", b"told", b"3"]

    def test_values_within_limits(self) -> None:
        log = chosen_log(b"aa", b"bb", b"cc", b"dd")
        assert log.values_from(1) == [b"aa", b"bb", b"cc", b"dd"]
        assert log.values_from(2, count_max=2) == [b"bb", b"cc"]
        assert log.values_from(1, bytes_max=5) == [b"aa", b"bb"]
        assert log.values_from(1, bytes_max=1) == [b"aa"], "one at least, or no node would ever catch up"
        assert log.values_from(5, bytes_max=1) == []


class TestRecovery:
    def test_nothing_saved(self) -> None:
        log = Log.recover([])
        assert (log.promised, log.chosen_through, log.votes_from(1)) == (LOWEST, 0, ())

    def test_promises_and_votes(self) -> None:
        log = Log.recover([Promised(ONE), Voted(TWO, 1, b"v", 0), Voted(TWO, 3, b"x", 0), Promised(THREE)])
        assert log.promised == THREE
        assert log.votes_from(1) == (Vote(1, TWO, b"v"), Vote(3, TWO, b"x"))
        assert log.chosen_through == 0, "a vote alone chooses nothing"

    def test_vote_alone_restores_the_promise(self) -> None:
        """Trap 3."""
        assert Log.recover([Promised(ONE), Voted(TWO, 1, b"v", 0)]).promised == TWO

    def test_what_a_later_vote_knew_to_be_chosen(self) -> None:
        log = Log.recover([Voted(ONE, 1, b"v", 0), Voted(ONE, 2, b"w", 1)])
        assert log.values_from(1) == [b"v"]
        assert log.votes_from(1) == (Vote(2, ONE, b"w"),)

    def test_learned_goes_before_the_own_vote(self) -> None:
        log = Log.recover([Voted(ONE, 1, b"never chosen", 0), Learned(1, (b"v", b"w")), Voted(TWO, 3, b"x", 2)])
        assert log.values_from(1) == [b"v", b"w"]

    def test_learned_above_a_gap_waits(self) -> None:
        log = Log.recover([Learned(2, (b"w",))])
        assert log.chosen_through == 0
        log.learn(1, b"v")
        assert [item.value for item in log.advance()] == [b"v", b"w"]


class TestSnapshots:
    def test_compacted_slots_are_chosen_but_not_here(self) -> None:
        log = chosen_log(b"a", b"b", b"c")
        log.compact(2)
        assert (log.first_slot, log.chosen_through) == (3, 3)
        assert log.values_from(3) == [b"c"]
        assert log.values_from(2) == log.values_from(1, 9, 9) == []
        assert log.learn(1, b"whatever") is None, "it cannot be compared any more"
        log.learn(4, b"d")
        assert log.advance() == [Chosen(4, b"d")]
        assert log.values_from(4) == [b"d"]

    def test_compacting_again_or_less_changes_nothing(self) -> None:
        log = chosen_log(b"a", b"b", b"c")
        for through in (2, 2, 1, 0):
            log.compact(through)
            assert (log.first_slot, log.values_from(3)) == (3, [b"c"])
        log.compact(3)
        assert (log.first_slot, log.values_from(4)) == (4, [])
        with pytest.raises(AssertionError):
            log.compact(4)

    def test_contradiction_is_told_where_the_value_is_kept(self) -> None:
        log = chosen_log(b"a", b"b")
        assert log.contradicts(1, b"x")
        log.compact(1)
        assert not log.contradicts(1, b"x")
        assert log.contradicts(2, b"x")
        assert not log.contradicts(2, b"b")
        assert not log.contradicts(3, b"x")

    def test_a_checkpoint_is_the_log_beside_its_snapshot(self) -> None:
        log = chosen_log(b"a", b"b", b"c")
        log.accept(ONE, 4, b"d")
        log.accept(TWO, 6, b"f")
        log.learn(7, b"g")
        log.promise(THREE)
        records = log.checkpoint(2)
        assert records == [
            Promised(THREE),
            Learned(3, (b"c",)),
            Learned(7, (b"g",)),
            Voted(ONE, 4, b"d", 2),
            Voted(TWO, 6, b"f", 2),
        ]
        again = Log.recover(records, 2)
        assert (again.promised, again.first_slot, again.chosen_through) == (THREE, 3, 3)
        assert again.values_from(3) == [b"c"]
        assert again.votes_from(1) == log.votes_from(1)
        for slot, value in ((4, b"d"), (5, b"e"), (6, b"f")):
            again.learn(slot, value)
        assert [item.slot for item in again.advance()] == [4, 5, 6, 7]

    def test_a_checkpoint_of_nothing_beyond(self) -> None:
        assert chosen_log(b"a").checkpoint(1) == [Promised(LOWEST)]
        log = chosen_log(b"a", b"b")
        log.compact(2)
        with pytest.raises(AssertionError):
            log.checkpoint(1)

    def test_install_goes_on_from_there(self) -> None:
        log = chosen_log(b"a", b"b")
        for slot in (3, 5, 6):
            log.accept(ONE, slot, b"%d" % slot)
        for slot in (4, 5, 7):
            log.learn(slot, b"%d" % slot)
        log.install(5)
        assert (log.first_slot, log.chosen_through) == (6, 5)
        assert log.values_from(6) == log.values_from(1) == []
        assert log.votes_from(1) == (Vote(6, ONE, b"6"),)
        assert log.promised == ONE
        log.mark_chosen_by_ballot(ONE, 6)
        assert log.advance() == [Chosen(6, b"6"), Chosen(7, b"7")]
        with pytest.raises(AssertionError):
            log.install(7)

    def test_recovery_beside_a_snapshot_passes_over_what_is_in_it(self) -> None:
        """The snapshot was complete before its checkpoint was on disk."""
        records: list[LogRecord] = [
            Voted(ONE, 1, b"old", 0),
            Learned(1, (b"a", b"b", b"c")),
            Voted(TWO, 4, b"d", 3),
            Voted(TWO, 5, b"e", 4),
        ]
        log = Log.recover(records, 2)
        assert (log.first_slot, log.chosen_through, log.promised) == (3, 4, TWO)
        assert log.values_from(3) == [b"c", b"d"]
        assert log.votes_from(1) == (Vote(5, TWO, b"e"),)
        log = Log.recover(records, 9)
        assert (log.first_slot, log.chosen_through, log.promised) == (10, 9, TWO)
        assert (log.values_from(10), log.votes_from(1)) == ([], ())

    def test_recovery_beside_the_older_snapshot_believes_no_vote_that_a_newer_one_overtook(self) -> None:
        """This node voted for what was not chosen in the end, was away, and got a snapshot; of that it is bereft."""
        live = Log()
        saved: list[LogRecord | None] = [live.accept(ONE, 1, b"a"), live.accept(ONE, 2, b"never chosen")]
        live.install(5)
        saved += [Checkpoint(5, installed=True), *live.checkpoint(5)]
        saved += [live.accept(TWO, 6, b"f"), live.learn(6, b"f")]
        live.advance()
        saved += [live.accept(TWO, 7, b"g")]
        records = [record for record in saved if record is not None]
        log = Log.recover(records)
        assert log.chosen_through == 0
        assert log.votes_from(1)[:2] == (Vote(1, ONE, b"a"), Vote(2, ONE, b"never chosen"))
        log.learn(1, b"a")
        log.learn(2, b"chosen")
        for slot in (3, 4, 5):
            log.learn(slot, b"%d" % slot)
        assert [item.value for item in log.advance()] == [b"a", b"chosen", b"3", b"4", b"5", b"f"]
        assert Log.recover(records, 5).chosen_through == 6

    def test_recovery_beside_the_older_snapshot_knows_all_up_to_an_own_newer_one(self) -> None:
        """It had learned all that, from its own votes or otherwise, when it took it."""
        live = Log()
        saved: list[LogRecord | None] = [live.accept(ONE, slot, b"%d" % slot) for slot in (1, 2, 3)]
        live.mark_chosen_by_ballot(ONE, 3)
        live.advance()
        saved += [Checkpoint(3), *live.checkpoint(3)]
        log = Log.recover([record for record in saved if record is not None])
        assert log.values_from(1) == [b"1", b"2", b"3"]
        assert log.votes_from(1) == ()

    def test_recovery_believes_no_vote_beside_a_slot_of_which_nothing_is_known(self) -> None:
        """The crash came before the Checkpoint of another node's snapshot was saved; now that snapshot is gone."""
        stale: list[LogRecord] = [Voted(ONE, 1, b"a", 0), Voted(ONE, 2, b"never chosen", 1)]
        log = Log.recover([*stale, Voted(TWO, 6, b"f", 5)])
        assert log.chosen_through == 1
        assert log.values_from(1) == [b"a"]
        assert [vote.slot for vote in log.votes_from(1)] == [2, 6]

    def test_a_snapshot_without_its_checkpoint_is_noticed(self) -> None:
        records: list[LogRecord] = [Checkpoint(3), Promised(ONE)]
        assert Log.recover(records, 5).lacks_checkpoint(5)
        assert not Log.recover(records, 3).lacks_checkpoint(3)
        assert not Log.recover([*records, Checkpoint(5, installed=True)], 5).lacks_checkpoint(5)
        assert not Log.recover(records).lacks_checkpoint(0)


def check_recovery(live: Log, disk: list[LogRecord]) -> int:
    """A node rebuilt from ``disk`` promises and has voted the same, and knows a prefix.

    :returns: how many slots the rebuilt one has to be told again.
    """
    log = Log.recover(disk)
    assert log.promised == live.promised
    assert log.votes_from(live.chosen_through + 1) == live.votes_from(1)
    assert live.values_from(1)[: log.chosen_through] == log.values_from(1)
    return live.chosen_through - log.chosen_through


@pytest.mark.no_cover  # Under coverage it would take three times as long.
def test_restart_equality_on_random_schedules() -> None:
    """60 seeds of five nodes with loss, doubling, reordering, stops and starts; looked at every 50 ms."""
    checked = behind = 0
    for seed in range(60):
        cluster = CoreCluster(seed, 5, Faults(0.2, 0.1, (0.001, 0.2)))
        for turn in range(60):
            cluster.run(0.05)
            cluster.propose(b"%d" % turn)
            for node, replica in cluster.nodes.items():
                lag = check_recovery(replica.log, cluster.disks[node])
                checked, behind = checked + 1, behind + bool(lag)
            if cluster.nodes and cluster.rng.random() < 0.1:
                cluster.stop(cluster.rng.choice(list(cluster.nodes)))
            if cluster.rng.random() < 0.2:
                cluster.start()
        assert cluster.ledger.chosen, seed
    assert checked > 10_000
    assert 0 < behind < checked, "the prefix may be shorter, and is not always"


def test_any_part_of_the_disk_that_a_crash_leaves_recovers() -> None:
    """Promises only rise and the chosen prefix only grows with every record more."""
    cluster = CoreCluster(7, 3, Faults(0.3, 0.1, (0.001, 0.2)))
    for turn in range(200):
        cluster.run(0.05)
        cluster.propose(b"%d" % turn)
    for disk in cluster.disks.values():
        promised, chosen_through = LOWEST, 0
        for length in range(len(disk) + 1):
            log = Log.recover(disk[:length])
            assert log.promised >= promised
            assert log.chosen_through >= chosen_through
            promised, chosen_through = log.promised, log.chosen_through
        assert chosen_through > 50


def test_a_log_whose_snapshot_was_moved_away_remembers_what_came_after() -> None:
    """The slots that only the snapshot knew are asked for; promise and votes stand."""
    records: list[LogRecord] = [Checkpoint(10), Promised(TWO), Learned(11, (b"k",)), Voted(TWO, 12, b"l", 11)]
    log = Log.recover(records)
    assert (log.chosen_through, log.promised) == (0, TWO)
    assert [vote.slot for vote in log.votes_from(1)] == [12]
    log.install(10)
    assert log.advance() == [Chosen(11, b"k")]


LOST: list[LogRecord] = [
    Checkpoint(10),
    Promised(TWO),
    Learned(11, (b"k", b"l")),
    Voted(TWO, 14, b"n", 12),
    Voted(TWO, 16, b"p", 12),
]
"""The snapshot at slot 10 is gone."""


class TestLostMemory:
    def test_what_it_can_answer_for_begins_above_the_lost_snapshot(self) -> None:
        log = Log.recover(LOST)
        assert log.lost_through == 10
        assert log.known_from(11, 9, 99) == [b"k", b"l"]
        assert log.known_from(12, 9, 99) == [b"l"]
        assert log.known_from(11, 1, 99) == log.known_from(11, 9, 1) == [b"k"]
        assert log.known_from(1, 9, 99) == log.known_from(13, 9, 99) == []
        assert [log.known_through(first_slot) for first_slot in (1, 11, 12, 13)] == [0, 12, 12, 12]

    def test_a_journal_that_reaches_further_back_helps(self) -> None:
        """Two checkpoints are in it, and all that was learned in between."""
        between: list[LogRecord] = [Checkpoint(7), Learned(8, (b"h",)), Voted(ONE, 9, b"i", 8), Voted(ONE, 10, b"j", 9)]
        log = Log.recover([*between, Voted(ONE, 11, b"k", 10), *LOST])
        assert log.lost_through == 7
        assert log.known_from(8, 9, 99) == [b"h", b"i", b"j", b"k", b"l"]

    def test_it_ends_when_all_up_to_there_is_known_again(self) -> None:
        log = Log.recover(LOST)
        log.install(9)
        assert log.lost_through == 10
        log.learn(10, b"j")
        log.advance()
        assert (log.lost_through, log.chosen_through) == (0, 12)
        log = Log.recover(LOST)
        log.install(10)
        assert log.lost_through == 0

    def test_a_checkpoint_below_the_lost_slots_carries_them_on(self) -> None:
        """The journal before it is not read any more."""
        log = Log.recover(LOST)
        log.install(8)
        records = log.checkpoint(8)
        assert records[0] == Checkpoint(10, installed=True)
        again = Log.recover([Checkpoint(8, installed=True), *records], 8)
        assert (again.lost_through, again.chosen_through) == (10, 8)
        assert again.known_from(11, 9, 99) == [b"k", b"l"]
        again.install(10)
        assert again.checkpoint(10)[0] == Promised(TWO)


def test_only_what_is_learned_without_a_gap_is_noted_as_learned() -> None:
    log = chosen_log(b"v", b"w")
    log.learn(4, b"y")
    with pytest.raises(BrokenInvariant):
        log.reach(3)
    assert log.reach(2) == LearnedThrough(2)
