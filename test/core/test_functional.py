"""Leaders: found, kept, lost; and the single decree that one gets done."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from test.core import test_practical
from test.core.test_practical import ABC
from test.helpers.core_node import sent
from txpaxos.core import functional, practical
from txpaxos.core.config import Timing
from txpaxos.core.election import BACK_OFF_DOUBLINGS_MAX, Election, Role, TimerAction
from txpaxos.core.guards import BrokenInvariant
from txpaxos.core.membership import Membership
from txpaxos.core.messages import (
    LOWEST,
    Accept,
    Ballot,
    Decided,
    Heartbeat,
    HeartbeatAck,
    Nack,
    NodeId,
    Prepare,
    PreVote,
    PreVoteGranted,
    Promise,
)
from txpaxos.core.ready import (
    DecreeState,
    Envelope,
    LeadershipAcquired,
    LeadershipChanged,
    LeadershipLost,
    Ready,
)

HEARTBEAT_SECONDS = Timing().heartbeat_seconds
SHORTEST, LONGEST = Timing().liveness_window_seconds


class TestTiming:
    def test_retries_double_up_to_a_limit(self) -> None:
        """Trap 20: all in seconds, and never more than a second and a quarter."""
        timing = Timing(retry_seconds=0.05, retry_seconds_max=1.0)
        for attempt, middle in enumerate([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]):
            waits = [timing.retry_after(attempt, Random(seed)) for seed in range(50)]
            assert 0.75 * middle <= min(waits) < max(waits) <= 1.25 * middle


class TestElection:
    """``self.election`` is that of "a" of three, born at 100 s."""

    @pytest.fixture(autouse=True)
    def _leadership(self) -> None:
        self.make(3)

    def make(self, members: int, seed: int = 1) -> Election[Promise]:
        self.election: Election[Promise] = Election(
            "a", Membership.fixed("a", "abcde"[:members]), Timing(), Random(seed), 100.0
        )
        return self.election

    def campaign(self, now: float) -> Ballot:
        """Start a ballot, from whatever role."""
        if self.election.role is Role.CANDIDATE:
            self.election.become_follower(LOWEST, now)
        if self.election.role is Role.FOLLOWER:
            self.election.become_pre_candidate(now)
        ballot = self.election.next_ballot()
        self.election.become_candidate(ballot, now)
        return ballot

    def promise(self, sender: NodeId, ballot: Ballot, now: float) -> bool:
        """Whether that promise makes it lead."""
        return bool(self.election.observe_promise(sender, Promise(ballot, None), now))

    def win(self, now: float = 101.0) -> Ballot:
        ballot = self.campaign(now)
        won = [
            self.promise(sender, ballot, now)
            for sender in self.election.membership.voters[: self.election.membership.newest.quorum]
        ]
        assert won == [False] * (len(won) - 1) + [True]
        return ballot

    def nack(self, sender: NodeId, now: float, ballot: Ballot | None = None) -> None:
        self.election.observe_nack(sender, Nack(ballot or self.election.own_ballot, Ballot(8, "c")), now)

    def test_follower_waits_for_a_random_window(self) -> None:
        wakes = [self.make(3, seed).wake_at - 100 for seed in range(50)]
        assert min(wakes) >= SHORTEST
        assert max(wakes) <= LONGEST
        assert max(wakes) - min(wakes) > 0.2, "so that two seldom wake together"

    def test_window_is_drawn_anew(self) -> None:
        windows = set()
        for now in range(100, 110):
            self.election.observe_leader(Ballot(1, "b"), now)
            windows.add(round(self.election.wake_at - now, 6))
        assert len(windows) == 10

    def test_alone_there_is_no_other_node_to_wait_for(self) -> None:
        assert self.make(1).tick(100.0) is TimerAction.START_CAMPAIGN, "nor to ask"
        self.win(100.0)
        assert self.election.tick(200.0) is TimerAction.SEND_HEARTBEAT, "and a quorum of one always hears itself"

    def test_nothing_is_due_early(self) -> None:
        assert self.election.tick(self.election.wake_at - 0.001) is TimerAction.NOTHING
        assert self.election.tick(self.election.wake_at) is TimerAction.REQUEST_PRE_VOTES

    def test_heartbeats_keep_a_follower_quiet(self) -> None:
        for step in range(50):
            now = 100 + step * HEARTBEAT_SECONDS
            self.election.observe_leader(Ballot(3, "b"), now)
            assert self.election.tick(now) is TimerAction.NOTHING
        assert self.election.leader_node == "b"
        assert self.election.tick(now + LONGEST) is TimerAction.REQUEST_PRE_VOTES
        assert self.election.leader_node is None
        assert self.campaign(now + LONGEST) > Ballot(3, "b")

    def test_leader_that_ended_is_not_waited_for(self) -> None:
        for seed in range(20):
            self.make(3, seed)
            self.election.observe_leader(Ballot(3, "b"), 101.0)
            self.election.observe_end("b", 101.01)
            assert self.election.grants_pre_vote("c", 101.01)
            assert 101.01 <= self.election.wake_at <= 101.035, "soon, but not all in the same moment"
            assert self.election.tick(self.election.wake_at) is TimerAction.REQUEST_PRE_VOTES

    def test_leader_said_to_have_ended_may_be_heard_again(self) -> None:
        self.election.observe_leader(Ballot(3, "b"), 101.0)
        self.election.observe_end("b", 101.01)
        self.election.observe_leader(Ballot(3, "b"), 101.02)
        assert not self.election.grants_pre_vote("c", 101.03)
        assert self.election.tick(101.02 + SHORTEST - 0.001) is TimerAction.NOTHING

    def test_end_of_another_node_changes_nothing(self) -> None:
        self.election.observe_leader(Ballot(3, "b"), 101.0)
        wake_at = self.election.wake_at
        self.election.observe_end("c", 101.01)
        assert self.election.wake_at == wake_at
        assert not self.election.grants_pre_vote("c", 101.01)
        self.campaign(102.0)
        self.election.observe_end("b", 102.01)
        assert self.election.role is Role.CANDIDATE

    def test_campaign_needs_the_pre_votes_of_a_quorum(self) -> None:
        """Its own counts; that of one node counts once, and only in the round that it answers."""
        self.make(5).tick(101.0)
        assert self.election.role is Role.PRE_CANDIDATE
        assert not self.election.observe_pre_vote_granted("b", self.election.pre_vote_number)
        assert not self.election.observe_pre_vote_granted("b", self.election.pre_vote_number)
        assert not self.election.observe_pre_vote_granted("c", self.election.pre_vote_number - 1)
        assert self.election.observe_pre_vote_granted("d", self.election.pre_vote_number)

    def test_pre_vote_is_repeated_until_it_is_answered(self) -> None:
        """Trap 20: a lost PreVote; and a late answer to an earlier one counts, since the round is still the same."""
        self.election.tick(101.0)
        assert self.election.tick(101.05) is TimerAction.NOTHING
        assert self.election.tick(101.1) is TimerAction.REQUEST_PRE_VOTES
        assert self.election.observe_pre_vote_granted("b", 1)

    def test_pre_vote_granted_to_a_node_that_does_not_ask_is_nothing(self) -> None:
        assert not self.election.observe_pre_vote_granted("b", self.election.pre_vote_number)
        self.election.tick(101.0)
        self.election.observe_leader(Ballot(1, "c"), 101.0)
        assert not self.election.observe_pre_vote_granted("b", self.election.pre_vote_number), (
            "it has found a leader meanwhile"
        )

    def test_unanswered_prepare_is_sent_again_for_a_while(self) -> None:
        """Trap 20: a lost Prepare."""
        self.campaign(101.0)
        assert self.election.tick(101.05) is TimerAction.NOTHING
        assert self.election.tick(101.1) is TimerAction.RESEND_PREPARE
        assert self.election.tick(101.2) is TimerAction.RESEND_PREPARE
        assert self.election.tick(101.0 + LONGEST) is TimerAction.NOTHING
        assert self.election.role is Role.FOLLOWER, "and then it waits, and asks for pre-votes anew"
        assert self.election.tick(self.election.wake_at) is TimerAction.REQUEST_PRE_VOTES
        assert self.election.pre_vote_number == 2

    def test_winner_sends_heartbeats(self) -> None:
        self.win(101.0)
        assert self.election.leader_node == "a"
        assert self.election.is_leader
        assert self.election.tick(101.1) is TimerAction.SEND_HEARTBEAT
        assert self.election.sequence == 1
        assert self.election.wake_at == pytest.approx(101.2)

    def test_leadership_is_won_once(self) -> None:
        ballot = self.win(101.0)
        assert not self.promise("c", ballot, 101.1)

    def test_leader_who_hears_no_quorum_steps_down(self) -> None:
        self.win(101.0)
        self.election.observe_follower("b", 101.5)
        assert self.election.tick(101.5 + LONGEST) is TimerAction.SEND_HEARTBEAT
        assert self.election.tick(101.5 + LONGEST + 0.1) is TimerAction.NOTHING
        assert not self.election.is_leader
        assert self.election.leader_ballot == LOWEST

    def test_leader_counts_itself_once(self) -> None:
        """Trap 8: its votes for itself are no sign of life from any other node."""
        self.win(101.0)
        self.election.observe_follower("a", 102.0)
        assert self.election.tick(102.0) is TimerAction.NOTHING
        assert not self.election.is_leader

    def test_leader_of_five_needs_two_others(self) -> None:
        self.make(5)
        self.win(101.0)
        self.election.observe_follower("b", 102.0)
        assert self.election.tick(102.0) is TimerAction.NOTHING
        assert not self.election.is_leader

    def test_higher_leader_ends_ones_own(self) -> None:
        ballot = self.win(101.0)
        self.election.changes()
        self.election.observe_leader(Ballot(2, "b"), 101.5)
        assert self.election.changes() == (LeadershipLost(ballot), LeadershipChanged("a", "b"))
        assert self.election.tick(101.55) is TimerAction.NOTHING

    def test_own_messages_are_no_other_leader(self) -> None:
        ballot = self.win(101.0)
        self.election.observe_leader(ballot, 101.1)
        assert self.election.is_leader

    def test_belief_does_not_go_back_to_an_older_leader(self) -> None:
        """A follower may still vote for a lower ballot it never promised away; that node is not its leader then."""
        self.election.observe_leader(Ballot(3, "c"), 101.0)
        self.election.observe_leader(Ballot(2, "b"), 101.1)
        assert self.election.leader_ballot == Ballot(3, "c")

    def test_candidate_gives_way_to_a_higher_one(self) -> None:
        ballot = self.campaign(101.0)
        self.election.observe_candidate(Ballot(1, "b"), 101.0)
        assert self.election.role is Role.FOLLOWER
        assert self.election.wake_at >= 101.0 + SHORTEST
        late = [self.promise(sender, ballot, 101.0) for sender in "abc"]
        assert not any(late), "late promises of the ballot it gave up do not count"
        assert self.campaign(102.0) == Ballot(2, "a")

    def test_own_candidature_does_not_stop_itself(self) -> None:
        ballot = self.campaign(101.0)
        self.election.observe_candidate(ballot, 101.0)
        assert self.election.role is Role.CANDIDATE

    def test_candidate_does_not_depose_a_leader(self) -> None:
        """Only who wins does; the leader's own quorum may be a different one."""
        self.win(101.0)
        self.election.observe_candidate(Ballot(2, "b"), 101.0)
        assert self.election.is_leader

    def test_follower_gives_a_candidate_time(self) -> None:
        due = self.election.wake_at
        self.election.observe_candidate(Ballot(1, "b"), due)
        assert self.election.tick(due) is TimerAction.NOTHING

    def test_candidate_refused_by_some_may_still_win(self) -> None:
        ballot = self.campaign(101.0)
        self.nack("c", 101.0)
        assert [self.promise(sender, ballot, 101.0) for sender in "ab"] == [False, True]

    def test_candidate_refused_by_too_many_gives_up_and_tries_higher(self) -> None:
        ballot = self.campaign(101.0)
        self.nack("b", 101.0)
        self.nack("b", 101.0)
        assert self.election.role.value == "candidate", "a doubled refusal counts once"
        self.nack("c", 101.0)
        assert self.election.role.value == "follower"
        assert self.election.wake_at >= 101.0 + HEARTBEAT_SECONDS
        assert self.campaign(102.0) == Ballot(9, "a") > ballot

    def test_leader_refused_by_some_runs_again_if_a_quorum_is_with_it(self) -> None:
        """Else those would refuse all it proposes from here on. But without a quorum's support it must not: they may
        follow another leader, who would be refused by some in its turn, and so on for ever."""
        self.make(5)
        self.win(101.0)
        assert not self.election.observe_pre_vote_granted("b", self.election.pre_vote_number)
        self.nack("c", 101.05)
        assert self.election.tick(101.1) is TimerAction.SEND_HEARTBEAT
        assert self.election.is_refused
        assert self.election.is_leader, "it goes on meanwhile"
        assert not self.election.observe_pre_vote_granted("b", self.election.pre_vote_number)
        assert self.election.observe_pre_vote_granted("d", self.election.pre_vote_number)
        assert self.campaign(101.1) == Ballot(9, "a")

    def test_leader_refused_by_too_many_steps_down(self) -> None:
        ballot = self.win(101.0)
        self.election.changes()
        self.nack("b", 101.1)
        assert self.election.is_leader
        self.nack("c", 101.1)
        assert self.election.changes() == (LeadershipLost(ballot), LeadershipChanged("a", None))

    def test_refusal_of_an_older_ballot_changes_nothing(self) -> None:
        old = self.campaign(101.0)
        self.campaign(101.2)
        due = self.election.wake_at
        self.nack("b", 101.2, old)
        assert self.election.wake_at == due

    def test_late_refusals_do_not_shake_a_follower(self) -> None:
        """The ballot it gave up is over: who refuses it now says nothing about the leader it has found."""
        ballot = self.campaign(101.0)
        self.election.observe_leader(Ballot(2, "b"), 101.1)
        due = self.election.wake_at
        self.nack("b", 101.1, ballot)
        self.nack("c", 101.1, ballot)
        assert self.election.leader_ballot == Ballot(2, "b")
        assert self.election.wake_at == due

    def test_illegal_transitions_are_refused(self) -> None:
        """Each names both roles."""
        ballot = Ballot(1, "a")
        with pytest.raises(BrokenInvariant, match="a follower cannot become a candidate"):
            self.election.become_candidate(ballot, 101.0)
        with pytest.raises(BrokenInvariant, match="a follower cannot become a leader"):
            self.election.become_leader(101.0)
        self.election.become_pre_candidate(101.0)
        with pytest.raises(BrokenInvariant, match="a pre-candidate cannot become a pre-candidate"):
            self.election.become_pre_candidate(101.0)
        with pytest.raises(BrokenInvariant, match="a pre-candidate cannot become a leader"):
            self.election.become_leader(101.0)
        self.election.become_candidate(ballot, 101.0)
        with pytest.raises(BrokenInvariant, match="a candidate cannot become a candidate"):
            self.election.become_candidate(Ballot(2, "a"), 101.0)
        self.election.become_leader(101.0)
        with pytest.raises(BrokenInvariant, match="a leader cannot become a pre-candidate"):
            self.election.become_pre_candidate(101.0)
        with pytest.raises(BrokenInvariant, match="a leader cannot become a leader"):
            self.election.become_leader(101.0)
        assert self.election.leader_ballot == self.election.own_ballot == ballot

    def test_what_belongs_to_a_ballot_is_gone_with_it(self) -> None:
        ballot = self.campaign(101.0)
        assert self.election.silent_voters() == ["a", "b", "c"]
        self.promise("b", ballot, 101.0)
        assert self.election.silent_voters() == ["a", "c"]
        self.nack("c", 101.0)
        self.promise("a", ballot, 101.0)
        assert self.election.is_refused
        self.election.step_down(101.1)
        assert self.election.candidacy is None
        assert self.election.own_ballot == LOWEST
        assert not self.election.is_refused

    def test_every_failure_is_counted_once(self) -> None:
        """Of five, three refusals lose the ballot; the fourth must not put the next try off further."""
        self.make(5)
        self.campaign(101.0)
        for sender in "bcd":
            self.nack(sender, 101.0)
        due = self.election.wake_at
        self.nack("e", 101.0)
        assert self.election.wake_at == due

    def test_back_off_grows_to_a_limit(self) -> None:
        """Trap 20: duels end, since who draws the shorter wait gets through."""
        longest = []
        for failures in range(1, 10):
            waits = []
            for seed in range(40):
                self.make(3, seed)
                for _ in range(failures):
                    self.campaign(101.0)
                    self.nack("b", 101.0)
                    self.nack("c", 101.0)
                waits.append(self.election.wake_at - 101.0)
            assert min(waits) >= HEARTBEAT_SECONDS
            longest.append(max(waits))
        assert longest[0] <= SHORTEST * 2
        assert longest[3] > longest[1] > longest[0]
        assert max(longest) <= SHORTEST * 2**BACK_OFF_DOUBLINGS_MAX
        assert longest[-1] > SHORTEST * 2 ** (BACK_OFF_DOUBLINGS_MAX - 1)

    def test_changes_are_told_once(self) -> None:
        assert self.election.changes() == ()
        self.election.observe_leader(Ballot(1, "b"), 101.0)
        assert self.election.changes() == (LeadershipChanged(None, "b"),)
        assert self.election.changes() == ()
        ballot = self.win(102.0)
        assert self.election.changes() == (LeadershipAcquired(ballot), LeadershipChanged("b", "a"))
        assert self.election.changes() == ()

    def test_lost_and_won_again_tells_both(self) -> None:
        first = self.win(101.0)
        self.election.changes()
        second = self.win(103.0)
        assert self.election.changes() == (LeadershipLost(first), LeadershipAcquired(second))


class TestNode(test_practical.TestNode):
    """Everything the practical node does, the functional one does; then what time adds."""

    now = 100.0

    def make(self, node: NodeId = "a", saved: DecreeState | None = None) -> Any:
        return functional.Node(node, ABC, Random(1), self.now, saved)

    def decree(self, node: Any) -> practical.Node:
        assert isinstance(node, functional.Node)
        return node.decree

    def wake(self, node: Any) -> Ready:
        self.now = max(self.now, node.election.wake_at)
        ready: Ready = node.tick(self.now)
        return ready

    def prepare(self, node: Any) -> Ready:
        """The election timeout of the node is over, and "b" grants it a pre-vote."""
        (pre_vote,) = sent(self.wake(node), PreVote)
        return self.receive(node, "b", PreVoteGranted(pre_vote.sequence))

    def receive(self, node: Any, sender: NodeId, message: Any) -> Ready:
        ready: Ready = node.receive(sender, message, self.now)
        return ready

    def test_nothing_happens_early(self) -> None:
        node = self.make()
        ready = node.tick(self.now)
        assert (ready.save, ready.send) == ((), ())
        assert ready.wake_at == node.election.wake_at > self.now

    def test_lost_pre_vote_and_prepare_are_sent_again(self) -> None:
        """Trap 20."""
        node = self.make()
        assert self.wake(node).send == self.wake(node).send == (Envelope(("b", "c"), PreVote(1)),)
        ready = self.receive(node, "b", PreVoteGranted(1))
        assert ready.send == self.wake(node).send == (Envelope(ABC, Prepare(Ballot(1, "a"))),)

    def test_pre_vote_granted_late_is_nothing(self) -> None:
        node = self.make()
        assert self.receive(node, "b", PreVoteGranted(0)).send == ()

    def test_grants_a_pre_vote_unless_it_hears_a_leader(self) -> None:
        """So a node that alone has lost the leader disturbs no other."""
        node = self.make()
        assert self.receive(node, "b", PreVote(7)).send == (Envelope(("b",), PreVoteGranted(7)),), (
            "who starts knows of none"
        )
        self.receive(node, "c", Heartbeat(Ballot(1, "c")))
        self.now += SHORTEST - 0.01
        assert self.receive(node, "b", PreVote(8)).send == ()
        assert self.receive(node, "c", PreVote(8)).send == (Envelope(("c",), PreVoteGranted(8)),), (
            "unless that leader asks"
        )
        self.now += 0.02
        assert self.receive(node, "b", PreVote(8)).send == (Envelope(("b",), PreVoteGranted(8)),)

    def test_strangers_neither_lead_nor_grant_nor_refuse(self) -> None:
        """Trap 8."""
        node = self.make()
        ready = self.receive(node, "x", Heartbeat(Ballot(9, "x")))
        assert (ready.send, ready.leadership) == ((), ())
        assert self.receive(node, "x", PreVote(1)).send == ()
        (pre_vote,) = sent(self.wake(node), PreVote)
        assert self.receive(node, "x", PreVoteGranted(pre_vote.sequence)).send == ()
        ballot, _ = self.lead(node)
        for stranger in ("x", "y"):
            self.receive(node, stranger, Nack(ballot, Ballot(9, "x")))
        assert node.election.is_leader

    def test_leader_grants_no_pre_vote(self) -> None:
        node = self.make()
        self.lead(node)
        assert self.receive(node, "c", PreVote(1)).send == ()

    def test_leader_says_so_at_once(self) -> None:
        node = self.make()
        ballot, ready = self.lead(node)
        assert ready.send == (Envelope(("b", "c"), Heartbeat(ballot)),)
        assert ready.leadership == (LeadershipAcquired(ballot), LeadershipChanged(None, "a"))

    def test_leader_repeats_itself_until_the_value_is_chosen(self) -> None:
        node = self.make()
        node.propose(b"v")
        ballot, _ = self.lead(node)
        ready = self.wake(node)
        assert [envelope.message for envelope in ready.send] == [Accept(ballot, b"v"), Heartbeat(ballot, 0, 1)]
        self.receive(node, "c", Decided(b"v"))
        assert [envelope.message for envelope in self.wake(node).send] == [Heartbeat(ballot, 1, 2)]

    def test_leader_in_vain_steps_down(self) -> None:
        node = self.make()
        ballot, _ = self.lead(node)
        self.now += LONGEST + 1
        assert LeadershipLost(ballot) in self.wake(node).leadership

    def test_leader_refused_by_some_asks_for_pre_votes_and_runs_again(self) -> None:
        node = self.make()
        ballot, _ = self.lead(node)
        self.receive(node, "c", Nack(ballot, Ballot(4, "c")))
        ready = self.wake(node)
        assert sent(ready, Heartbeat) == [Heartbeat(ballot, 0, 1)]
        (pre_vote,) = sent(ready, PreVote)
        assert sent(self.receive(node, "b", PreVoteGranted(pre_vote.sequence)), Prepare) == [Prepare(Ballot(5, "a"))]

    def test_follower_answers_a_heartbeat(self) -> None:
        node = self.make()
        ready = self.receive(node, "b", Heartbeat(Ballot(1, "b"), 0, 7))
        assert ready.send == (Envelope(("b",), HeartbeatAck(Ballot(1, "b"), 0, 7)),)
        assert ready.leadership == (LeadershipChanged(None, "b"),)

    def test_lower_heartbeat_is_refused(self) -> None:
        node = self.make()
        self.receive(node, "c", Prepare(Ballot(2, "c")))
        ready = self.receive(node, "b", Heartbeat(Ballot(1, "b")))
        assert ready.send == (Envelope(("b",), Nack(Ballot(1, "b"), Ballot(2, "c"))),)
        assert ready.leadership == ()

    def test_follower_that_missed_the_outcome_is_told(self) -> None:
        node = self.make()
        ballot, _ = self.lead(node)
        self.receive(node, "c", Decided(b"v"))
        assert sent(self.receive(node, "b", HeartbeatAck(ballot, 0, 1)), Decided) == [Decided(b"v")]
        assert not self.receive(node, "b", HeartbeatAck(ballot, 1, 1)).send

    def test_acknowledgement_of_another_ballot_is_no_sign_of_life(self) -> None:
        node = self.make()
        ballot, _ = self.lead(node)
        self.now += LONGEST
        self.receive(node, "b", HeartbeatAck(Ballot(0, "a"), 0, 1))
        self.now += HEARTBEAT_SECONDS
        assert LeadershipLost(ballot) in self.wake(node).leadership

    def test_accept_makes_a_follower_and_prepare_one_that_waits(self) -> None:
        node = self.make()
        assert self.receive(node, "b", Accept(Ballot(1, "b"), b"v")).leadership == (LeadershipChanged(None, "b"),)
        self.now = node.election.wake_at
        wake_at = self.receive(node, "c", Prepare(Ballot(2, "c"))).wake_at
        assert wake_at is not None
        assert wake_at >= self.now + SHORTEST

    def test_repeated_prepare_buys_no_more_time(self) -> None:
        """Trap 20: a candidate that cannot hear asks for ever; those who promised must not wait for ever."""
        node = self.make()
        due = self.receive(node, "c", Prepare(Ballot(2, "c"))).wake_at
        self.now += HEARTBEAT_SECONDS
        assert self.receive(node, "c", Prepare(Ballot(2, "c"))).wake_at == due
