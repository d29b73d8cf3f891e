"""The two phases of one node's part of the log, message by message.

How it keeps leadership, follows and catches up is in :mod:`test.core.test_replica_learning`, random schedules in
:mod:`test.core.test_agreement`.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest

from test.helpers.core_node import campaign, elect, sent, settle
from txpaxos.core.config import Limits, Timing
from txpaxos.core.drops import Drop
from txpaxos.core.messages import (
    LOWEST,
    NO_OP,
    AcceptedSlot,
    AcceptSlot,
    Ballot,
    ChosenValues,
    Fetch,
    Heartbeat,
    HeartbeatAck,
    Nack,
    NodeId,
    PrepareLog,
    PreVote,
    PreVoteGranted,
    PromiseLog,
    Slot,
    Vote,
)
from txpaxos.core.ready import (
    Chosen,
    Envelope,
    LeadershipAcquired,
    LeadershipChanged,
    Learned,
    LogRecord,
    Promised,
    Ready,
    Voted,
)
from txpaxos.core.replica import Replica

ONE, TWO, THREE = Ballot(1, "a"), Ballot(2, "b"), Ballot(3, "c")


def make(
    node: NodeId = "b",
    members: str = "abc",
    saved: Iterable[LogRecord] = (),
    limits: Limits | None = None,
    commit_notification_seconds: float = 0.0,
) -> Replica:
    """A node that has just started, at 0 s."""
    timing = Timing(commit_notification_seconds=commit_notification_seconds)
    return Replica(node, tuple(members), Random(1), 0.0, saved, timing, limits)


def leader(
    *reports: PromiseLog, members: str = "abc", limits: Limits | None = None, commit_notification_seconds: float = 0.0
) -> Replica:
    """Node "a", elected at 1 s; its first own slots are still open."""
    replica = make("a", members, limits=limits, commit_notification_seconds=commit_notification_seconds)
    elect(replica, 1.0, *reports)
    return replica


def vote(replica: Replica, slot: Slot, *senders: NodeId, now: float = 1.0) -> Ready:
    """Votes for what a leader has proposed at ``slot``; the Ready of the last one."""
    for sender in senders:
        ready = replica.receive(sender, AcceptedSlot(replica.election.own_ballot, slot), now)
    return ready


def told(ready: Ready) -> list[tuple[Slot, bytes]]:
    return [(item.slot, item.value) for item in ready.chosen if isinstance(item, Chosen)]


# ------------------------------------------------------------------- phase 1


class TestCampaign:
    def test_begins_with_a_pre_vote(self) -> None:
        """Nothing is saved for it, and no ballot raised, until a quorum has lost its leader, too."""
        replica = make("a")
        ready = replica.tick(1.0)
        assert (ready.save, ready.send) == ((), (Envelope(("b", "c"), PreVote(1)),))
        assert replica.tick(replica.election.wake_at).send == ready.send
        assert replica.receive("c", PreVoteGranted(0), 1.0).send == ()
        assert sent(replica.receive("c", PreVoteGranted(1), 1.0), PrepareLog)

    def test_grants_a_pre_vote_unless_it_hears_a_leader(self) -> None:
        replica = make()
        assert replica.receive("a", PreVote(4), 0.0).send == (Envelope(("a",), PreVoteGranted(4)),)
        replica.receive("c", Heartbeat(THREE), 1.0)
        assert replica.receive("a", PreVote(5), 1.1).send == ()

    def test_saves_its_ballot_before_it_is_used(self) -> None:
        """Trap 5."""
        ready = campaign(make("a"), 1.0)
        assert ready.save == (Promised(Ballot(1, "a")),)
        assert ready.send == (Envelope(("a", "b", "c"), PrepareLog(Ballot(1, "a"), 1)),)

    def test_restarted_node_never_uses_a_ballot_again(self) -> None:
        """Trap 5."""
        ready = campaign(make("a", saved=(Promised(Ballot(4, "a")),)), 1.0)
        assert sent(ready, PrepareLog) == [PrepareLog(Ballot(5, "a"), 1)]

    def test_nothing_happens_early(self) -> None:
        replica = make("a")
        ready = replica.tick(0.0)
        assert (ready.save, ready.send, ready.wake_at) == ((), (), replica.election.wake_at)

    def test_asks_from_its_first_unchosen_slot(self) -> None:
        ready = campaign(make("a", saved=(Learned(1, (b"x", b"y")),)), 1.0)
        assert sent(ready, PrepareLog) == [PrepareLog(Ballot(1, "a"), 3)]

    def test_asks_the_silent_ones_again(self) -> None:
        """Trap 20: a lost Prepare."""
        replica = make("a")
        settle(replica, campaign(replica, 1.0), 1.0)
        ready = replica.tick(replica.election.wake_at)
        assert ready.send == (Envelope(("b", "c"), PrepareLog(Ballot(1, "a"), 1)),)

    def test_doubled_promise_counts_once(self) -> None:
        """Trap 8."""
        replica = make("a")
        campaign(replica, 1.0)
        for _ in range(3):
            replica.receive("b", PromiseLog(Ballot(1, "a"), 1), 1.0)
        assert not replica.is_leader

    def test_promise_of_another_ballot_does_not_count(self) -> None:
        """Traps 4 and 8: what an older ballot won is worth nothing to this one."""
        replica = make("a")
        campaign(replica, 1.0)
        replica.receive("b", PromiseLog(Ballot(1, "a"), 1), 1.0)
        for sender in ("b", "c"):
            replica.receive(sender, Nack(Ballot(1, "a"), Ballot(3, "b")), 1.0)
        settle(replica, campaign(replica, 5.0), 5.0)
        for ballot in (Ballot(1, "a"), Ballot(9, "b")):
            replica.receive("c", PromiseLog(ballot, 1), 5.0)
        assert not replica.is_leader
        assert replica.dropped[Drop.PROMISE_OF_ANOTHER_BALLOT] == 2
        replica.receive("c", PromiseLog(Ballot(4, "a"), 1), 5.0)
        assert replica.is_leader

    def test_gives_way_to_a_higher_candidate(self) -> None:
        replica = make("a")
        campaign(replica, 1.0)
        ready = replica.receive("b", PrepareLog(Ballot(1, "b"), 1), 1.0)
        assert sent(ready, PromiseLog) == [PromiseLog(Ballot(1, "b"), 1)]
        assert replica.status().role == "follower"


class TestPromise:
    def test_is_saved_and_tells_chosen_values_and_votes(self) -> None:
        replica = make(saved=(Learned(1, (b"x", b"y")), Voted(ONE, 4, b"z", 2)))
        ready = replica.receive("c", PrepareLog(THREE, 2), 0.0)
        assert ready.save == (Promised(THREE),)
        assert ready.send == (Envelope(("c",), PromiseLog(THREE, 2, (b"y",), (Vote(4, ONE, b"z"),))),)

    def test_repeated_prepare_gets_the_same_answer_in_a_ready_of_its_own(self) -> None:
        """Traps 1 and 2: that Ready saves nothing, and so must wait for the one before it."""
        replica = make()
        first, second = (replica.receive("c", PrepareLog(THREE, 1), 0.0) for _ in range(2))
        assert (len(first.save), second.save) == (1, ())
        assert first.send == second.send

    def test_lower_ballot_is_refused(self) -> None:
        replica = make(saved=(Promised(TWO),))
        ready = replica.receive("a", PrepareLog(ONE, 1), 0.0)
        assert ready.save == ()
        assert ready.send == (Envelope(("a",), Nack(ONE, TWO)),)

    def test_candidate_too_far_behind_catches_up_first(self) -> None:
        replica = make(saved=(Learned(1, (b"u", b"v", b"w")),), limits=Limits(fetch_values=2))
        ready = replica.receive("c", PrepareLog(THREE, 1), 0.0)
        assert ready.save == ()
        assert ready.send == (Envelope(("c",), ChosenValues(1, (b"u", b"v"), 3)),)
        assert replica.dropped[Drop.CANDIDATE_TOO_FAR_BEHIND] == 1
        assert sent(replica.receive("c", PrepareLog(THREE, 2), 0.0), PromiseLog)


class TestBecomingLeader:
    def test_has_an_entry_of_its_own_ballot_chosen(self) -> None:
        """Trap 10, on an empty log: one no-op."""
        replica = make("a")
        readys = elect(replica, 1.0)
        assert readys[0].leadership == (LeadershipAcquired(Ballot(1, "a")), LeadershipChanged(None, "a"))
        assert sent(readys[0], AcceptSlot) == [AcceptSlot(Ballot(1, "a"), 1, NO_OP, 0)]
        assert sent(readys[0], Heartbeat) == [Heartbeat(Ballot(1, "a"), 0)]
        assert told(vote(replica, 1, "b")) == [(1, NO_OP)]

    def test_proposes_again_all_that_may_have_been_chosen(self) -> None:
        """Traps 7 and 10: the highest ballot over all promises of the quorum, gaps filled, then an own entry."""
        low, high = Ballot(1, "b"), Ballot(2, "b")
        replica = make("a", "abcde", saved=(Voted(low, 2, b"low", 0), Voted(low, 1, b"one", 0), Promised(THREE)))
        reports = (
            PromiseLog(LOWEST, 1, (), (Vote(2, high, b"high"),)),
            PromiseLog(LOWEST, 1, (), (Vote(2, low, b"low"), Vote(4, low, b"four"))),
        )
        ready = elect(replica, 1.0, *reports)[1]
        values = [b"one", b"high", NO_OP, b"four", NO_OP]
        assert [(m.slot, m.value) for m in sent(ready, AcceptSlot)] == list(enumerate(values, 1))
        assert {m.ballot for m in sent(ready, AcceptSlot)} == {Ballot(4, "a")}

    def test_learns_what_its_quorum_knew_and_goes_on_above(self) -> None:
        replica = make("a")
        readys = elect(replica, 1.0, PromiseLog(LOWEST, 1, (b"x", b"y"), (Vote(3, Ballot(0, "b"), b"z"),)))
        ready = readys[0]
        assert told(ready) == [(1, b"x"), (2, b"y")]
        assert Learned(1, (b"x", b"y")) in ready.save
        assert [(m.slot, m.value) for m in sent(ready, AcceptSlot)] == [(3, b"z"), (4, NO_OP)]

    def test_vote_of_a_slot_known_to_be_chosen_is_left_alone(self) -> None:
        old = Vote(1, Ballot(0, "b"), b"never chosen")
        ready = elect(make("a", saved=(Learned(1, (b"x",)),)), 1.0, PromiseLog(LOWEST, 1, (), (old,)))[0]
        assert [(m.slot, m.value) for m in sent(ready, AcceptSlot)] == [(2, NO_OP)]

    def test_phase_one_covers_every_later_slot(self) -> None:
        """Trap 4: no Prepare any more, and always the ballot that won."""
        replica = leader()
        for turn in range(5):
            vote(replica, 1 + turn, "a", "b")
            ready = replica.propose(b"v", 1.0)
            assert sent(ready, PrepareLog) == []
            assert sent(ready, AcceptSlot) == [AcceptSlot(Ballot(1, "a"), 2 + turn, b"v", 1 + turn)]


# ------------------------------------------------------------------- phase 2


class TestAccepting:
    def test_vote_is_saved_and_goes_to_the_leader(self) -> None:
        replica = make()
        ready = replica.receive("a", AcceptSlot(ONE, 1, b"v"), 0.0)
        assert ready.save == (Voted(ONE, 1, b"v", 0),)
        assert ready.send == (Envelope(("a",), AcceptedSlot(ONE, 1)),)
        assert ready.leadership == (LeadershipChanged(None, "a"),)

    def test_repeated_accept_gets_the_same_answer_in_a_ready_of_its_own(self) -> None:
        """Trap 1."""
        replica = make()
        first, second = (replica.receive("a", AcceptSlot(ONE, 1, b"v"), 0.0) for _ in range(2))
        assert second.save == ()
        assert first.send == second.send

    def test_voting_promises_for_every_slot(self) -> None:
        """Trap 3: after a restart too."""
        replica = make()
        saved = replica.receive("b", AcceptSlot(TWO, 5, b"v"), 0.0).save
        for node in (replica, make(saved=saved)):  # type: ignore[arg-type]
            for message in (AcceptSlot(ONE, 1, b"w"), PrepareLog(ONE, 1), Heartbeat(ONE)):
                ready = node.receive("a", message, 0.0)
                assert ready.save == ()
                assert ready.send == (Envelope(("a",), Nack(ONE, TWO)),)

    def test_votes_only_so_far_ahead(self) -> None:
        replica = make(limits=Limits(ahead_slots=4))
        assert replica.receive("a", AcceptSlot(ONE, 4, b"v"), 0.0).save
        ready = replica.receive("a", AcceptSlot(ONE, 5, b"v"), 0.0)
        assert (ready.save, ready.send) == ((), ())
        assert replica.dropped[Drop.ACCEPT_TOO_FAR_AHEAD] == 1

    @pytest.mark.parametrize(
        ("members", "voter", "may_defer"),
        [("abc", "a", True), ("abc", "b", False), ("ab", "a", False), ("a", "a", False)],
    )
    def test_a_leader_hurries_with_its_own_vote_only_if_it_must(
        self, members: str, voter: str, may_defer: bool
    ) -> None:
        replica = Replica(voter, members, Random(1), 0.0)
        assert replica.receive("a", AcceptSlot(Ballot(1, "a"), 1, b"x", 0), 0.0).may_defer is may_defer

    def test_lower_accept_for_a_slot_chosen_otherwise_is_not_voted_for(self) -> None:
        """It is no broken invariant: who was told the chosen value need not have promised the ballot that chose it, and
        so may still hear of a value that lost."""
        replica = make()
        replica.receive("c", ChosenValues(1, (b"w",), 1), 0.0)
        ready = replica.receive("a", AcceptSlot(ONE, 1, b"v"), 0.0)
        assert not sent(ready, AcceptedSlot)
        assert replica.log.values_from(1) == [b"w"]

    def test_slots_count_from_one(self) -> None:
        with pytest.raises(ValueError, match="slot"):
            make().receive("a", AcceptSlot(ONE, 0, b"v"), 0.0)
        with pytest.raises(ValueError, match="first_slot"):
            make(saved=(Learned(1, (b"x",)),)).receive("a", Fetch(0), 0.0)


class TestCounting:
    def test_chosen_by_a_quorum_of_different_nodes(self) -> None:
        """Trap 8."""
        replica = leader(PromiseLog(LOWEST, 1), PromiseLog(LOWEST, 1), members="abcde")
        assert told(vote(replica, 1, "b", "b", "b")) == []
        assert told(vote(replica, 1, "c")) == [(1, NO_OP)], "the leader's own vote is the third"

    def test_vote_of_another_ballot_does_not_count(self) -> None:
        """Trap 9."""
        replica = leader()
        for ballot in (Ballot(0, "a"), Ballot(7, "b")):
            assert told(replica.receive("b", AcceptedSlot(ballot, 1), 1.0)) == []
        assert replica.dropped[Drop.VOTE_FOR_ANOTHER_BALLOT] == 2

    def test_own_vote_travels_the_same_road(self) -> None:
        """Nothing is counted that was not sent, saved and received: not the leader's own vote either."""
        replica = make("a")
        settle(replica, campaign(replica, 1.0), 1.0)
        ready = replica.receive("b", PromiseLog(Ballot(1, "a"), 1), 1.0)
        assert not [record for record in ready.save if isinstance(record, Voted)]
        assert told(vote(replica, 1, "b")) == []
        assert told(vote(replica, 1, "a")) == [(1, NO_OP)]

    def test_quorum_without_the_own_vote_is_saved(self) -> None:
        replica = make("a")
        campaign(replica, 1.0)
        for sender in ("b", "c"):
            replica.receive(sender, PromiseLog(Ballot(1, "a"), 1), 1.0)
        ready = vote(replica, 1, "b", "c")
        assert ready.save == (Learned(1, (NO_OP,)),)

    def test_vote_after_the_quorum_is_a_sign_of_life_only(self) -> None:
        replica = leader()
        vote(replica, 1, "b")
        ready = vote(replica, 1, "c")
        assert (ready.save, ready.send, ready.chosen) == ((), (), ())
        assert replica.dropped == {}

    def test_slots_closing_out_of_order_are_handed_out_in_order(self) -> None:
        replica = leader()
        for value in (b"x", b"y"):
            settle(replica, replica.propose(value, 1.0), 1.0)
        assert told(vote(replica, 3, "b")) == []
        assert told(vote(replica, 2, "c")) == []
        assert told(vote(replica, 1, "b")) == [(1, NO_OP), (2, b"x"), (3, b"y")]

    def test_followers_hear_at_once_when_nothing_is_open(self) -> None:
        replica = leader()
        settle(replica, replica.propose(b"x", 1.0), 1.0)
        assert sent(vote(replica, 1, "b"), Heartbeat) == []
        assert sent(vote(replica, 2, "b"), Heartbeat) == [Heartbeat(Ballot(1, "a"), 2)]

    def test_followers_hear_soon_when_nothing_is_open(self) -> None:
        """Most likely the next value is about to come, and tells them."""
        replica = leader(commit_notification_seconds=0.002)
        ready = vote(replica, 1, "a", "b")
        assert sent(ready, Heartbeat) == []
        assert ready.wake_at == 1.002
        assert sent(replica.tick(1.0019), Heartbeat) == []
        assert sent(replica.tick(1.002), Heartbeat) == [Heartbeat(Ballot(1, "a"), 1)]
        assert sent(replica.tick(1.003), Heartbeat) == []

    def test_the_next_value_tells_them_what_was_chosen(self) -> None:
        replica = leader(commit_notification_seconds=0.002)
        vote(replica, 1, "a", "b")
        (accept,) = sent(replica.propose(b"x", 1.001), AcceptSlot)
        assert accept.chosen_through == 1
        assert sent(replica.tick(1.01), Heartbeat) == []

    def test_followers_that_wait_hear_at_once(self) -> None:
        replica = leader(commit_notification_seconds=0.002)
        vote(replica, 1, "a", "b")
        for value in (b"x", b"y"):
            settle(replica, replica.propose(value, 1.0, urgent=value == b"x"), 1.0)
        ready = vote(replica, 2, "b")  # b"y" is under way yet, and the next value perhaps there already
        assert (sent(ready, Heartbeat), ready.wake_at) == ([], 1.0)
        assert sent(replica.tick(1.0), Heartbeat) == [Heartbeat(Ballot(1, "a"), 2)]
        settle(replica, replica.propose(b"z", 1.1, urgent=True), 1.1)
        vote(replica, 3, "b", now=1.1)
        assert sent(vote(replica, 4, "b", now=1.1), Heartbeat) == [Heartbeat(Ballot(1, "a"), 4)]

    def test_one_that_leads_no_longer_tells_nothing(self) -> None:
        replica = leader(commit_notification_seconds=0.002)
        vote(replica, 1, "a", "b")
        replica.receive("c", Heartbeat(Ballot(2, "c")), 1.001)
        assert sent(replica.tick(1.01), Heartbeat) == []


class TestWindow:
    def test_slots_at_once_are_limited(self) -> None:
        replica = leader(limits=Limits(window_slots=3))
        for value in (b"x", b"y"):
            assert replica.has_room
            settle(replica, replica.propose(value, 1.0), 1.0)
        assert not replica.has_room
        with pytest.raises(AssertionError):
            replica.propose(b"z", 1.0)
        vote(replica, 2, "b")
        assert not replica.has_room, "it is the first open slot that holds the window back"
        vote(replica, 1, "b")
        assert replica.has_room

    def test_bytes_at_once_are_limited(self) -> None:
        replica = leader(limits=Limits(window_bytes=10))
        settle(replica, replica.propose(b"0123456789", 1.0), 1.0)
        assert not replica.has_room
        vote(replica, 1, "b")
        assert not replica.has_room
        vote(replica, 2, "b")
        assert replica.has_room

    def test_only_a_leader_has_room(self) -> None:
        assert not make().has_room


class TestResending:
    def test_to_those_who_have_not_voted_with_back_off(self) -> None:
        replica, timing = leader(PromiseLog(LOWEST, 1), PromiseLog(LOWEST, 1), members="abcde"), Timing()
        vote(replica, 1, "b")
        now, waits = 1.0, []
        while now < 6.0:
            due = now
            now = replica.tick(now).wake_at or 0.0
            for follower in "bcde":
                replica.receive(follower, HeartbeatAck(Ballot(1, "a"), 0, 1), now)
            ready = replica.tick(now)
            if sent(ready, AcceptSlot):
                accepts = [envelope for envelope in ready.send if isinstance(envelope.message, AcceptSlot)]
                assert accepts == [Envelope(("c", "d", "e"), AcceptSlot(Ballot(1, "a"), 1, NO_OP, 0))]
                waits.append(now)
            assert now > due
        gaps = [later - earlier for earlier, later in zip([1.0, *waits], waits, strict=False)]
        assert gaps[0] <= timing.retry_seconds * 1.25
        assert gaps[-1] >= timing.retry_seconds_max * 0.75
        assert 8 <= len(gaps) <= 12, "five seconds, not five milliseconds and not five thousand seconds"

    def test_stops_with_leadership(self) -> None:
        replica = leader()
        replica.receive("b", Heartbeat(TWO, 0), 1.0)
        assert not sent(replica.tick(1.2), AcceptSlot)
        assert replica.status().open_slots == 0


class TestNotYetAdmitted:
    """A node that may not vote before its disk says that it may."""

    def newcomer(self, members: str) -> Replica:
        return Replica("b", tuple(members), Random(1), 0.0, votes=False)

    def test_alone_it_leads_as_soon_as_it_may(self) -> None:
        replica = self.newcomer("b")
        assert replica.tick(5.0).save == ()
        replica.start_voting(5.0)
        assert replica.tick(5.0).save == (Promised(Ballot(1, "b")),)

    def test_with_others_it_waits_for_a_leader_first(self) -> None:
        replica = self.newcomer("abc")
        assert replica.receive("c", PrepareLog(THREE, 1), 1.0).save == ()
        replica.receive("a", Heartbeat(ONE, 0), 5.0)
        replica.start_voting(5.0)
        assert not sent(replica.tick(5.0), PreVote)
        assert replica.receive("a", AcceptSlot(ONE, 1, b"v"), 5.0).save == (Voted(ONE, 1, b"v", 0),)
        assert sent(replica.tick(9.0), PreVote)


class TestSuspended:
    def test_does_not_campaign_until_it_is_resumed(self) -> None:
        replica = make()
        assert not replica.is_suspended
        replica.suspend(0.0)
        assert replica.is_suspended
        assert not sent(replica.tick(9.0), PreVote)
        replica.resume(9.0)
        assert not replica.is_suspended
        assert sent(replica.tick(18.0), PreVote)
