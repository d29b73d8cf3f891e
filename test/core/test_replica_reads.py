"""Read points: who asks, when the leader answers, and when it must not."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from test.core.test_replica import ONE, THREE, TWO, leader, make, vote
from test.helpers.core_cluster import ManualNetwork
from test.helpers.core_node import elect, sent, settle
from txpaxos.core.config import Timing
from txpaxos.core.drops import Drop
from txpaxos.core.membership import Membership
from txpaxos.core.messages import (
    LOWEST,
    AcceptSlot,
    Heartbeat,
    HeartbeatAck,
    NodeId,
    PromiseLog,
    ReadIndexReply,
    ReadIndexRequest,
)
from txpaxos.core.read_index import ReadIndexClient, ReadIndexServer
from txpaxos.core.ready import Envelope, ReadIndexConfirmed, Ready
from txpaxos.core.replica import Replica


def leading() -> Replica:
    """Node "a", which leads; its first slot is chosen."""
    replica = leader()
    vote(replica, 1, "a", "b")
    return replica


def ask(replica: Replica, sender: NodeId, number: int, now: float = 1.0) -> Ready:
    return replica.receive(sender, ReadIndexRequest(number), now)


def beats(ready: Ready) -> list[int]:
    """The sequences of the heartbeats that ask for an answer."""
    return [beat.sequence for beat in sent(ready, Heartbeat) if beat.sequence]


def ack(replica: Replica, sender: NodeId, sequence: int, now: float = 1.0) -> Ready:
    return replica.receive(sender, HeartbeatAck(replica.election.own_ballot, 1, sequence), now)


def answers(ready: Ready) -> list[tuple[NodeId, ReadIndexReply]]:
    return [
        (envelope.to[0], envelope.message) for envelope in ready.send if isinstance(envelope.message, ReadIndexReply)
    ]


class TestLeader:
    def test_answers_once_a_quorum_has_answered_a_heartbeat_sent_after_the_question(self) -> None:
        replica = leading()
        ready = ask(replica, "b", 7)
        assert ready.send == (Envelope(("b", "c"), Heartbeat(ONE, 1, 1)),)
        assert ready.save == ()
        ready = ack(replica, "c", 1)
        assert ready.send == (Envelope(("b",), ReadIndexReply(7, 1)),)
        assert answers(ack(replica, "b", 1)) == []

    def test_an_answer_to_an_earlier_heartbeat_says_nothing(self) -> None:
        """The node that sent it may have promised another ballot since."""
        replica = leading()
        assert beats(replica.tick(1.2)) == [1]
        assert beats(ask(replica, "b", 7, 1.2)) == [2]
        for sender in ("b", "c", "b"):
            assert ack(replica, sender, 1, 1.2).send == ()
        assert answers(ack(replica, "c", 2, 1.2)) == [("b", ReadIndexReply(7, 1))]

    def test_a_quorum_is_a_majority(self) -> None:
        replica = leader(PromiseLog(LOWEST, 1), PromiseLog(LOWEST, 1), members="abcde")
        vote(replica, 1, "a", "b", "c")
        ask(replica, "d", 7)
        assert ack(replica, "b", 1).send == ()
        assert ack(replica, "b", 1).send == (), "twice the same is one"
        assert answers(ack(replica, "e", 1)) == [("d", ReadIndexReply(7, 1))]

    def test_questions_that_come_together_share_a_round(self) -> None:
        replica = leading()
        assert beats(ask(replica, "a", 1)) == [1]
        assert [beats(ask(replica, node, 5)) for node in "bc"] == [[], []], "one round at a time"
        ready = ack(replica, "b", 1)
        assert answers(ready) == [("a", ReadIndexReply(1, 1))]
        assert beats(ready) == [2]
        ready = ack(replica, "b", 2)
        assert sorted(answers(ready)) == [("b", ReadIndexReply(5, 1)), ("c", ReadIndexReply(5, 1))]
        assert beats(ready) == []

    def test_the_next_heartbeat_makes_up_for_a_lost_round(self) -> None:
        replica = leading()
        ask(replica, "b", 7)
        assert beats(replica.tick(1.2)) == [2]
        assert answers(ack(replica, "c", 2, 1.2)) == [("b", ReadIndexReply(7, 1))]
        assert beats(ask(replica, "b", 8, 1.2)) == [3], "and nothing is in the way of the next"

    def test_of_one_asker_the_newest_question_counts(self) -> None:
        """Its number is from an earlier start of the asker, or its earlier answer was lost."""
        replica = leading()
        ask(replica, "b", 7)
        ask(replica, "b", 8)
        assert answers(ack(replica, "c", 1)) == []
        assert answers(ack(replica, "c", 2)) == [("b", ReadIndexReply(8, 1))]

    def test_a_question_asked_again_is_not_put_off(self) -> None:
        """It was doubled, or the answer took long: on a slow line every answer would come too late."""
        replica = leading()
        ask(replica, "b", 7)
        assert beats(ask(replica, "b", 7)) == []
        ready = ack(replica, "c", 1)
        assert answers(ready) == [("b", ReadIndexReply(7, 1))]
        assert beats(ready) == []

    def test_what_is_chosen_after_the_question_is_not_waited_for(self) -> None:
        replica = leading()
        ask(replica, "b", 7)
        replica.propose(b"v", 1.0)
        vote(replica, 2, "a", "b")
        assert answers(ack(replica, "c", 1)) == [("b", ReadIndexReply(7, 1))]
        ask(replica, "b", 8)
        assert answers(ack(replica, "c", 2)) == [("b", ReadIndexReply(8, 2))]

    def test_no_answer_before_an_entry_of_its_own_is_chosen(self) -> None:
        """What others had chosen and acknowledged before, it may not all know to be chosen."""
        replica = leader()
        assert ask(replica, "b", 7).send == ()
        assert replica.dropped[Drop.READ_INDEX_REQUEST_TOO_EARLY] == 1
        vote(replica, 1, "a", "b")
        assert beats(ask(replica, "b", 7)) == [1]

    def test_a_node_that_does_not_lead_says_nothing(self) -> None:
        replica = make()
        replica.receive("a", Heartbeat(ONE), 0.0)
        assert ask(replica, "c", 7).send == ()
        assert replica.dropped[Drop.READ_INDEX_REQUEST_AT_A_FOLLOWER] == 1

    def test_another_ballot_begins_anew(self) -> None:
        """Who waited asks again; what was answered in the old ballot says nothing in the new one."""
        replica = leading()
        ask(replica, "b", 7)
        replica.receive("b", Heartbeat(TWO), 1.1)
        assert answers(replica.receive("b", HeartbeatAck(ONE, 1, 1), 1.1)) == []
        elect(replica, 3.0)
        vote(replica, 2, "a", "b")
        ballot = replica.election.own_ballot
        assert answers(replica.receive("b", HeartbeatAck(ballot, 1, replica.election.sequence), 3.0)) == []
        assert beats(ask(replica, "b", 8, 3.0)) == [replica.election.sequence]

    def test_alone(self) -> None:
        replica = make("a", "a")
        settle(replica, replica.tick(1.0), 1.0)
        number, ready = replica.request_read_index(1.0)
        readys = settle(replica, ready, 1.0)
        assert [answer for ready in readys for answer in ready.answers] == [ReadIndexConfirmed(number, 1)]


def test_an_old_leader_that_was_stopped_answers_no_read() -> None:
    """No clock is trusted: it believes to lead, and finds out before it answers. Here every message that it sent before
    it stopped still comes, also the answers to it."""
    network = ManualNetwork(3)
    network.lead("a", "a", "b")
    network.choose("a", "a", "b")
    network.tick("a")  # a heartbeat, just before it stops
    network.deliver(Heartbeat, "a", "b", "c")
    network.lead("b", "b", "c")
    network.choose("b", "b", "c")
    network.propose("b", b"acknowledged")
    network.choose("b", "b", "c")
    assert network.chosen["b"][-1] == b"acknowledged"
    old = network.nodes["a"]
    assert old.is_leader
    number, ready = old.request_read_index(network.now)
    network.take("a", ready)
    network.deliver(ReadIndexRequest, "a", "a")
    network.deliver(HeartbeatAck, "b", "a")
    network.deliver(HeartbeatAck, "c", "a")
    assert old.is_leader
    network.deliver(Heartbeat, "a", "b", "c")  # the round for the question
    for sender, to, message in network.post[:]:
        if to == "a" and (sender, to, message) in network.post:
            network.deliver(type(message), sender, to)
    assert not any(isinstance(message, ReadIndexReply) for _, _, message in network.post)
    assert not old.is_leader
    network.take("a", old.tick(network.now))  # now it knows better whom to ask
    network.deliver(ReadIndexRequest, "a", "b")
    network.deliver(Heartbeat, "b", "c")
    network.deliver(HeartbeatAck, "c", "b")
    (point,) = [message for _, _, message in network.post if isinstance(message, ReadIndexReply)]
    assert point == ReadIndexReply(number, len(network.chosen["b"]))


class TestAsker:
    def test_asks_its_leader_and_hands_out_the_answer(self) -> None:
        replica = make()
        replica.receive("a", Heartbeat(ONE), 0.0)
        number, ready = replica.request_read_index(0.0)
        assert ready.send == (Envelope(("a",), ReadIndexRequest(number)),)
        ready = replica.receive("a", ReadIndexReply(number, 12), 0.01)
        assert ready.answers == (ReadIndexConfirmed(number, 12),)
        assert replica.receive("a", ReadIndexReply(number, 12), 0.01).answers == ()
        assert replica.dropped[Drop.READ_INDEX_REPLY_NOT_AWAITED] == 1
        assert sent(replica.tick(0.2), ReadIndexRequest) == []

    def test_an_answer_to_another_question_is_none(self) -> None:
        replica = make()
        replica.receive("a", Heartbeat(ONE), 0.0)
        number, _ = replica.request_read_index(0.0)
        assert replica.receive("a", ReadIndexReply(number - 1, 12), 0.01).answers == ()
        assert replica.receive("a", ReadIndexReply(number, 13), 0.01).answers == (ReadIndexConfirmed(number, 13),)
        again, _ = replica.request_read_index(0.02)
        assert again == number + 1
        assert replica.receive("a", ReadIndexReply(number, 12), 0.03).answers == ()

    def test_asks_again_with_back_off_at_least_once_in_a_liveness_window(self) -> None:
        """The leader could not be reached for long. When it can be again, all reads of the node have been waiting for
        that."""
        replica = make()
        replica.receive("a", Heartbeat(ONE), 0.0)
        number, ready = replica.request_read_index(0.0)
        times, now = [0.0], 0.0
        while now < 10.0:
            assert ready.wake_at is not None
            now = max(now, ready.wake_at)
            ready = replica.tick(now)
            if ReadIndexRequest(number) in sent(ready, ReadIndexRequest):
                times.append(now)
            ready = replica.receive("a", Heartbeat(ONE), now)
        assert 0.03 < times[1] < 0.07
        gaps = [after - before for before, after in pairwise(times)]
        assert min(gaps[2:]) >= 0.15
        assert max(gaps) <= 0.25

    def test_one_question_at_a_time(self) -> None:
        replica = make()
        replica.request_read_index(0.0)
        with pytest.raises(AssertionError):
            replica.request_read_index(0.0)

    @pytest.mark.parametrize("origin", [0.0, -4096.0, 2.0**20])
    def test_asks_the_leader_as_soon_as_it_is_known(self, origin: float) -> None:
        replica = Replica("b", tuple("abc"), Random(1), origin)
        number, ready = replica.request_read_index(origin)
        assert ready.send == ()
        ready = replica.receive("a", Heartbeat(ONE), origin)
        assert ready.wake_at is not None
        assert ready.wake_at <= origin
        ready = replica.tick(origin)
        assert ready.send == (Envelope(("a",), ReadIndexRequest(number)),)
        assert ready.wake_at is not None
        assert ready.wake_at > origin
        ready = replica.receive("c", Heartbeat(THREE), origin)
        assert replica.tick(origin).send == (Envelope(("c",), ReadIndexRequest(number)),)

    def test_asks_in_vain_while_no_node_leads(self) -> None:
        replica = make()
        replica.request_read_index(0.0)
        for turn in range(1, 20):
            assert sent(replica.tick(turn * 0.01), ReadIndexRequest) == []

    def test_the_leader_asks_itself(self) -> None:
        replica = leading()
        number, ready = replica.request_read_index(1.0)
        assert ready.send == (Envelope(("a",), ReadIndexRequest(number)),)
        assert beats(settle(replica, ready, 1.0)[-1]) == [1]
        readys = settle(replica, ack(replica, "c", 1), 1.0)
        assert readys[-1].answers == (ReadIndexConfirmed(number, 1),)

    def test_numbers_are_unlike_those_of_an_earlier_start(self) -> None:
        """An answer to one of those may still be on its way."""
        numbers = {ReadIndexClient(Timing(), Random(seed)).begin(0.0) for seed in range(100)}
        assert len(numbers) == 100
        assert all(0 < number < 2**63 for number in numbers)
        assert sum(number > 2**32 for number in numbers) > 90


def test_a_reader_that_waits_for_a_slot_gets_it_though_more_is_open() -> None:
    """A notice, which asks for no answer, does not count as the round."""
    replica = leading()
    ask(replica, "b", 7)
    replica.propose(b"v", 1.0)
    ready = vote(replica, 2, "a", "b")
    assert sent(ready, Heartbeat) == [Heartbeat(ONE, 2)]
    assert replica.receive("b", HeartbeatAck(ONE, 2, 0), 1.0).send == ()
    assert sent(ready, AcceptSlot) == []


def test_read_index_of_two_nodes_alone() -> None:
    server = ReadIndexServer(Membership.fixed("a", "ab"))
    assert server.request("a", 1, 5, 0)
    settled, again = server.observe_answer("b", 1, 1)
    assert [(one.client, one.number, one.read_index) for one in settled] == [("a", 1, 5)]
    assert not again
    assert server.observe_answer("b", 9, 9) == ([], False)
