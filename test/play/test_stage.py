"""The stage: actions in, states out. Chance is a seed, so all of it replays."""

from __future__ import annotations

from random import Random

import pytest

from txpaxos.core.messages import Prepare as PrepareMessage
from txpaxos.play.actions import (
    AnyAction,
    Crash,
    Cut,
    Deliver,
    Double,
    Drop,
    Hang,
    Hold,
    Join,
    NotPossible,
    Prepare,
    Propose,
    Release,
    Resend,
    Restart,
    Save,
    Time,
    Timer,
)
from txpaxos.play.players import KINDS
from txpaxos.play.stage import DELIVERED, LOST, Stage


def played(kind: str, *actions: AnyAction, count: int = 3) -> Stage:
    stage = Stage(kind, count)
    for action in actions:
        stage.perform(action)
    return stage


def look_on(stage: Stage, steps: int) -> None:
    for _ in range(steps):
        stage.perform(stage.next_step())


def deliver_all(stage: Stage) -> None:
    while flying := stage.under_way():
        stage.perform(Deliver(flying[0].number))


def some_action(stage: Stage, rng: Random) -> AnyAction:
    """Any action that the page offers, with a leaning to those that get somewhere."""
    node, other = rng.sample(stage.members, 2)
    flying = [one.number for one in stage.under_way()] or [0]
    number = rng.choice(flying)
    kinds: list[list[AnyAction]] = [
        [Deliver(number)],
        [Drop(number), Double(number), Hold(number), Release(number)],
        [Propose(node, rng.choice("xyz"))],
        [Prepare(node), Resend(node), Time(), Timer(node)],
        [Crash(node), Restart(node), Restart(node)],
        [Hang(node), Save(node), Save(node)],
        [Cut(node, other), Join(node, other), Join(node, other)],
    ]
    return rng.choice(rng.choices(kinds, [20, 2, 2, 6, 1, 1, 1])[0])


def played_at_random(kind: str, seed: int, count: int = 3, compares: bool = False) -> tuple[Stage, list[AnyAction]]:
    """A stage after some hundred random actions, and those of them that were possible."""
    rng, stage = Random(seed), Stage(kind, count)
    done: list[AnyAction] = []
    for _ in range(250):
        action = some_action(stage, rng)
        before = stage.view() if compares else None
        try:
            stage.perform(action)
        except NotPossible:
            assert not compares or stage.view() == before, action
        else:
            done.append(action)
    return stage, done


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(2))
def test_the_same_actions_lead_to_the_same_state(kind: str, seed: int) -> None:
    stage, actions = played_at_random(kind, seed, compares=True)
    assert len(actions) > 30
    assert played(kind, *actions).view() == stage.view()
    assert played(kind, *actions[:50]).view() == played(kind, *actions[:50]).view()


@pytest.mark.parametrize("kind", KINDS)
def test_at_most_one_value_is_chosen_and_the_argument_is_true(kind: str) -> None:
    """Each proposer proposed the value of the highest ballot reported, and no slot has two chosen values."""
    bound = chosen = 0
    for seed in range(40):
        stage, _ = played_at_random(kind, seed, 5 if seed % 2 else 3)
        argument = stage.argument
        for slot, ballots in argument.votes.items():
            values = {one.value for one in ballots.values() if len(one.voters) >= argument.quorum}
            assert len(values) <= 1, (seed, slot, values)
            chosen += len(values)
        for slot, proposed in argument.proposed.items():
            for ballot, one in proposed.items():
                assert len(one.promised_by) == argument.quorum, (seed, slot, ballot, one)
                if one.highest is not None:
                    bound += 1
                    assert one.value == one.highest.value, (seed, slot, ballot, one)
        shared = [point for point in argument.points() if point.kind == "shared"]
        assert all(point.nodes for point in shared), seed
    assert chosen > 10
    assert bound > 0


def test_one_decree_by_hand() -> None:
    stage = played("essential", Propose("p", "red"), Prepare("p"), Deliver(0), Deliver(1))
    assert [one.to for one in stage.under_way()] == ["c", "p", "p"]
    assert stage.facts_of("a") == {"promised": "1.p", "accepted": "nothing"}
    stage.perform(Deliver(3))
    assert stage.facts_of("p")["promises"] == "a"
    stage.perform(Deliver(4))
    deliver_all(stage)
    assert stage.argument.chosen(0) == b"red"
    assert stage.facts_of("l")["learned"] == "red"
    assert [point.text for point in stage.argument.points()] == [
        "p is free in 1.p: a and b promised it, and reported no vote. It proposes red.",
        "a, b and c accepted red in 1.p: 3 of 3, a quorum. red is chosen.",
    ]


def test_a_crash_loses_what_was_not_saved_and_nothing_else() -> None:
    stage = played("practical", Hang("b"), Propose("a", "x"), Prepare("a"), Deliver(0))
    assert stage.facts_of("b")["promised"] == "1.a"
    assert stage.disk_of("b")["promised"] == "none"
    (node,) = [one for one in stage.view()["nodes"] if one["name"] == "b"]
    assert node["waits"]
    assert not [one for one in stage.under_way() if one.sender == "b"], "a promise left before its save"
    stage.perform(Crash("b"))
    stage.perform(Restart("b"))
    assert stage.facts_of("b")["promised"] == "none"
    stage = played("practical", Hang("b"), Propose("a", "x"), Prepare("a"), Deliver(0), Save("b"))
    assert [one.to for one in stage.under_way() if one.sender == "b"] == ["a"]
    stage.perform(Crash("b"))
    stage.perform(Restart("b"))
    assert stage.facts_of("b")["promised"] == "1.a"


def test_what_saves_nothing_waits_for_the_saves_before_it() -> None:
    stage = played("practical", Prepare("a"), Hang("c"), Prepare("b"))
    to_c = {one.sender: one.number for one in stage.under_way() if one.to == "c"}
    stage.perform(Deliver(to_c["b"]))  # c promises 1.b, and that waits for its disk
    stage.perform(Deliver(to_c["a"]))  # c refuses 1.a because of it
    assert not [one for one in stage.under_way() if one.sender == "c"]
    stage.perform(Save("c"))
    answers = [type(one.message).__name__ for one in stage.under_way() if one.sender == "c"]
    assert answers == ["Promise", "Nack"]


def test_a_disk_that_hangs_holds_back_nothing_that_rests_on_no_save() -> None:
    stage = played("functional", Hang("a"), Timer("b"))
    stage.perform(Deliver(0))
    assert [type(one.message).__name__ for one in stage.under_way() if one.sender == "a"] == ["PreVoteGranted"]


def test_a_node_that_is_down_gets_nothing() -> None:
    stage = played("practical", Propose("a", "x"), Prepare("a"), Crash("b"), Deliver(0))
    assert stage.messages[0].fate == LOST
    assert stage.rows[-1].marks[0].text == "is down"
    assert not stage.is_up("b")
    assert stage.facts_of("b") == {}


def test_a_cut_link_loses_what_is_under_way_and_what_is_sent() -> None:
    stage = played("practical", Prepare("a"), Cut("a", "b"))
    assert [one.fate for one in stage.messages] == [LOST, "flying"]
    stage.perform(Resend("a"))
    assert [one.fate for one in stage.messages[2:]] == [LOST, "flying"]
    stage.perform(Join("b", "a"))
    stage.perform(Resend("a"))
    assert [one.fate for one in stage.messages[4:]] == ["flying", "flying"]


def test_a_doubled_message_arrives_twice_and_one_held_back_is_passed_over() -> None:
    stage = played("practical", Prepare("a"), Double(0), Hold(0))
    assert isinstance(stage.messages[2].message, PrepareMessage)
    assert stage.next_step() == Deliver(1)
    stage.perform(Deliver(1))
    assert stage.next_step() == Deliver(2)
    stage.perform(Deliver(2))
    stage.perform(Release(0))
    assert stage.next_step() == Deliver(0)
    stage.perform(Deliver(0))
    assert [one.fate for one in stage.messages[:3]] == [DELIVERED] * 3
    assert stage.facts_of("b")["promised"] == "1.a"


@pytest.mark.parametrize("kind", ["functional", "replica"])
def test_looking_on_elects_a_leader(kind: str) -> None:
    stage = Stage(kind)
    look_on(stage, 12)
    roles = [stage.facts_of(node)["role"] for node in stage.members]
    assert roles.count("leader") == 1
    (leader,) = [node for node in stage.members if stage.facts_of(node)["role"] == "leader"]
    stage.perform(Propose(leader, "x"))
    look_on(stage, 20)
    assert stage.argument.chosen(0 if kind == "functional" else 2) == b"x"


def test_a_clock_that_runs_ahead_changes_no_other_clock() -> None:
    stage = Stage("functional")
    stage.perform(Timer("c"))
    assert stage.now == 0.0
    assert stage.facts_of("c")["role"] == "pre-candidate"
    assert {stage.facts_of(node)["role"] for node in "ab"} == {"follower"}


@pytest.mark.parametrize(
    ("kind", "action", "complaint"),
    [
        ("practical", Deliver(0), "that message is not under way"),
        ("practical", Deliver(-1), "that message is not under way"),
        ("practical", Crash("z"), "there is no such node"),
        ("practical", Restart("a"), "a is running"),
        ("practical", Time(), "no timer is set"),
        ("practical", Timer("a"), "a has no timer"),
        ("practical", Save("a"), "the disk of a does not hang"),
        ("practical", Cut("a", "a"), "that link is cut already"),
        ("practical", Join("a", "b"), "that link is not cut"),
        ("practical", Propose("a", ""), "a value has 1 to 12 characters that can be printed"),
        ("practical", Propose("a", "x" * 13), "a value has 1 to 12 characters that can be printed"),
        ("practical", Propose("a", "x\n"), "a value has 1 to 12 characters that can be printed"),
        ("essential", Propose("a", "x"), "a is no proposer"),
        ("essential", Resend("p"), "p does not do that by hand"),
        ("functional", Prepare("a"), "a does not do that by hand"),
        ("replica", Propose("a", "x"), "a does not lead: only a leader proposes"),
    ],
)
def test_what_is_not_possible_says_why(kind: str, action: AnyAction, complaint: str) -> None:
    with pytest.raises(NotPossible) as refused:
        Stage(kind).perform(action)
    assert str(refused.value) == complaint


def test_what_no_stage_can_be() -> None:
    with pytest.raises(NotPossible, match="there is no such kind"):
        Stage("raft")
    with pytest.raises(NotPossible, match="there are 3 nodes, or 5"):
        Stage("replica", 4)
    with pytest.raises(NotPossible, match="no message is under way, and no timer is set"):
        Stage("essential").next_step()
