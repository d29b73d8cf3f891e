"""A node hands over the lead, for a caller and before it stops. Commands go on meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from test.helpers.connected_nodes import ConnectedNodes
from test.helpers.fakes import error_of, outcome_of
from txpaxos.core.messages import AcceptSlot, Heartbeat, HeartbeatAck, PrepareLog, TakeOver
from txpaxos.errors import NodeStopped, NotHandedOver
from txpaxos.node.hand_over import ANSWER_SECONDS, HAND_OVER_SECONDS


@pytest.fixture
def cluster() -> ConnectedNodes:
    cluster = ConnectedNodes()
    leader = cluster.lead()
    cluster.wait(leader.submit(b"first"))
    cluster.reactor.spend(0.5)
    return cluster


def told(cluster: ConnectedNodes) -> list[str]:
    """The nodes that were told to take over, one after the other."""
    return [to for _, to, message in cluster.sent if isinstance(message, TakeOver)]


def refusal(cluster: ConnectedNodes, node: Any, to: str | None = None) -> str:
    """Why ``node`` does not hand over."""
    error = error_of(node.hand_over(to))
    assert isinstance(error, NotHandedOver)
    return str(error)


class TestHandOver:
    def test_is_done_when_the_target_leads(self, cluster: ConnectedNodes) -> None:
        leader, target = cluster.lead(), cluster.followers()[0]
        began = cluster.reactor.seconds()
        assert cluster.wait(leader.hand_over(target.name)) == target.name
        assert cluster.reactor.seconds() - began < 0.02
        assert target.leader == target.name == leader.leader
        assert cluster.wait(leader.submit(b"x")).startswith("x@")
        assert told(cluster) == [target.name]

    def test_goes_to_the_first_by_name_unless_told_otherwise(self, cluster: ConnectedNodes) -> None:
        leader = cluster.lead()
        first = min(node.name for node in cluster.followers())
        outcome = outcome_of(leader.hand_over())
        assert cluster.reactor.spend(1.0, lambda: outcome)
        assert outcome == [first]

    def test_loses_no_command(self, cluster: ConnectedNodes) -> None:
        """Wherever they were submitted, and however often the lead goes round."""
        outcomes: list[list[Any]] = []
        for turn in range(6):
            leader = cluster.lead()
            for node in cluster.nodes.values():
                outcomes += [outcome_of(node.submit(b"%d" % (100 * turn + number))) for number in range(20)]
            handing_over = outcome_of(leader.hand_over())
            cluster.reactor.spend(1.0, handing_over.__len__)
            outcomes += [outcome_of(node.submit(b"+")) for node in cluster.nodes.values()]
        assert cluster.reactor.spend(5.0, lambda: all(outcomes))
        assert all("@" in text for (text,) in outcomes), outcomes
        logs = [node.application.applied for node in cluster.nodes.values()]
        assert cluster.reactor.spend(1.0, lambda: logs[0] == logs[1] == logs[2])
        assert len(logs[0]) == 1 + len(outcomes), "and each was applied once"

    def test_two_callers_may_want_the_same(self, cluster: ConnectedNodes) -> None:
        leader, (target, other) = cluster.lead(), cluster.followers()
        both = [outcome_of(leader.hand_over(target.name)), outcome_of(leader.hand_over())]
        assert refusal(cluster, leader, other.name) == f"{leader.name} hands over to {target.name} already"
        assert cluster.reactor.spend(1.0, lambda: all(both))
        assert both == [[target.name]] * 2

    def test_a_caller_may_lose_interest(self, cluster: ConnectedNodes) -> None:
        leader, target = cluster.lead(), cluster.followers()[0]
        waiting = leader.hand_over(target.name)
        waiting.addErrback(lambda _: None)
        waiting.cancel()
        assert cluster.reactor.spend(1.0, lambda: leader.leader == target.name)

    def test_to_the_leader_is_done_already(self, cluster: ConnectedNodes) -> None:
        leader = cluster.lead()
        for node in cluster.nodes.values():
            assert cluster.wait(node.hand_over(leader.name)) == leader.name
        assert told(cluster) == []

    def test_is_refused_with_a_reason(self, cluster: ConnectedNodes) -> None:
        leader, (follower, other) = cluster.lead(), cluster.followers()
        assert refusal(cluster, follower, other.name) == f"{follower.name} does not lead, but {leader.name}"
        assert refusal(cluster, follower) == f"{follower.name} does not lead, but {leader.name}"
        assert refusal(cluster, leader, "x\n") == "x\\n is no node of this cluster"
        with pytest.raises(TypeError, match="a node's id must be a str, not int"):
            leader.hand_over(3)
        cluster.kill(other.name)
        cluster.reactor.spend(0.4)
        assert refusal(cluster, leader, other.name) == f"{other.name} was not heard lately"
        leader.stop()
        assert refusal(cluster, leader) == f"node {leader.name} has stopped"

    def test_fails_when_the_target_does_not_answer(self, cluster: ConnectedNodes) -> None:
        leader, target = cluster.lead(), cluster.followers()[0]
        cluster.cut_off(target.name)
        outcome = outcome_of(leader.hand_over(target.name))
        command = outcome_of(leader.submit(b"x"))
        cluster.reactor.spend(0.3)
        assert not outcome
        assert not command, "it waits"
        assert cluster.reactor.spend(0.3, lambda: outcome)
        assert outcome[0].check(NotHandedOver)
        assert cluster.reactor.spend(0.1, lambda: command), "and goes on"
        assert leader.leader == leader.name

    def test_fails_when_the_node_stops(self, cluster: ConnectedNodes) -> None:
        leader, target = cluster.lead(), cluster.followers()[0]
        cluster.cut_off(target.name)
        waiting = leader.hand_over(target.name)
        leader.stop()
        assert str(error_of(waiting)) == f"node {leader.name} has stopped"

    def test_a_target_without_a_stream_of_its_own_opens_one(self, cluster: ConnectedNodes) -> None:
        """What comes as a datagram may be forged. So it asks over a stream of its own, and is told again there."""
        leader, target = cluster.lead(), cluster.followers()[0]
        target._peers._streams._own.pop(leader.name, None)
        leader._peers._streams._theirs.pop(target.name, None)
        began = cluster.reactor.seconds()
        assert cluster.wait(leader.hand_over(target.name)) == target.name
        assert cluster.reactor.seconds() - began < 0.05
        counted = {reason.metric_name: count for reason, count in target.counters.items()}
        assert counted["possibly_forged:TakeOver"] == 1


class TestLeave:
    def leave(self, cluster: ConnectedNodes, node: Any) -> float:
        """How many seconds it takes until ``node`` may stop."""
        began, done = cluster.reactor.seconds(), outcome_of(node.leave())
        assert cluster.reactor.spend(5.0, lambda: done)
        return cluster.reactor.seconds() - began

    def test_a_leader_hands_over_and_answers_its_callers(self, cluster: ConnectedNodes) -> None:
        leader = cluster.lead()
        outcomes: list[list[Any]] = [outcome_of(leader.submit(b"%d" % number)) for number in range(100)]
        assert self.leave(cluster, leader) < 0.05
        assert all("@" in text for (text,) in outcomes)
        assert leader.leader != leader.name
        assert told(cluster) == [leader.leader]

    def test_a_follower_only_says_so(self, cluster: ConnectedNodes) -> None:
        leader, follower = cluster.lead(), cluster.followers()[0]
        assert self.leave(cluster, follower) == 0.0
        cluster.reactor.spend(0.01)
        assert follower.is_leaving
        assert refusal(cluster, leader, follower.name) == f"{follower.name} is about to stop"
        assert [one.leaving for _, to, one in cluster.sent if isinstance(one, HeartbeatAck)][-1]

    def test_no_node_may_be_left_to_hand_over_to(self, cluster: ConnectedNodes) -> None:
        leader = cluster.lead()
        for node in cluster.followers():
            node.leave()
        cluster.reactor.spend(0.01)
        assert self.leave(cluster, leader) == 0.0
        assert told(cluster) == []

    def test_all_at_once_end_in_time(self, cluster: ConnectedNodes) -> None:
        """The leader may ask one that has gone already."""
        leader = cluster.lead()
        departures = [outcome_of(node.leave()) for node in [leader, *cluster.followers()]]
        for node in cluster.followers():
            cluster.kill(node.name)
        assert cluster.reactor.spend(HAND_OVER_SECONDS + 0.01, lambda: all(departures))

    def test_the_next_is_asked_when_one_fails(self, cluster: ConnectedNodes) -> None:
        leader = cluster.lead()
        first, second = sorted(node.name for node in cluster.followers())
        cluster.cut_off(first)
        assert self.leave(cluster, leader) < HAND_OVER_SECONDS
        assert leader.leader == second
        assert told(cluster)[-1] == second

    def test_every_step_has_an_end(self, cluster: ConnectedNodes) -> None:
        """Nothing gets anywhere any more."""
        leader = cluster.lead()
        for node in list(cluster.nodes):
            cluster.cut_off(node)
        command = leader.submit(b"x")
        again = outcome_of(leader.leave())
        assert self.leave(cluster, leader) <= HAND_OVER_SECONDS + ANSWER_SECONDS + 0.1
        assert again, "both callers were told"
        leader.stop()
        assert isinstance(error_of(command), NodeStopped)
        assert outcome_of(leader.leave()) == [None], "it has stopped"

    def test_a_node_that_leaves_does_not_take_over(self, cluster: ConnectedNodes) -> None:
        """Its word and the leader's cross on their way."""
        leader, target = cluster.lead(), cluster.followers()[0]
        outcome = outcome_of(leader.hand_over(target.name))
        target.leave()
        assert cluster.reactor.spend(0.05, lambda: outcome)
        assert str(outcome[0].value) == f"{target.name} is about to stop"
        assert leader.leader == leader.name


def test_a_program_s_own_stop_hands_over_first(cluster: ConnectedNodes) -> None:
    leader = cluster.lead()
    stopped = outcome_of(leader.application.stop())
    assert cluster.reactor.spend(1.0, lambda: stopped)
    cluster.nodes.pop(leader.name)
    sent = len(cluster.sent)
    assert cluster.reactor.spend(0.01, lambda: len({node.leader for node in cluster.nodes.values()} - {None}) == 1)
    assert cluster.wait(cluster.lead().submit(b"x")).startswith("x@")
    kinds = {type(message) for _, _, message in cluster.sent[sent:]}
    assert kinds >= {AcceptSlot}
    assert PrepareLog not in kinds
    assert Heartbeat in {type(message) for _, _, message in cluster.sent}
