"""Three nodes on one clock: forwarding, leaders that change, commands that come twice."""

from __future__ import annotations

from typing import Any

import pytest

from test.helpers.fakes import SESSION, Together, error_of, outcome_of
from test.helpers.joined import Joined
from txpaxos.core.messages import NodeId, Slot
from txpaxos.errors import CommandFailed, NodeStopped
from txpaxos.node.command_limits import CommandLimits
from txpaxos.node.sessions import Failed, value_of
from txpaxos.wire.commands import Run
from txpaxos.wire.peer_messages import Forward, PeerMessage


@pytest.fixture
def together() -> Together:
    together = Joined()
    together.lead()
    return together


def forwards(together: Together) -> list[tuple[NodeId, NodeId, PeerMessage]]:
    return [sent for sent in together.sent if isinstance(sent[2], Forward)]


def agree(together: Together) -> list[tuple[Slot, bytes]]:
    """What every node has applied, once it is the same everywhere."""
    logs = [node.application.applied for node in together.nodes.values()]
    assert together.reactor.spend(10.0, lambda: all(log == logs[0] for log in logs))
    applied: list[tuple[Slot, bytes]] = logs[0]
    return applied


def test_the_leader_answers_its_own_callers(together: Together) -> None:
    leader = together.lead()
    assert together.wait(leader.submit(b"x")) == "x@1"
    assert agree(together) == [(2, b"x")]
    assert forwards(together) == []


def test_a_follower_forwards_and_answers_itself(together: Together) -> None:
    """The result is that of its own ``apply``, so whoever has the answer reads it on that node, too."""
    leader, follower = together.lead(), together.followers()[0]
    outcome = outcome_of(follower.submit(b"x"))
    together.reactor.spend(10.0, lambda: outcome)
    assert outcome == ["x@1"]
    assert follower.application.applied == [(2, b"x")]
    ((sender, to, _),) = forwards(together)
    assert (sender, to) == (follower.name, leader.name)


def test_one_round_trip_and_no_more() -> None:
    """Nothing waits for a timer: a command at a follower is answered after forward, accept, vote and notice."""
    together = Joined()
    together.lead()
    follower = together.followers()[0]
    began = together.reactor.seconds()
    together.wait(follower.submit(b"x"))
    assert together.reactor.seconds() - began < 0.003  # each way takes 0.0005 here


def test_many_callers_on_every_node() -> None:
    together = Joined(command_limits=CommandLimits(batch_commands=10))
    together.lead()
    outcomes: list[list[Any]] = [
        outcome_of(node.submit(b"%d" % number)) for number in range(30) for node in together.nodes.values()
    ]
    assert together.reactor.spend(10.0, lambda: all(outcomes))
    applied = agree(together)
    assert sorted(command for _, command in applied) == sorted(b"%d" % number for number in range(30) for _ in "abc")
    assert applied[-1][0] < 30  # they share slots
    order = [command for _, command in applied]
    assert sorted(int(text.split("@")[1]) for (text,) in outcomes) == list(range(1, 91))
    assert all(order[int(text.split("@")[1]) - 1] == text.split("@")[0].encode() for (text,) in outcomes)


def test_a_command_that_comes_through_two_nodes_is_applied_once(together: Together) -> None:
    run = Run(SESSION, 1, 0, (b"x",))
    outcomes: list[list[Any]] = [outcome_of(node.submit_run(run)) for node in together.nodes.values()]
    assert together.reactor.spend(10.0, lambda: all(outcomes))
    assert [[value_of(one) for one in run_outcomes] for (run_outcomes,) in outcomes] == [["x@1"]] * 3
    assert agree(together) == [(2, b"x")]
    late = [together.wait(node.submit_run(run)) for node in together.nodes.values()]
    assert [[value_of(one) for one in run_outcomes] for run_outcomes in late] == [["x@1"]] * 3


def test_apply_that_raises_does_so_everywhere(together: Together, logged_errors: list[dict[str, Any]]) -> None:
    run = Run(SESSION, 1, 0, (b"!bad",))
    with pytest.raises(CommandFailed, match="ValueError: no !bad at 2"):
        together.wait(together.followers()[0].submit(b"!bad"))
    outcomes = [together.wait(node.submit_run(run)) for node in together.nodes.values()]
    assert outcomes == [[Failed(CommandFailed, "ValueError")]] * 3
    assert {one.words for (one,) in outcomes} == {"ValueError: no !bad at 3"}
    assert agree(together) == [(2, b"!bad"), (3, b"!bad")]
    assert (
        sorted((event["slot"], event["command"]) for event in logged_errors) == [(2, b"!bad")] * 3 + [(3, b"!bad")] * 3
    )
    assert together.wait(together.lead().submit(b"x")) == "x@3"
    logged_errors.clear()


def test_forwarded_again_when_no_answer_comes(together: Together) -> None:
    """The datagram is lost; nothing else is wrong."""
    leader, follower = together.lead(), together.followers()[0]
    together.cut.add((follower.name, leader.name))
    outcome = outcome_of(follower.submit(b"x"))
    together.reactor.spend(0.01)
    together.cut.clear()
    together.reactor.spend(0.2)
    assert outcome == []
    together.reactor.spend(CommandLimits().forward_seconds)
    assert outcome == ["x@1"]
    assert together.lead() is leader
    assert len(forwards(together)) == 1  # the first one was lost before it was seen


def test_forwarded_again_when_the_leader_changes() -> None:
    together = Joined(command_limits=CommandLimits(forward_seconds=60.0, forward_seconds_max=60.0))
    leader = together.lead()
    followers = together.followers()
    together.cut_off(leader.name)
    outcomes = [outcome_of(follower.submit(b"x")) for follower in followers]
    assert together.reactor.spend(5.0, lambda: all(outcomes))  # one of them leads now, the other has told it
    assert sorted(outcomes) == [["x@1"], ["x@2"]]
    assert {follower.leader for follower in followers} & {follower.name for follower in followers}


def test_a_leader_that_lost_its_office_forwards_what_it_had() -> None:
    together = Joined(command_limits=CommandLimits(forward_seconds=60.0, forward_seconds_max=60.0))
    leader = together.lead()
    together.cut_off(leader.name)
    outcome = outcome_of(leader.submit(b"x"))  # proposed, but nobody hears
    together.reactor.spend(5.0)
    assert outcome == []
    assert leader.leader is None
    together.cut.clear()
    assert together.reactor.spend(5.0, lambda: outcome)
    assert [command for _, command in agree(together)].count(b"x") == 1
    assert "lost" in [name for name, *_ in leader.application.told]


def test_a_command_survives_the_leader_that_took_it(together: Together) -> None:
    """The leader dies with a forwarded command proposed or not: it is applied, once."""
    leader, follower = together.lead(), together.followers()[0]
    outcome = outcome_of(follower.submit(b"x"))
    together.reactor.spend(0.0012)  # the leader has it by now
    together.kill(leader.name)
    assert together.reactor.spend(10.0, lambda: outcome)
    assert [command for _, command in agree(together)] == [b"x"]


def test_hooks_follow_the_leader(together: Together) -> None:
    leader = together.lead()
    assert leader.application.told == [("acquired",), ("changed", None, leader.name)]
    for follower in together.followers():
        assert follower.application.told == [("changed", None, leader.name)]
    together.kill(leader.name)
    follower = next(iter(together.nodes.values()))
    together.reactor.spend(5.0, lambda: follower.leader not in (None, leader.name))
    new = together.lead()
    together.reactor.idle()
    assert ("acquired",) in new.application.told
    assert new.application.told[-1] == ("changed", None, new.name) or new.application.told[-1] == (
        "changed",
        leader.name,
        new.name,
    )


def test_a_node_that_comes_back_applies_the_whole_log(together: Together) -> None:
    follower = together.followers()[0]
    for number in range(20):
        together.wait(together.lead().submit(b"%d" % number))
    again = together.restart(follower.name)
    together.lead()
    together.wait(together.lead().submit(b"20"))
    assert [command for _, command in agree(together)] == [b"%d" % number for number in range(21)]
    assert again.application.applied == agree(together)


def test_a_node_that_was_away_catches_up(together: Together) -> None:
    away = together.followers()[0]
    together.cut_off(away.name)
    for number in range(20):
        together.wait(together.lead_of_the_rest(away).submit(b"%d" % number))
    assert away.application.applied == []
    together.cut.clear()
    assert [command for _, command in agree(together)] == [b"%d" % number for number in range(20)]


def test_no_quorum_no_answer_and_then_one(together: Together) -> None:
    leader = together.lead()
    others = together.followers()
    for other in others:
        together.cut_off(other.name)
    outcome = outcome_of(leader.submit(b"x"))
    together.reactor.spend(30.0)
    assert outcome == []
    assert together.nodes[leader.name].status().waiting == 1
    together.cut.clear()
    assert together.reactor.spend(10.0, lambda: outcome)
    assert outcome == ["x@1"]


def test_stop_says_that_the_outcome_is_unknown(together: Together) -> None:
    follower = together.followers()[0]
    waiting = follower.submit(b"x")
    together.reactor.spend(0.0012)
    together.kill(follower.name)
    assert isinstance(error_of(waiting), NodeStopped)
    assert together.reactor.spend(10.0, lambda: all(node.application.applied for node in together.nodes.values()))


# ------------------------------------------------------------------- questions


def test_nodes_that_ask_at_once_get_one_answer(together: Together) -> None:
    asked = [outcome_of(node.ask("king", node.name.encode())) for node in together.nodes.values()]
    assert together.reactor.spend(30.0, lambda: all(asked))
    (answers,) = {answer for (answer,) in asked}
    assert answers in (b"a", b"b", b"c")
    together.reactor.spend(5.0)
    for node in together.nodes.values():
        assert [event for event in node.application.told if event[0] == "chosen"] == [("chosen", "king", answers)]
    assert together.wait(together.lead().ask("king", b"late")) == answers


def test_a_question_waits_for_a_quorum(together: Together) -> None:
    for node in "abc":
        together.cut_off(node)
    asked = outcome_of(together.nodes["a"].ask("king", b"Arthur"))
    together.reactor.spend(30.0)
    assert asked == []
    together.cut.clear()
    assert together.reactor.spend(10.0, lambda: asked)
    assert asked == [b"Arthur"]
    assert together.wait(together.nodes["b"].ask("king")) == b"Arthur"
