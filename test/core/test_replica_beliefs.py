"""What one node does not believe a peer: it is dropped by a guard with a name, and changes nothing."""

from __future__ import annotations

from random import Random
from typing import cast

import pytest

from test.core.test_replica import ONE, THREE, TWO, leader, make, told, vote
from test.helpers.core_node import campaign, sent, settle
from txpaxos.core.config import Limits
from txpaxos.core.drops import Drop
from txpaxos.core.guards import ROUND_MAX, ROUNDS_AHEAD_MAX
from txpaxos.core.messages import (
    AcceptedSlot,
    AcceptSlot,
    Ballot,
    ChosenValues,
    Heartbeat,
    HeartbeatAck,
    Message,
    Nack,
    NodeId,
    PrepareLog,
    PromiseLog,
    Vote,
)
from txpaxos.core.ready import Learned, Promised, Voted
from txpaxos.core.replica import Replica

JUMP = Ballot(ROUNDS_AHEAD_MAX + 2, "c")
HIGHEST = Ballot(2**64 - 1, "c")


def check_dropped(replica: Replica, sender: NodeId, message: Message, reason: Drop, now: float = 1.0) -> None:
    """``message`` changes nothing, and is counted under ``reason``."""
    before = replica.status()
    ready = replica.receive(sender, message, now)
    assert (ready.save, ready.send, ready.chosen, ready.answers, ready.leadership) == ((), (), (), (), ()), message
    after = replica.status()
    name = reason.metric_name
    assert after.dropped.get(name, 0) == before.dropped.get(name, 0) + 1, (message, after.dropped)
    assert (after.role, after.leader, after.promised) == (before.role, before.leader, before.promised)


class TestBallots:
    @pytest.mark.parametrize("ballot", [ONE, TWO, Ballot(5, "x")])
    def test_one_that_is_not_its_senders(self, ballot: Ballot) -> None:
        for message in (Heartbeat(ballot, 0, 1), PrepareLog(ballot, 1), AcceptSlot(ballot, 1, b"v", 0)):
            check_dropped(make(), "c", message, Drop.BALLOT_OF_ANOTHER_NODE)

    @pytest.mark.parametrize("ballot", [JUMP, HIGHEST, Ballot(ROUND_MAX + 1, "c")])
    def test_one_beyond_reason(self, ballot: Ballot) -> None:
        for message in (Heartbeat(ballot, 0, 1), PrepareLog(ballot, 1), AcceptSlot(ballot, 1, b"v", 0)):
            replica = make()
            check_dropped(replica, "c", message, Drop.BALLOT_BEYOND_REASON)
            assert campaign(replica, 1.0).save[0].ballot == Ballot(1, "b")  # type: ignore[union-attr]

    def test_no_round_is_used_up(self) -> None:
        """However many jumps are made, something is left to save and to send."""
        replica = make(saved=[Voted(Ballot(ROUND_MAX - 1, "c"), 1, b"v", 0)])
        assert sent(replica.receive("c", PrepareLog(Ballot(ROUND_MAX, "c"), 1), 0.0), PromiseLog)
        check_dropped(replica, "c", PrepareLog(Ballot(ROUND_MAX + 1, "c"), 1), Drop.BALLOT_BEYOND_REASON)

    def test_a_jump_that_may_be(self) -> None:
        """A node that was away for years."""
        assert sent(make().receive("c", PrepareLog(Ballot(ROUNDS_AHEAD_MAX, "c"), 1), 0.0), PromiseLog)

    def test_refusals(self) -> None:
        replica = leader()
        for nack in (Nack(THREE, Ballot(4, "b")), Nack(ONE, ONE), Nack(ONE, Ballot(0, "c"))):
            check_dropped(replica, "b", nack, Drop.REFUSAL_OF_NO_OWN_BALLOT)
        for nack in (Nack(ONE, HIGHEST), Nack(ONE, JUMP)):
            check_dropped(replica, "b", nack, Drop.BALLOT_BEYOND_REASON)
        check_dropped(replica, "b", Nack(ONE, Ballot(4, "x")), Drop.BALLOT_OF_NO_MEMBER)
        assert replica.election.highest_seen == ONE
        assert replica.election.candidacy is not None
        assert replica.election.candidacy.refused_by == set()

    def test_a_promise_to_a_node_that_was_replaced_is_told_so_that_it_is_believed(self) -> None:
        replica = make(saved=[Promised(Ballot(4, "x"))])
        for message in (PrepareLog(ONE, 1), AcceptSlot(ONE, 1, b"v", 0), Heartbeat(ONE, 0, 1)):
            assert sent(replica.receive("a", message, 0.0), Nack) == [Nack(ONE, Ballot(5, "b"))]

    def test_an_answer_to_a_heartbeat_that_was_not_sent(self) -> None:
        """Else no later question for a read index would wait for this follower."""
        check_dropped(leader(), "b", HeartbeatAck(ONE, 0, 9), Drop.ACKNOWLEDGEMENT_OF_AN_UNSENT_HEARTBEAT)


class TestValues:
    def test_two_in_one_ballot(self) -> None:
        replica = make()
        replica.receive("c", AcceptSlot(THREE, 1, b"v", 0), 1.0)
        check_dropped(replica, "c", AcceptSlot(THREE, 1, b"w", 0), Drop.TWO_VALUES_IN_ONE_BALLOT)
        assert sent(replica.receive("c", AcceptSlot(THREE, 1, b"v", 0), 1.0), AcceptedSlot)

    def test_another_than_what_is_learned_above_a_gap(self) -> None:
        replica = make(saved=[Learned(2, (b"2",))])
        ready = replica.receive("c", AcceptSlot(THREE, 2, b"w", 0), 1.0)
        assert ready.save == ()
        assert sent(ready, ChosenValues) == [ChosenValues(2, (b"2",), 2)]
        assert replica.dropped[Drop.ACCEPT_OF_A_DEPOSED_LEADER] == 1

    def test_chosen_values_that_contradict_what_is_chosen(self) -> None:
        replica = make(saved=[Learned(1, (b"1", b"2")), Learned(5, (b"5",))])
        for message in (
            ChosenValues(1, (b"1", b"w", b"3"), 3),
            ChosenValues(2, (b"w", b"3"), 3),
            ChosenValues(3, (b"3", b"4", b"w"), 5),
        ):
            check_dropped(replica, "c", message, Drop.VALUES_CONTRADICTING_CHOSEN_ONES)
        assert told(replica.receive("c", ChosenValues(3, (b"3", b"4", b"5"), 5), 1.0)) == [
            (3, b"3"),
            (4, b"4"),
            (5, b"5"),
        ]

    def test_one_that_cannot_be_applied(self) -> None:
        replica = Replica("b", "abc", Random(1), 0.0, admits=lambda value, chosen: value != b"rubbish")
        check_dropped(replica, "c", ChosenValues(1, (b"1", b"rubbish"), 2), Drop.VALUE_THAT_CANNOT_BE_APPLIED)
        ready = replica.receive("c", AcceptSlot(THREE, 1, b"rubbish", 0), 1.0)
        assert (ready.save, ready.send) == ((), ())
        assert replica.dropped[Drop.VALUE_THAT_CANNOT_BE_APPLIED] == 2
        assert sent(replica.receive("c", AcceptSlot(THREE, 1, b"v", 0), 1.0), AcceptedSlot)

    def test_a_slot_marked_chosen_keeps_what_is_known(self) -> None:
        replica = make(saved=[Learned(2, (b"2",)), Voted(THREE, 2, b"w", 0), Voted(THREE, 1, b"1", 0)])
        assert told(replica.receive("c", Heartbeat(THREE, 2), 1.0)) == [(1, b"1"), (2, b"2")]


class TestPromises:
    def candidate(self, admits_all: bool = True) -> Replica:
        replica = Replica("a", "abc", Random(1), 0.0, admits=lambda value, chosen: admits_all or value != b"rubbish")
        settle(replica, campaign(replica, 1.0), 1.0)
        return replica

    @pytest.mark.parametrize(
        "promise",
        [
            PromiseLog(ONE, 2),
            PromiseLog(ONE, 1, (), (Vote(2, ONE, b"v"), Vote(1, ONE, b"v"))),
            PromiseLog(ONE, 1, (), (Vote(2, ONE, b"v"), Vote(2, ONE, b"w"))),
            PromiseLog(ONE, 1, (b"1", b"2"), (Vote(2, ONE, b"v"),)),
            PromiseLog(ONE, 1, (), (Vote(1, TWO, b"v"),)),
            PromiseLog(ONE, 1, (), (Vote(2**62, ONE, b"v"),)),
            PromiseLog(ONE, 1, (), (Vote(2 * Limits().ahead_slots + 1, ONE, b"v"),)),
            PromiseLog(ONE, 1, (), (Vote(1, Ballot(0, "b"), b"rubbish"),)),
        ],
    )
    def test_one_that_cannot_be_true(self, promise: PromiseLog) -> None:
        replica = self.candidate(admits_all=False)
        check_dropped(replica, "b", promise, Drop.IMPLAUSIBLE_PROMISE)
        assert replica.status().role == "candidate"

    def test_values_in_one(self) -> None:
        replica = self.candidate(admits_all=False)
        check_dropped(replica, "b", PromiseLog(ONE, 1, (b"rubbish",)), Drop.VALUE_THAT_CANNOT_BE_APPLIED)
        replica.receive("c", ChosenValues(1, (b"1",), 1), 1.0)
        contradiction = PromiseLog(ONE, 1, (b"w",))
        check_dropped(replica, "b", contradiction, Drop.VALUES_CONTRADICTING_CHOSEN_ONES)
        assert replica.receive("b", PromiseLog(ONE, 1, (b"1",)), 1.0).leadership


def test_an_answer_asked_for_twice_deposes_no_leader() -> None:
    """It tells of a slot that is chosen above a gap, in just this ballot, and so is not open any more."""
    replica = leader()
    vote(replica, 1, "b", "c")
    replica.propose(b"2", 1.0)
    replica.propose(b"3", 1.0)
    vote(replica, 3, "b", "c")
    ready = replica.receive("b", ChosenValues(1, (b"", b"2", b"3"), 3), 1.0)
    assert told(ready) == [(2, b"2"), (3, b"3")]
    assert replica.is_leader
    replica.receive("b", ChosenValues(4, (b"not mine",), 4), 1.0)
    assert not replica.is_leader


def test_what_is_no_message_is_a_fault_of_the_caller() -> None:
    """mypy sees to it that every kind of message has a case; whatever else comes is not dropped in silence."""
    with pytest.raises(AssertionError):
        make().receive("c", cast(Message, object()), 0.0)
