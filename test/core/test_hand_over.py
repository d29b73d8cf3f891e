"""Handing over the lead: what a leader and its target do, and what they refuse."""

from __future__ import annotations

from functools import partial
from random import Random

import attrs
import pytest

from test.core.test_replica import ONE, TWO, leader, vote
from test.helpers.core_cluster import CoreCluster, Faults, ManualNetwork
from test.helpers.core_node import sent
from txpaxos.core.config import Timing
from txpaxos.core.drops import Drop
from txpaxos.core.messages import (
    LOWEST,
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
    TakeOver,
)
from txpaxos.core.ready import Envelope, HandOverEnded, LeadershipAcquired, Ready
from txpaxos.core.replica import Replica

LONGEST = Timing().liveness_window_seconds[1]


def ack(replica: Replica, sender: NodeId, through: int = 1, now: float = 1.0, leaving: bool = False) -> Ready:
    """The answer of ``sender`` to the last heartbeat of ``replica``."""
    sequence = replica.election.sequence
    return replica.receive(sender, HeartbeatAck(replica.election.own_ballot, through, sequence, leaving), now)


def leading(members: str = "abc") -> Replica:
    """Node "a", which leads; its first slot is chosen, and all followers have said that they know it."""
    replica = leader(*[PromiseLog(LOWEST, 1)] * (len(members) // 2), members=members)
    vote(replica, 1, *members[: len(members) // 2 + 1])
    for member in members[1:]:
        ack(replica, member)
    return replica


def handing_over(target: NodeId = "b") -> tuple[Replica, Ready]:
    """Node "a" when it has just begun to hand over to ``target``, and what it does first."""
    replica = leading()
    refusal, ready = replica.hand_over(target, 1.0)
    assert refusal == ""
    return replica, ready


def ended(ready: Ready) -> list[HandOverEnded]:
    return [answer for answer in ready.answers if isinstance(answer, HandOverEnded)]


def prefer(replica: Replica, **priorities: int) -> None:
    """Give voters these priorities, as a change of members does."""
    membership = replica.membership
    membership.configurations[-1] = attrs.evolve(membership.newest, priorities=tuple(priorities.items()))


class TestLeader:
    def test_tells_the_target_at_once_when_no_slot_is_open(self) -> None:
        replica, ready = handing_over()
        assert ready.send == (Envelope(("b", "c"), Heartbeat(ONE, 1)), Envelope(("b",), TakeOver(ONE, 1)))
        assert not replica.has_room

    def test_says_to_which_node_until_that_has_ended(self) -> None:
        assert leading().hand_over_target is None
        replica, _ = handing_over("c")
        assert replica.hand_over_target == "c"
        replica.receive("b", Heartbeat(TWO, 0), 1.0)
        assert replica.hand_over_target is None

    def test_waits_for_its_open_slots_and_opens_no_other(self) -> None:
        replica = leading()
        replica.propose(b"v", 1.0)
        assert replica.hand_over("b", 1.0)[1].send == ()
        assert not replica.has_room
        ready = vote(replica, 2, "a", "b")
        assert sent(ready, TakeOver) == [TakeOver(ONE, 2)]

    def test_tells_the_target_again_with_each_heartbeat(self) -> None:
        replica, _ = handing_over()
        assert sent(replica.tick(1.05), TakeOver) == []
        assert sent(replica.tick(1.11), TakeOver) == [TakeOver(ONE, 1)]

    def test_tells_the_target_again_after_what_it_asks_for(self) -> None:
        replica, _ = handing_over()
        ready = replica.receive("b", Fetch(1), 1.0)
        assert [type(envelope.message) for envelope in ready.send] == [ChosenValues, TakeOver]
        assert sent(replica.receive("b", Fetch(2), 1.0), TakeOver), "it may only have doubted the last one"
        assert not sent(replica.receive("c", Fetch(1), 1.0), TakeOver)
        assert not sent(leading().receive("b", Fetch(1), 1.0), TakeOver)

    def test_gives_up_at_once_when_the_target_does_not_run_any_more(self) -> None:
        replica, _ = handing_over()
        assert ended(replica.observe_end("c", 1.0)) == []
        assert ended(replica.observe_end("b", 1.0)) == [HandOverEnded("b", "b does not run any more")]
        assert replica.has_room

    def test_gives_up_after_the_longest_liveness_window_and_leads_on(self) -> None:
        replica, _ = handing_over()
        for now in (1.1, 1.2, 1.3, 1.4):
            assert ended(replica.tick(now)) == []
            ack(replica, "c", 1, now)
        assert replica.wake_at <= 1.0 + LONGEST
        ready = replica.tick(1.0 + LONGEST)
        assert ended(ready) == [HandOverEnded("b", "b did not take over in time")]
        assert sent(ready, AcceptSlot) == [AcceptSlot(ONE, 2, b"", 1)], "a TakeOver that is late tells too little now"
        assert replica.has_room
        assert replica.is_leader
        assert sent(replica.tick(1.7), TakeOver) == []

    def test_gives_up_though_its_open_slots_stay_open(self) -> None:
        replica = leading()
        replica.propose(b"v", 1.0)
        replica.hand_over("b", 1.0)
        ack(replica, "c", 1, 1.4)
        ready = replica.tick(1.0 + LONGEST)
        assert ended(ready) == [HandOverEnded("b", "b did not take over in time")]
        assert {one.slot for one in sent(ready, AcceptSlot)} == {2}, "only sent again"
        assert replica.has_room

    def test_is_done_when_the_target_has_an_entry_of_its_own_chosen(self) -> None:
        replica, _ = handing_over()
        ballot = Ballot(2, "b")
        assert ended(replica.receive("b", PrepareLog(ballot, 2), 1.01)) == []
        ready = replica.receive("b", AcceptSlot(ballot, 2, b"", 1), 1.02)
        assert ended(ready) == [], "it leads, and nothing shows yet that it can get anything chosen"
        assert not replica.is_leader
        ready = replica.receive("b", Heartbeat(ballot, 2), 1.03)
        assert ended(ready) == [HandOverEnded("b")]

    def test_fails_when_another_node_leads(self) -> None:
        replica, _ = handing_over()
        ready = replica.receive("c", Heartbeat(Ballot(2, "c"), 2), 1.03)
        assert ended(ready) == [HandOverEnded("b", "c leads now")]

    def test_fails_at_once_when_the_target_says_that_it_is_about_to_stop(self) -> None:
        replica, _ = handing_over()
        ready = ack(replica, "b", leaving=True)
        assert ended(ready) == [HandOverEnded("b", "b is about to stop")]
        assert replica.has_room

    def test_does_not_win_the_lead_back_at_once(self) -> None:
        """A peer that has promised the target's ballot refuses the old leader, and would grant its pre-vote."""
        replica, _ = handing_over()
        replica.receive("c", Nack(ONE, Ballot(2, "b")), 1.05)
        for now in (1.1, 1.2, 1.3):
            assert sent(replica.tick(now), PreVote) == []
            ready = replica.receive("c", PreVoteGranted(replica.election.pre_vote_number), now)
            assert sent(ready, PrepareLog) == []
        replica.receive("b", AcceptSlot(Ballot(2, "b"), 2, b"", 1), 1.4)
        now = 1.4
        while now < 1.0 + 2 * LONGEST:
            assert sent(replica.tick(now), PreVote) == [], now
            now += 0.05
        assert any(sent(replica.tick(1.0 + 2 * LONGEST + step / 10), PreVote) for step in range(10))

    def test_asks_for_pre_votes_when_it_has_given_up_and_is_refused(self) -> None:
        """The target campaigned, and crashed."""
        replica, _ = handing_over()
        replica.receive("b", PrepareLog(Ballot(2, "b"), 2), 1.05)
        replica.receive("c", Nack(ONE, Ballot(2, "b")), 1.05)
        ack(replica, "c", 1, 1.4)
        replica.tick(1.0 + LONGEST)
        assert sent(replica.tick(1.1 + LONGEST), PreVote)


class TestTargets:
    @pytest.mark.parametrize(
        ("target", "refusal"),
        [("a", "a is no other voter of this cluster"), ("x", "x is no other voter of this cluster")],
    )
    def test_must_be_other_voters(self, target: NodeId, refusal: str) -> None:
        assert leading().hand_over(target, 1.0)[0] == refusal

    def test_must_have_been_heard_within_the_shortest_window(self) -> None:
        assert leading().hand_over("b", 1.26)[0] == "b was not heard lately"

    def test_must_be_level(self) -> None:
        replica = leading()
        for slot in range(2, 35):
            replica.propose(b"v", 1.0)
            vote(replica, slot, "a", "b")
        assert replica._hand_over.objection(replica._leader, "c", 1.0) == "", "all that was chosen since its last word"  # type: ignore[arg-type]
        ack(replica, "b", 34)
        ack(replica, "c", 1)
        assert replica.hand_over("c", 1.0)[0] == "c is too far behind"
        assert replica.hand_over(None, 1.0)[0] == ""
        assert replica.hand_over("b", 1.0)[0] == "a hands over to b already"

    def test_may_not_have_said_yet_how_far_they_are(self) -> None:
        """A leader that has just been elected waits for that."""
        replica = leader()
        vote(replica, 1, "a", "b")
        refusal, ready = replica.hand_over("b", 1.0)
        assert (refusal, ready.send) == ("", ())
        assert sent(ack(replica, "b", 0), TakeOver) == [TakeOver(ONE, 1)]

    def test_must_not_be_about_to_stop(self) -> None:
        replica = leading()
        ack(replica, "b", leaving=True)
        assert replica.hand_over("b", 1.0)[0] == "b is about to stop"
        ack(replica, "b")
        assert replica.hand_over("b", 1.0)[0] == "", "it was started again"

    def test_may_have_priority_0_and_never_lead(self) -> None:
        replica = leading()
        prefer(replica, b=0)
        assert replica.hand_over("b", 1.0)[0] == "b has priority 0, so it never leads"

    def test_are_chosen_by_what_they_know_then_by_priority_then_by_name(self) -> None:
        replica = leading("abcde")
        assert replica._hand_over.default_target(replica._leader, 1.0) == "b"  # type: ignore[arg-type]
        prefer(replica, d=2)
        assert replica._hand_over.default_target(replica._leader, 1.0) == "d"  # type: ignore[arg-type]
        replica.propose(b"v", 1.0)
        vote(replica, 2, "a", "c", "e")
        ack(replica, "e", 2)
        assert replica._hand_over.default_target(replica._leader, 1.0) == "e"  # type: ignore[arg-type]

    def test_may_be_missing(self) -> None:
        assert leading().hand_over(None, 9.0)[0] == "no other node can take over"

    def test_are_named_by_the_leader_only(self) -> None:
        network = ManualNetwork()
        assert network.nodes["a"].hand_over("b", 1.0)[0] == "a does not lead"


class TestTarget:
    def follower(self, through: int = 1) -> Replica:
        """Node "b", which follows "a" and has learned every slot up to ``through``."""
        replica = Replica("b", "abc", Random(1), 0.0)
        for slot in range(1, through + 1):
            replica.receive("a", AcceptSlot(ONE, slot, b"v%d" % slot, slot - 1), 1.0)
        replica.receive("a", Heartbeat(ONE, through, 1), 1.0)
        return replica

    def test_campaigns_at_once_without_pre_votes(self) -> None:
        replica = self.follower()
        ready = replica.receive("a", TakeOver(ONE, 1), 1.0)
        assert ready.send == (Envelope(("a", "b", "c"), PrepareLog(Ballot(2, "b"), 2)),)
        assert ready.save, "its round is on disk first"

    def test_learns_what_it_misses_first(self) -> None:
        replica = self.follower()
        ready = replica.receive("a", TakeOver(ONE, 3), 1.0)
        assert ready.send == (Envelope(("a",), Fetch(2)),)
        ready = replica.receive("a", ChosenValues(2, (b"v2",), 3), 1.0)
        assert ready.send == (Envelope(("a",), Fetch(3)),)
        replica.receive("a", ChosenValues(3, (b"v3",), 3), 1.0)
        ready = replica.receive("a", TakeOver(ONE, 3), 1.0)
        assert sent(ready, PrepareLog) == [PrepareLog(Ballot(2, "b"), 4)]

    def test_needs_no_fetch_for_what_it_voted_for(self) -> None:
        replica = self.follower()
        replica.receive("a", AcceptSlot(ONE, 2, b"v2", 1), 1.0)
        assert sent(replica.receive("a", TakeOver(ONE, 2), 1.0), PrepareLog) == [PrepareLog(Ballot(2, "b"), 3)]

    def dropped(self, replica: Replica, message: TakeOver, sender: NodeId = "a") -> dict[Drop, int]:
        """What ``replica`` counts, and does nothing else."""
        replica.dropped.clear()
        ready = replica.receive(sender, message, 1.1)
        assert ready.is_empty, ready
        return dict(replica.dropped)

    def test_obeys_only_the_leader_that_it_follows(self) -> None:
        replica = self.follower()
        late = {Drop.TAKE_OVER_TOO_LATE: 1}
        assert self.dropped(replica, TakeOver(Ballot(0, "a"), 1)) == late
        assert self.dropped(replica, TakeOver(TWO, 1), TWO.node) == late
        assert self.dropped(replica, TakeOver(ONE, 1), "c") == {Drop.BALLOT_OF_ANOTHER_NODE: 1}

    def test_obeys_no_leader_that_has_gone_on_since(self) -> None:
        assert self.dropped(self.follower(2), TakeOver(ONE, 1)) == {Drop.TAKE_OVER_TOO_LATE: 1}

    def test_obeys_once(self) -> None:
        replica = self.follower()
        replica.receive("a", TakeOver(ONE, 1), 1.0)
        assert self.dropped(replica, TakeOver(ONE, 1)) == {Drop.TAKE_OVER_TOO_LATE: 1}

    def test_does_not_go_against_its_promise_to_a_candidate(self) -> None:
        replica = self.follower()
        replica.receive("c", PrepareLog(Ballot(2, "c"), 2), 1.0)
        assert self.dropped(replica, TakeOver(ONE, 1)) == {Drop.TAKE_OVER_TOO_LATE: 1}

    def test_does_not_obey_while_its_disk_hangs_or_before_it_votes(self) -> None:
        replica = self.follower()
        replica.suspend(1.0)
        assert self.dropped(replica, TakeOver(ONE, 1)) == {Drop.TAKE_OVER_TOO_LATE: 1}
        newcomer = Replica("b", "abc", Random(1), 0.0, votes=False)
        newcomer.receive("a", Heartbeat(ONE, 0, 1), 1.0)
        assert self.dropped(newcomer, TakeOver(ONE, 0)) == {Drop.TAKE_OVER_TOO_LATE: 1}

    def test_that_is_about_to_stop_says_so_instead(self) -> None:
        replica = self.follower()
        assert sent(replica.leave(1.0), HeartbeatAck) == [HeartbeatAck(ONE, 1, 0, leaving=True)]
        assert replica.is_leaving
        ready = replica.receive("a", TakeOver(ONE, 1), 1.0)
        assert ready.send == (Envelope(("a",), HeartbeatAck(ONE, 1, 0, leaving=True)),)
        assert replica.dropped[Drop.TAKE_OVER_WHILE_LEAVING] == 1
        assert sent(replica.receive("a", Heartbeat(ONE, 1, 2), 1.0), HeartbeatAck) == [
            HeartbeatAck(ONE, 1, 2, leaving=True)
        ]

    def test_that_is_about_to_stop_does_not_campaign(self) -> None:
        replica = self.follower()
        replica.leave(1.0)
        for step in range(100):
            assert replica.tick(1.0 + step / 10).send == ()
        assert sent(replica.receive("c", PreVote(1), 11.0), PreVoteGranted), "and is not in the way of others"

    def test_that_leads_and_is_about_to_stop_leads_on(self) -> None:
        replica = leading()
        assert sent(replica.leave(1.0), HeartbeatAck) == []
        assert sent(replica.tick(1.2), Heartbeat)
        assert replica.has_room


class TestTogether:
    """All nodes, and a network with faults."""

    def cluster(self, seed: int, nodes: int = 3, faults: Faults | None = None) -> tuple[CoreCluster, NodeId]:
        """A cluster with a leader that has heard its followers, and the leader."""
        cluster = CoreCluster(seed, nodes, faults)
        assert cluster.run(60.0, lambda: any(one.has_room for one in cluster.nodes.values()))
        cluster.run(0.3)
        leader_node = cluster.leader()
        assert leader_node is not None
        return cluster, leader_node

    def hand_over(self, cluster: CoreCluster, source: NodeId, target: NodeId | None = None) -> list[HandOverEnded]:
        """Begin, and return the list to which the end of the hand-over will be added."""
        ends: list[HandOverEnded] = []
        hand_out = cluster.hand_out

        def watching(node: NodeId, ready: Ready) -> None:
            ends.extend(ended(ready))
            hand_out(node, ready)

        cluster.hand_out = watching  # type: ignore[method-assign]
        refusal, ready = cluster.nodes[source].hand_over(target, cluster.now)
        assert refusal == ""
        cluster.take(source, ready)
        return ends

    @pytest.mark.parametrize("nodes", [2, 3, 5])
    def test_takes_a_few_round_trips_and_one_ballot(self, nodes: int) -> None:
        for seed in range(20):
            cluster, source = self.cluster(seed, nodes)
            round_before = cluster.nodes[source].election.own_ballot.round
            ends = self.hand_over(cluster, source)
            began = cluster.now
            assert cluster.run(1.0, ends.__len__), seed
            assert ends[0].reason == ""
            assert cluster.now - began < 0.015
            target = ends[0].target
            assert cluster.leader() == target
            assert cluster.nodes[target].election.own_ballot.round == round_before + 1
            cluster.run(2.0)
            assert cluster.leader() == target, "and it stays there"

    def test_goes_on_while_values_are_proposed(self) -> None:
        cluster, source = self.cluster(3)
        for number in range(5):
            assert cluster.propose(b"v%d" % number)
        ends = self.hand_over(cluster, source)
        assert not cluster.propose(b"w"), "nothing is proposed meanwhile"
        assert cluster.run(1.0, lambda: ends and cluster.propose(b"w"))
        assert cluster.run(1.0, lambda: b"w" in cluster.values(source))
        assert [value for value in cluster.values(source) if value] == [b"v%d" % number for number in range(5)] + [b"w"]

    @pytest.mark.parametrize("moment", [TakeOver, PrepareLog, PromiseLog, AcceptSlot, AcceptedSlot])
    def test_a_target_that_crashes_costs_no_more_than_an_election(self, moment: type) -> None:
        """It crashes before, or after, it has sent each of its messages."""
        for seed in range(10):
            self.crash_at(moment, seed)

    def crash_at(self, moment: type, seed: int) -> None:
        cluster, source = self.cluster(seed)
        target = next(node for node in cluster.members if node != source)
        take = cluster.take

        def crash(to: NodeId, sender: NodeId, message: object, ready: Ready) -> None:
            if isinstance(message, moment) and target in (to, sender) and target in cluster.nodes:
                cluster.stop(target)
                cluster._owed[target].clear()

        def take_if_running(node: NodeId, ready: Ready) -> None:
            if node in cluster.nodes:
                take(node, ready)

        cluster.watch = crash
        cluster.take = take_if_running  # type: ignore[method-assign]
        self.hand_over(cluster, source, target)
        began, rounds = cluster.now, cluster.nodes[source].election.own_ballot.round
        others = [node for node in cluster.members if node != target]
        cluster.run(0.02)
        assert cluster.run(5.0, lambda: any(cluster.nodes[node].has_room for node in others)), (seed, moment)
        leads = next(node for node in others if cluster.nodes[node].has_room)
        assert cluster.now - began < 1.2, (seed, moment)
        assert cluster.nodes[leads].election.own_ballot.round <= rounds + 2

    def test_a_lossy_network_delays_it_at_most(self) -> None:
        faults = Faults(loss=0.2, doubled=0.3, delay_seconds=(0.001, 0.03), save_seconds=(0.0, 0.01))
        done = 0
        for seed in range(30):
            cluster, source = self.cluster(seed, 3, faults)
            if cluster.nodes[source].hand_over(None, cluster.now)[0]:
                continue
            cluster.nodes[source]._hand_over.current = None
            ends = self.hand_over(cluster, source)
            assert cluster.run(2.0, ends.__len__), seed
            done += not ends[0].reason
            cluster.heal()
            assert cluster.run(5.0, partial(cluster.propose, b"w")), seed
            assert cluster.run(10.0, cluster.settled), seed
        assert done > 15

    def test_a_take_over_that_is_ten_seconds_late_changes_nothing(self) -> None:
        cluster, source = self.cluster(1)
        target = next(node for node in cluster.members if node != source)
        cluster.cut.add((source, target))
        ends = self.hand_over(cluster, source, target)
        through = cluster.nodes[source].log.chosen_through
        ballot = cluster.nodes[source].election.own_ballot
        assert cluster.run(1.0, lambda: ends)
        assert ends[0].reason
        cluster.cut.clear()
        cluster.run(9.5)
        before = cluster.leader()
        ballot = cluster.nodes[before].election.own_ballot if before else ballot
        cluster.take(target, cluster.nodes[target].receive(source, TakeOver(ballot, through), cluster.now))
        cluster.run(1.0)
        assert cluster.leader() == before

    def test_a_node_that_wins_meanwhile_ends_it(self) -> None:
        told: list[object] = []
        cluster, source = self.cluster(5)
        cluster.told = lambda node, fact: told.append(fact)
        ends = self.hand_over(cluster, source)
        assert cluster.run(1.0, lambda: ends)
        assert [fact for fact in told if isinstance(fact, LeadershipAcquired)] == [
            LeadershipAcquired(Ballot(cluster.nodes[source].log.promised.round, ends[0].target))
        ]
