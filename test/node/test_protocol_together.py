"""Three nodes on one clock: forwarding, leaders that change, commands that come twice."""

from __future__ import annotations

from typing import Any

import pytest

from test.helpers.connected_nodes import ConnectedNodes
from test.helpers.fakes import SESSION, NodesInOneReactor, error_of, outcome_of
from txpaxos.core.messages import NodeId, Slot
from txpaxos.errors import CommandFailed, NodeStopped
from txpaxos.node.command_limits import CommandLimits
from txpaxos.node.sessions import Failed, value_of
from txpaxos.wire.commands import Run
from txpaxos.wire.peer_messages import Forward, PeerMessage


@pytest.fixture
def cluster() -> NodesInOneReactor:
    cluster = ConnectedNodes()
    cluster.lead()
    return cluster


def forwards(cluster: NodesInOneReactor) -> list[tuple[NodeId, NodeId, PeerMessage]]:
    return [sent for sent in cluster.sent if isinstance(sent[2], Forward)]


def agree(cluster: NodesInOneReactor) -> list[tuple[Slot, bytes]]:
    """What every node has applied, once it is the same everywhere."""
    logs = [node.application.applied for node in cluster.nodes.values()]
    assert cluster.reactor.spend(10.0, lambda: all(log == logs[0] for log in logs))
    applied: list[tuple[Slot, bytes]] = logs[0]
    return applied


def test_the_leader_answers_its_own_callers(cluster: NodesInOneReactor) -> None:
    leader = cluster.lead()
    assert cluster.wait(leader.submit(b"x")) == "x@1"
    assert agree(cluster) == [(2, b"x")]
    assert forwards(cluster) == []


def test_a_follower_forwards_and_answers_itself(cluster: NodesInOneReactor) -> None:
    """The result is that of its own ``apply``, so a caller that has the answer reads its effect on that node."""
    leader, follower = cluster.lead(), cluster.followers()[0]
    outcome = outcome_of(follower.submit(b"x"))
    cluster.reactor.spend(10.0, lambda: outcome)
    assert outcome == ["x@1"]
    assert follower.application.applied == [(2, b"x")]
    ((sender, to, _),) = forwards(cluster)
    assert (sender, to) == (follower.name, leader.name)


def test_one_round_trip_and_no_more() -> None:
    """Nothing waits for a timer: a command at a follower is answered after forward, accept, vote and notice."""
    cluster = ConnectedNodes()
    cluster.lead()
    follower = cluster.followers()[0]
    began = cluster.reactor.seconds()
    cluster.wait(follower.submit(b"x"))
    assert cluster.reactor.seconds() - began < 0.003  # each way takes 0.0005 here


def test_many_callers_on_every_node() -> None:
    cluster = ConnectedNodes(command_limits=CommandLimits(batch_commands=10))
    cluster.lead()
    outcomes: list[list[Any]] = [
        outcome_of(node.submit(b"%d" % number)) for number in range(30) for node in cluster.nodes.values()
    ]
    assert cluster.reactor.spend(10.0, lambda: all(outcomes))
    applied = agree(cluster)
    assert sorted(command for _, command in applied) == sorted(b"%d" % number for number in range(30) for _ in "abc")
    assert applied[-1][0] < 30  # they share slots
    order = [command for _, command in applied]
    assert sorted(int(text.split("@")[1]) for (text,) in outcomes) == list(range(1, 91))
    assert all(order[int(text.split("@")[1]) - 1] == text.split("@")[0].encode() for (text,) in outcomes)


def test_a_command_that_comes_through_two_nodes_is_applied_once(cluster: NodesInOneReactor) -> None:
    run = Run(SESSION, 1, 0, (b"x",))
    outcomes: list[list[Any]] = [outcome_of(node.submit_run(run)) for node in cluster.nodes.values()]
    assert cluster.reactor.spend(10.0, lambda: all(outcomes))
    assert [[value_of(one) for one in run_outcomes] for (run_outcomes,) in outcomes] == [["x@1"]] * 3
    assert agree(cluster) == [(2, b"x")]
    late = [cluster.wait(node.submit_run(run)) for node in cluster.nodes.values()]
    assert [[value_of(one) for one in run_outcomes] for run_outcomes in late] == [["x@1"]] * 3


def test_apply_that_raises_does_so_everywhere(cluster: NodesInOneReactor, logged_errors: list[dict[str, Any]]) -> None:
    run = Run(SESSION, 1, 0, (b"!bad",))
    with pytest.raises(CommandFailed, match="ValueError: no !bad at 2"):
        cluster.wait(cluster.followers()[0].submit(b"!bad"))
    outcomes = [cluster.wait(node.submit_run(run)) for node in cluster.nodes.values()]
    assert outcomes == [[Failed(CommandFailed, "ValueError")]] * 3
    assert {one.words for (one,) in outcomes} == {"ValueError: no !bad at 3"}
    assert agree(cluster) == [(2, b"!bad"), (3, b"!bad")]
    assert (
        sorted((event["slot"], event["command"]) for event in logged_errors) == [(2, b"!bad")] * 3 + [(3, b"!bad")] * 3
    )
    assert cluster.wait(cluster.lead().submit(b"x")) == "x@3"
    logged_errors.clear()


def test_forwarded_again_when_no_answer_comes(cluster: NodesInOneReactor) -> None:
    """The datagram is lost; nothing else is wrong."""
    leader, follower = cluster.lead(), cluster.followers()[0]
    cluster.cut.add((follower.name, leader.name))
    outcome = outcome_of(follower.submit(b"x"))
    cluster.reactor.spend(0.01)
    cluster.cut.clear()
    cluster.reactor.spend(0.2)
    assert outcome == []
    cluster.reactor.spend(CommandLimits().forward_seconds)
    assert outcome == ["x@1"]
    assert cluster.lead() is leader
    assert len(forwards(cluster)) == 1  # the first one was lost before it was seen


def test_forwarded_again_when_the_leader_changes() -> None:
    cluster = ConnectedNodes(command_limits=CommandLimits(forward_seconds=60.0, forward_seconds_max=60.0))
    leader = cluster.lead()
    followers = cluster.followers()
    cluster.cut_off(leader.name)
    outcomes = [outcome_of(follower.submit(b"x")) for follower in followers]
    assert cluster.reactor.spend(5.0, lambda: all(outcomes))  # one of them leads now, the other has told it
    assert sorted(outcomes) == [["x@1"], ["x@2"]]
    assert {follower.leader for follower in followers} & {follower.name for follower in followers}


def test_a_leader_that_lost_its_office_forwards_what_it_had() -> None:
    cluster = ConnectedNodes(command_limits=CommandLimits(forward_seconds=60.0, forward_seconds_max=60.0))
    leader = cluster.lead()
    cluster.cut_off(leader.name)
    outcome = outcome_of(leader.submit(b"x"))  # proposed, but no peer hears
    cluster.reactor.spend(5.0)
    assert outcome == []
    assert leader.leader is None
    cluster.cut.clear()
    assert cluster.reactor.spend(5.0, lambda: outcome)
    assert [command for _, command in agree(cluster)].count(b"x") == 1
    assert "lost" in [name for name, *_ in leader.application.told]


def test_a_command_survives_the_leader_that_took_it(cluster: NodesInOneReactor) -> None:
    """The leader dies with a forwarded command proposed or not: it is applied, once."""
    leader, follower = cluster.lead(), cluster.followers()[0]
    outcome = outcome_of(follower.submit(b"x"))
    cluster.reactor.spend(0.0012)  # the leader has it by now
    cluster.kill(leader.name)
    assert cluster.reactor.spend(10.0, lambda: outcome)
    assert [command for _, command in agree(cluster)] == [b"x"]


def test_hooks_follow_the_leader(cluster: NodesInOneReactor) -> None:
    leader = cluster.lead()
    assert leader.application.told == [("acquired",), ("changed", None, leader.name)]
    for follower in cluster.followers():
        assert follower.application.told == [("changed", None, leader.name)]
    cluster.kill(leader.name)
    follower = next(iter(cluster.nodes.values()))
    cluster.reactor.spend(5.0, lambda: follower.leader not in (None, leader.name))
    new = cluster.lead()
    cluster.reactor.idle()
    assert ("acquired",) in new.application.told
    assert new.application.told[-1] == ("changed", None, new.name) or new.application.told[-1] == (
        "changed",
        leader.name,
        new.name,
    )


def test_a_node_that_comes_back_applies_the_whole_log(cluster: NodesInOneReactor) -> None:
    follower = cluster.followers()[0]
    for number in range(20):
        cluster.wait(cluster.lead().submit(b"%d" % number))
    again = cluster.restart(follower.name)
    cluster.lead()
    cluster.wait(cluster.lead().submit(b"20"))
    assert [command for _, command in agree(cluster)] == [b"%d" % number for number in range(21)]
    assert again.application.applied == agree(cluster)


def test_a_node_that_was_away_catches_up(cluster: NodesInOneReactor) -> None:
    away = cluster.followers()[0]
    cluster.cut_off(away.name)
    for number in range(20):
        cluster.wait(cluster.lead_of_the_rest(away).submit(b"%d" % number))
    assert away.application.applied == []
    cluster.cut.clear()
    assert [command for _, command in agree(cluster)] == [b"%d" % number for number in range(20)]


def test_no_quorum_no_answer_and_then_one(cluster: NodesInOneReactor) -> None:
    leader = cluster.lead()
    others = cluster.followers()
    for other in others:
        cluster.cut_off(other.name)
    outcome = outcome_of(leader.submit(b"x"))
    cluster.reactor.spend(30.0)
    assert outcome == []
    assert cluster.nodes[leader.name].status().waiting == 1
    cluster.cut.clear()
    assert cluster.reactor.spend(10.0, lambda: outcome)
    assert outcome == ["x@1"]


def test_stop_says_that_the_outcome_is_unknown(cluster: NodesInOneReactor) -> None:
    follower = cluster.followers()[0]
    waiting = follower.submit(b"x")
    cluster.reactor.spend(0.0012)
    cluster.kill(follower.name)
    assert isinstance(error_of(waiting), NodeStopped)
    assert cluster.reactor.spend(10.0, lambda: all(node.application.applied for node in cluster.nodes.values()))


# ------------------------------------------------------------------- questions


def test_nodes_that_ask_at_once_get_one_answer(cluster: NodesInOneReactor) -> None:
    asked = [outcome_of(node.ask("king", node.name.encode())) for node in cluster.nodes.values()]
    assert cluster.reactor.spend(30.0, lambda: all(asked))
    (answers,) = {answer for (answer,) in asked}
    assert answers in (b"a", b"b", b"c")
    cluster.reactor.spend(5.0)
    for node in cluster.nodes.values():
        assert [event for event in node.application.told if event[0] == "chosen"] == [("chosen", "king", answers)]
    assert cluster.wait(cluster.lead().ask("king", b"late")) == answers


def test_a_question_waits_for_a_quorum(cluster: NodesInOneReactor) -> None:
    for node in "abc":
        cluster.cut_off(node)
    asked = outcome_of(cluster.nodes["a"].ask("king", b"Arthur"))
    cluster.reactor.spend(30.0)
    assert asked == []
    cluster.cut.clear()
    assert cluster.reactor.spend(10.0, lambda: asked)
    assert asked == [b"Arthur"]
    assert cluster.wait(cluster.nodes["b"].ask("king")) == b"Arthur"
