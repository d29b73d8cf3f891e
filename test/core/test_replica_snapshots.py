"""One node whose oldest slots are in a snapshot: what it forgets, what it tells those behind, and how it goes on from
another node's."""

from __future__ import annotations

from random import Random

import pytest

from test.core.test_replica import ONE, THREE, TWO, leader, make, told, vote
from test.helpers.core_node import campaign, elect, sent, settle
from txpaxos.core.config import Limits, Timing
from txpaxos.core.drops import Drop
from txpaxos.core.messages import (
    LOWEST,
    AcceptedSlot,
    AcceptSlot,
    Ballot,
    ChosenValues,
    Fetch,
    Heartbeat,
    Nack,
    PrepareLog,
    PreVote,
    PromiseLog,
    Truncated,
    Vote,
)
from txpaxos.core.ready import (
    Checkpoint,
    Chosen,
    Envelope,
    Installed,
    LeadershipChanged,
    LeadershipLost,
    Learned,
    LogRecord,
    Promised,
    Voted,
)
from txpaxos.core.replica import Replica

FIVE: tuple[LogRecord, ...] = (Learned(1, (b"1", b"2", b"3", b"4", b"5")),)


def compacted() -> Replica:
    """Node "b": five slots are chosen, of which the first three are in a snapshot."""
    replica = make(saved=FIVE)
    replica.compact(3)
    return replica


class TestCompacted:
    def test_a_node_that_asks_for_what_is_gone_is_told(self) -> None:
        replica = compacted()
        for first_slot in (1, 3):
            assert replica.receive("c", Fetch(first_slot), 0.0).send == (Envelope(("c",), Truncated(4)),)
        assert sent(replica.receive("c", Fetch(4), 0.0), ChosenValues) == [ChosenValues(4, (b"4", b"5"), 5)]

    def test_so_is_a_candidate_and_gets_no_promise(self) -> None:
        replica = compacted()
        ready = replica.receive("c", PrepareLog(THREE, 3), 0.0)
        assert (ready.save, ready.send) == ((), (Envelope(("c",), Truncated(4)),))
        assert replica.dropped[Drop.CANDIDATE_TOO_FAR_BEHIND] == 1
        assert replica.log.promised == LOWEST
        ready = replica.receive("c", PrepareLog(THREE, 4), 0.0)
        assert ready.send == (Envelope(("c",), PromiseLog(THREE, 4, (b"4", b"5"))),)

    def test_an_old_ballot_is_refused_all_the_same(self) -> None:
        replica = compacted()
        replica.receive("c", PrepareLog(THREE, 6), 0.0)
        assert sent(replica.receive("a", PrepareLog(ONE, 1), 0.0), Nack) == [Nack(ONE, THREE)]
        assert sent(replica.receive("a", AcceptSlot(ONE, 1, b"x"), 0.0), Nack) == [Nack(ONE, THREE)]

    def test_no_vote_for_what_cannot_be_compared_any_more(self) -> None:
        """A deposed leader that never heard of it may propose something else there."""
        replica = compacted()
        ready = replica.receive("a", AcceptSlot(ONE, 2, b"something else"), 0.0)
        assert (ready.save, ready.send) == ((), (Envelope(("a",), Truncated(4)),))
        assert replica.dropped[Drop.ACCEPT_OF_A_SLOT_IN_A_SNAPSHOT] == 1
        ready = replica.receive("a", AcceptSlot(ONE, 5, b"something else"), 0.0)
        assert (ready.save, sent(ready, AcceptedSlot)) == ((), [])
        assert sent(replica.receive("a", AcceptSlot(ONE, 5, b"5"), 0.0), AcceptedSlot) == [AcceptedSlot(ONE, 5)]

    def test_restart_hands_out_what_came_after_the_snapshot(self) -> None:
        replica = Replica("b", tuple("abc"), make()._rng, 0.0, FIVE, base=3)
        assert replica.recovered() == (Chosen(4, b"4"), Chosen(5, b"5"))
        assert replica.status().chosen_through == 5
        assert sent(replica.receive("c", Fetch(1), 0.0), Truncated) == [Truncated(4)]
        assert sent(campaign(replica, 1.0), PrepareLog)[0].first_slot == 6

    def test_a_leader_compacts_and_leads_on(self) -> None:
        replica = leader()
        vote(replica, 1, "a", "b")
        replica.compact(1)
        (accept,) = sent(replica.propose(b"v", 1.0), AcceptSlot)
        assert (accept.slot, accept.chosen_through) == (2, 1)
        assert told(vote(replica, 2, "a", "b")) == [(2, b"v")]


def test_a_checkpoint_is_all_that_must_be_remembered() -> None:
    replica = make(saved=(*FIVE, Voted(ONE, 6, b"6", 5), Promised(TWO)))
    saved = replica.checkpoint(4)
    assert saved == (Checkpoint(4), Promised(TWO), Learned(5, (b"5",)), Voted(ONE, 6, b"6", 4))
    again = Replica("b", tuple("abc"), make()._rng, 0.0, saved, base=4)
    assert again.log.promised == TWO
    assert again.recovered() == (Chosen(5, b"5"),)
    ready = again.receive("c", PrepareLog(THREE, 5), 0.0)
    assert sent(ready, PromiseLog) == [PromiseLog(THREE, 5, (b"5",), (Vote(6, ONE, b"6"),))]


class TestBehind:
    def test_only_a_snapshot_can_help(self) -> None:
        replica = make(saved=FIVE)
        replica.receive("c", Heartbeat(THREE, 90), 0.0)
        ready = replica.receive("c", Truncated(7), 0.1)
        assert ready.snapshot_source == "c"
        assert ready.save == ()
        assert make().receive("c", Heartbeat(THREE, 90), 0.0).snapshot_source is None

    def test_nothing_is_missing_below_what_the_other_keeps(self) -> None:
        replica = make(saved=FIVE)
        for first_slot in (1, 6):
            assert replica.receive("c", Truncated(first_slot), 0.0).snapshot_source is None
        assert replica.dropped[Drop.SNAPSHOT_NOT_NEEDED] == 2

    def test_it_asks_until_it_has_got_it(self) -> None:
        """The node asked next may have the values, or another snapshot."""
        replica = make(saved=FIVE)
        ready = replica.receive("c", Truncated(90), 0.0)
        asked, behind = set(), 0
        for _ in range(20):
            assert ready.wake_at is not None
            ready = replica.tick(now := ready.wake_at)
            for envelope in ready.send:
                if isinstance(envelope.message, Fetch):
                    asked.add(envelope.to)
                    assert envelope.message == Fetch(6)
                    (to,) = envelope.to
                    ready = replica.receive(to, Truncated(90), now)
                    behind += ready.snapshot_source == to
        assert asked == {("a",), ("c",)}
        assert behind > 3


LOST: tuple[LogRecord, ...] = (Checkpoint(10), Promised(TWO), Learned(11, (b"11", b"12")), Voted(TWO, 14, b"14", 12))
"""What is left of a node when its snapshot at slot 10 is gone."""


class TestLostSnapshot:
    @pytest.mark.parametrize("first_slot", [1, 10])
    def test_it_promises_nothing_about_slots_whose_votes_it_has_lost(self, first_slot: int) -> None:
        replica = make(saved=LOST)
        ready = replica.receive("c", PrepareLog(THREE, first_slot), 0.0)
        assert (ready.save, ready.send) == ((), ())
        assert replica.dropped[Drop.CANDIDATE_AT_LOST_SLOTS] == 1

    def test_above_them_it_promises_and_tells_what_it_knows(self) -> None:
        replica = make(saved=LOST)
        ready = replica.receive("c", PrepareLog(THREE, 11), 0.0)
        assert sent(ready, PromiseLog) == [PromiseLog(THREE, 11, (b"11", b"12"), (Vote(14, TWO, b"14"),))]
        ready = make(saved=LOST).receive("c", PrepareLog(THREE, 13), 0.0)
        assert sent(ready, PromiseLog) == [PromiseLog(THREE, 13, (), (Vote(14, TWO, b"14"),))]

    def test_what_does_not_fit_a_promise_comes_first(self) -> None:
        replica = make(saved=LOST, limits=Limits(fetch_values=1))
        ready = replica.receive("c", PrepareLog(THREE, 11), 0.0)
        assert ready.save == ()
        assert sent(ready, ChosenValues) == [ChosenValues(11, (b"11",), 12)]
        assert sent(replica.receive("c", Fetch(12), 0.0), ChosenValues) == [ChosenValues(12, (b"12",), 12)]

    def test_a_candidate_behind_it_is_told_what_it_still_knows(self) -> None:
        replica = make(saved=(Learned(1, (b"1", b"2")), *LOST))
        ready = replica.receive("c", PrepareLog(THREE, 2), 0.0)
        assert ready.save == ()
        assert sent(ready, ChosenValues) == [ChosenValues(2, (b"2",), 2)]

    def test_it_does_not_campaign_and_asks_every_other_node_instead(self) -> None:
        replica = make(saved=LOST)
        ready, asked, sought = replica.tick(0.0), set(), 0
        for _ in range(30):
            assert ready.wake_at is not None
            ready = replica.tick(ready.wake_at)
            assert {type(envelope.message) for envelope in ready.send} <= {Fetch}
            asked |= {envelope.to for envelope in ready.send}
            sought += len(ready.send)
        assert asked == {("a",), ("c",)}
        assert replica.receive("c", Truncated(90), 9.0).snapshot_source == "c"
        replica.install(89, 9.0)
        assert any(sent(replica.tick(9.0 + second), PreVote) for second in range(9))

    def test_what_a_crash_kept_from_being_saved_comes_first(self) -> None:
        """A snapshot is there, and the Checkpoint that belongs to it is not."""
        saved: list[LogRecord] = [Voted(ONE, 6, b"never chosen", 5), Voted(TWO, 9, b"9", 5)]
        replica = make(saved=saved)
        assert replica.missing_checkpoint() == ()
        replica = Replica("b", "abc", Random(1), 0.0, saved, base=8)
        missing = replica.missing_checkpoint()
        assert missing == (Checkpoint(8, installed=True), Promised(TWO), Voted(TWO, 9, b"9", 8))
        replica = Replica("b", "abc", Random(1), 0.0, [*saved, *missing], base=8)
        assert replica.missing_checkpoint() == ()
        saved += [*missing, Voted(TWO, 10, b"10", 9)]
        assert Replica("b", "abc", Random(1), 0.0, saved).recovered() == ()


class TestInstall:
    def test_goes_on_from_there(self) -> None:
        replica = make(saved=(*FIVE, Voted(ONE, 6, b"never chosen", 5), Voted(TWO, 9, b"9", 5)))
        ready = replica.install(8, 0.0)
        assert ready.save == (Checkpoint(8, installed=True), Promised(TWO), Voted(TWO, 9, b"9", 8))
        assert ready.chosen == (Installed(8),)
        assert ready.send == ()
        assert replica.status().chosen_through == 8
        assert told(replica.receive("b", Heartbeat(TWO, 9), 0.0)) == [(9, b"9")]
        assert sent(replica.receive("c", Fetch(8), 0.0), Truncated) == [Truncated(9)]

    def test_what_was_learned_above_comes_right_after_it(self) -> None:
        replica = leader()
        vote(replica, 1, "a", "b")
        for value in (b"2", b"3", b"4"):
            replica.propose(value, 1.0)
        vote(replica, 4, "b", "c")
        ready = replica.install(3, 1.0)
        assert ready.chosen == (Installed(3), Chosen(4, b"4"))
        assert ready.save == (Checkpoint(3, installed=True), Promised(ONE), Learned(4, (b"4",)))

    @pytest.mark.parametrize("slot", [1, 4, 5])
    def test_no_news(self, slot: int) -> None:
        """It has caught up by itself while the snapshot was on its way."""
        replica = make(saved=FIVE)
        ready = replica.install(slot, 0.0)
        assert (ready.save, ready.send, ready.chosen) == ((), (), ())
        assert replica.log.values_from(1) == [b"1", b"2", b"3", b"4", b"5"]

    def test_a_leader_that_is_told_of_what_it_did_not_propose_was_deposed(self) -> None:
        replica = leader()
        ready = replica.install(7, 1.1)
        assert ready.leadership == (LeadershipLost(ONE), LeadershipChanged("a", None))
        assert ready.chosen == (Installed(7),)
        assert replica.status().open_slots == 0
        assert not replica.has_room
        elect(replica, 3.0, PromiseLog(LOWEST, 8))
        assert replica._leader is not None
        assert replica._leader.next_slot == 9

    def test_what_a_leader_knew_from_before_its_ballot_is_not_left_open(self) -> None:
        """A node that has it in a snapshot votes for it no more, and it would be proposed for ever."""
        replica = leader(PromiseLog(LOWEST, 1, (), (Vote(2, Ballot(0, "c"), b"2"),)))
        vote(replica, 2, "b")
        replica.receive("b", Nack(ONE, Ballot(4, "b")), 1.1)
        replica.receive("c", Nack(ONE, Ballot(4, "b")), 1.1)
        votes = (Vote(1, ONE, b""), Vote(2, ONE, b"2"), Vote(3, ONE, b""))
        elect(replica, 9.0, PromiseLog(LOWEST, 1, (), votes))
        assert replica._leader is not None
        assert set(replica._leader.window.slots) == {1, 2, 3, 4}
        ready = vote(replica, 1, "b", now=9.1)
        assert told(ready) == [(1, b""), (2, b"2")]
        assert set(replica._leader.window.slots) == {3, 4}

    def test_a_candidate_goes_on(self) -> None:
        """What its quorum knows beyond the snapshot still counts, and nothing below it is proposed."""
        replica = make("a")
        settle(replica, campaign(replica, 1.0), 1.0)
        replica.install(7, 1.0)
        votes = (Vote(3, ONE, b"of old"), Vote(9, ONE, b"9"))
        ready = replica.receive("c", PromiseLog(Ballot(1, "a"), 1, (), votes), 1.0)
        assert [(accept.slot, accept.value) for accept in sent(ready, AcceptSlot)] == [(8, b""), (9, b"9"), (10, b"")]

    def test_then_it_asks_for_the_rest_at_once(self) -> None:
        """However often it asked before: the others take snapshots, too, and do not keep the rest for long."""
        replica = make()
        replica.receive("c", Heartbeat(THREE, 9), 0.0)
        ready = replica.receive("c", Truncated(8), 0.0)
        for _ in range(10):
            assert ready.wake_at is not None
            now = ready.wake_at
            ready = replica.tick(now)
        ready = replica.install(7, now)
        assert sent(ready, Fetch) == [Fetch(8)]
        assert ready.wake_at is not None
        assert ready.wake_at < now + 2 * Timing().retry_seconds
        assert told(replica.receive("c", ChosenValues(8, (b"8", b"9"), 9), now)) == [(8, b"8"), (9, b"9")]

    def test_a_restart_remembers_it(self) -> None:
        replica = make(saved=(*FIVE, Voted(TWO, 9, b"9", 5)))
        saved = (*FIVE, Voted(TWO, 9, b"9", 5), *replica.install(8, 0.0).save)
        records = [record for record in saved if isinstance(record, LogRecord)]
        again = Replica("b", tuple("abc"), make()._rng, 0.0, records, base=8)
        assert again.recovered() == ()
        assert again.status().chosen_through == 8
        assert again.log.votes_from(1) == (Vote(9, TWO, b"9"),)
