"""A client learns who the members are, follows them, and keeps its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, get_args

import attrs
import pytest
from twisted.python.failure import Failure

import txpaxos.arguments as checks
from test.helpers.fake_nodes import AutomaticNodes, ManualNodes, other_than
from test.helpers.fakes import cluster_of, outcome_of
from txpaxos.client.known_nodes import KnownNodes
from txpaxos.cluster import Address, Cluster
from txpaxos.errors import ConfigError, MembersRefused, NoQuorum, OutcomeUnknown
from txpaxos.wire.client_messages import (
    CHANGE_TEXT_CHARACTERS_MAX,
    CONTACTS_MAX,
    Action,
    ChangeAnswer,
    ChangeMembers,
    ChangeProgress,
    Contact,
    Members,
    MembersAnswer,
    MembersRequest,
    Refused,
    Submit,
)

SIX = cluster_of("abcdef")
SEEDS = range(6)


def only(names: str) -> Cluster:
    """The cluster file of before, with only some of the six nodes."""
    return attrs.evolve(SIX, members={name: SIX.members[name] for name in names})


def failed(outcome: Sequence[object]) -> Failure:
    (failure,) = outcome
    assert isinstance(failure, Failure)
    return failure


def started_with(names: str, seed: int, **options: Any) -> AutomaticNodes:
    nodes = AutomaticNodes(None, seed, SIX, only(names), **options)
    nodes.change(0, names)
    return nodes


def submit(nodes: AutomaticNodes, seconds: float = 20.0) -> float:
    return nodes.gap(nodes.client.submit(b"x"), seconds=seconds)


# ----------------------------------------------------------------- other members


@pytest.mark.parametrize("seed", SEEDS)
def test_all_nodes_that_a_client_started_with_are_gone(seed: int) -> None:
    """They were replaced one after the other, while commands were under way."""
    nodes = started_with("abc", seed)
    submit(nodes)
    waiting = []
    for slot, voters, leader in [(20, "bcd", "b"), (40, "cde", "c"), (60, "def", "d")]:
        waiting += [nodes.client.submit(b"y") for _ in range(100)]
        nodes.spend(0.01)
        nodes.change(slot, voters)
        nodes.elect(leader)
        nodes.spend(0.1)
        nodes.kill(*set("abcdef") - set(voters) - {"e", "f"})
    assert nodes.gap(*waiting) < 1.0
    nodes.kill("a", "b", "c")
    nodes.heard.clear()
    assert submit(nodes) < 0.1
    assert {node for _, node, message in nodes.heard if isinstance(message, Submit)} == {"d"}
    nodes.kill("d")
    nodes.leader = "f"
    assert submit(nodes) < 1.0
    assert nodes.client.known_members == (60, {name: f"10.0.0.{'abcdef'.index(name) + 1}:5000" for name in "def"})


@pytest.mark.parametrize("seed", SEEDS)
def test_one_seed_is_enough(seed: int) -> None:
    """Only an address is known: neither the cluster's name nor the node's."""
    nodes = AutomaticNodes(None, seed, SIX, ["10.0.0.2:5000"])
    assert nodes.client.known_members is None
    nodes.change(30, "bcd")
    nodes.leader = "c"
    assert submit(nodes) < 0.2
    assert nodes.calls == ["b", "c"]
    nodes.kill("b", "c")
    nodes.leader = "d"
    assert submit(nodes) < 1.0
    assert nodes.calls[-1] == "d"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_at_a_node_that_tells_no_members(seed: int) -> None:
    """The node is of an older release. The client stays with it."""
    nodes = AutomaticNodes(None, seed, SIX, ["10.0.0.2:5000"])
    submit(nodes)
    nodes.kill("b")
    nodes.spend(0.2)
    nodes.gone.clear()
    assert submit(nodes) < 1.0
    assert set(nodes.calls) == {"b"}
    assert nodes.client.findings() == "10.0.0.2:5000 follows a"


@pytest.mark.parametrize("seed", SEEDS)
def test_the_node_that_the_client_talks_to_is_removed(seed: int) -> None:
    """The client leaves it though it still runs; what was under way is sent again elsewhere with the same sequence."""
    nodes = started_with("abc", seed)
    submit(nodes)
    nodes.isolated.add("a")  # It answers nothing any more, and believes that it leads.
    waiting = [nodes.client.submit(b"x") for _ in range(50)]
    nodes.spend(0.01)
    nodes.leader = "b"
    nodes.change(9, "bc", tell="a")
    assert nodes.gap(*waiting) < 0.2
    sent = [
        (node, message.session, message.sequence) for _, node, message in nodes.heard if isinstance(message, Submit)
    ]
    of_a, of_b = ([(session, first) for node, session, first in sent if node == one] for one in "ab")
    assert of_a[-1] in of_b
    assert len({session for _, session, _ in sent}) == 1
    nodes.spend(30.0)
    assert not [one for one in nodes.lines if one.node == "a" and not one.transport.disconnecting]


def test_an_answer_of_the_removed_node_counts() -> None:
    """It was on its way."""
    nodes = started_with("abc", 1)
    submit(nodes)
    nodes.unplugged.update("bc")
    nodes.answer_seconds = 0.1
    waiting = nodes.client.submit(b"x")
    nodes.spend(0.01)
    nodes.change(9, "bc", tell="a")
    assert nodes.gap(waiting) < 0.2


@pytest.mark.parametrize("seed", SEEDS)
def test_added_nodes_are_used_and_learners_are_not(seed: int) -> None:
    nodes = started_with("a", seed)
    submit(nodes)
    nodes.change(9, "ab", "cdef")
    nodes.kill("a")
    nodes.elect("b")
    assert submit(nodes) < 1.0
    assert set(nodes.calls) == {"a", "b"}


def test_an_idle_client_is_told_too() -> None:
    nodes = started_with("abc", 1)
    submit(nodes)
    nodes.spend(3600.0, lambda: nodes.now > 100)
    nodes.change(9, "def")
    nodes.leader = "e"
    nodes.kill("a", "b", "c")
    nodes.spend(1.0)
    assert submit(nodes) < 0.2
    assert nodes.calls[-1] in "def"


def test_a_client_of_some_nodes_stays_with_them() -> None:
    """So one node can be asked for its status, whether it is a member or not."""
    nodes = AutomaticNodes(["c"], 1, SIX)
    nodes.change(9, "ab")
    submit(nodes)
    nodes.kill("c")
    nodes.spend(1.0)
    nodes.gone.clear()
    submit(nodes)
    assert set(nodes.calls) == {"c"}
    assert nodes.client.known_members is not None


# ----------------------------------------------------------------- other addresses


def moved(node: str, host: str) -> Cluster:
    """The six nodes, one of which clients reach at another host than before."""
    member = attrs.evolve(SIX.members[node], client=Address(host, 5000))
    return attrs.evolve(SIX, members={**SIX.members, node: member})


@pytest.mark.parametrize("seed", SEEDS)
def test_a_member_moves(seed: int) -> None:
    nodes = AutomaticNodes(None, seed, moved("a", "10.0.9.9"), only("a"))
    nodes._names["10.0.0.1"] = "a"
    nodes.told["a"] = Members(0, (Contact("a", "10.0.0.1:5000", "voter"),))
    submit(nodes)
    nodes.change(9, "a")
    nodes.kill("a")
    del nodes._names["10.0.0.1"]
    nodes.gone.clear()
    assert submit(nodes) < 1.0
    assert nodes.reactor.tcpClients[-1][0] == "10.0.9.9"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cluster_file_of_before_a_move(seed: int) -> None:
    """The client finds the moved node all the same, by what another tells."""
    nodes = AutomaticNodes(None, seed, moved("a", "10.0.9.9"), only("abc"))
    nodes.change(9, "abc")
    nodes.gone.add("c")
    assert submit(nodes) < 1.0
    nodes.kill("b")
    assert submit(nodes) < 1.0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_gateway_between_client_and_nodes(seed: int) -> None:
    """The cluster file of the client has other addresses than the nodes have. The client uses its own."""
    nodes = AutomaticNodes(None, seed, SIX, only("abc"))
    inside = tuple(Contact(name, f"192.168.0.{number}:5000", "voter") for number, name in enumerate("abc"))
    nodes.told = dict.fromkeys("abc", Members(0, inside))
    submit(nodes)
    nodes.told = dict.fromkeys("abc", Members(7, inside))
    nodes.kill("a")
    nodes.leader = "b"
    assert submit(nodes) < 1.5
    assert "10.0.0.2" in [host for host, *_ in nodes.reactor.tcpClients]


# --------------------------------------------------------------- nodes that lie, or lag


@pytest.mark.parametrize("seed", SEEDS)
def test_a_node_lies(seed: int) -> None:
    """It names a thousand slots ahead members that do not exist. The client finds back to its seeds."""
    nodes = started_with("abc", seed)
    submit(nodes)
    crowd = tuple(Contact(f"x{number}", f"10.9.9.{number}:5000", "voter") for number in range(CONTACTS_MAX))
    nodes.told["a"] = Members(2**63, crowd)
    nodes.change(0, "abc", tell="b")
    for line in nodes.lines:
        if line.node == "a":
            line.say(nodes.told["a"])
    nodes.told["a"] = nodes.told["b"]
    assert submit(nodes, 60.0) < 60.0
    assert len(set(nodes.calls)) <= CONTACTS_MAX + 3
    assert nodes.client.known_members is not None
    assert nodes.client.known_members[0] == 0
    nodes.change(9, "bcd")
    nodes.kill("a")
    nodes.elect("d")
    assert submit(nodes) < 1.0


@pytest.mark.parametrize(
    "told",
    [
        Members(9, (Contact("a", "10.0.0.1", "voter"),)),
        Members(9, (Contact("a", "0.0.0.0:5000", "voter"),)),
        Members(9, (Contact("a", "224.0.0.1:5000", "voter"),)),
        Members(9, (Contact("", "10.0.0.1:5000", "voter"),)),
        Members(9, (Contact("10.0.0.1:5000", "10.0.0.1:5000", "voter"),)),
    ],
)
def test_members_that_no_node_tells(told: Members) -> None:
    """The connection is closed, and nothing is taken from it."""
    nodes = started_with("abc", 1)
    nodes.told["a"] = told
    nodes.leader = "b"
    nodes.client.submit(b"x").addErrback(lambda _: None)
    nodes.spend(5.0)
    assert nodes.client.known_members == (0, {name: str(SIX.members[name].client) for name in "abc"})
    nodes.client.close()


def test_an_empty_list_says_nothing() -> None:
    nodes = started_with("abc", 1)
    nodes.told["a"] = Members(9, ())
    submit(nodes)
    nodes.kill("a")
    nodes.elect("b")
    assert submit(nodes) < 1.0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_node_that_lags_tells_members_of_before(seed: int) -> None:
    nodes = started_with("abcdef", seed)
    nodes.change(9, "bcd", tell="bcdef")
    nodes.leader = "b"
    submit(nodes)
    nodes.told["c"] = Members(3, nodes.told["a"].members)
    nodes.kill("b")
    nodes.elect("d")
    assert submit(nodes) < 1.0
    assert nodes.client.known_members is not None
    assert nodes.client.known_members[0] == 9


@pytest.mark.parametrize("seed", SEEDS)
def test_members_that_all_fail_are_not_forgotten(seed: int) -> None:
    """The client was cut off with a former member alone, which knows no leader. The members come back."""
    nodes = AutomaticNodes(None, seed, SIX, only("a"))
    nodes.change(0, "abc", tell="a")
    nodes.change(9, "def", tell="bcdef")
    nodes.leader = "d"
    nodes.told["a"] = Members(9, nodes.told["d"].members)
    submit(nodes)
    nodes.told["a"] = Members(0, tuple(Contact(one, f"10.0.0.{n}:5000", "voter") for n, one in enumerate("abc", 1)))
    nodes.kill("d", "e", "f")
    nodes.leader = None
    calls_before = len(nodes.calls)
    waiting = outcome_of(nodes.client.submit(b"x"))
    nodes.spend(10.0)
    assert not waiting
    assert "a" in nodes.calls[calls_before:]
    nodes.gone = {"a", "b", "c"}
    nodes.kill("a")
    nodes.leader = "e"
    assert nodes.spend(5.0, lambda: waiting)
    assert nodes.client.known_members is not None
    assert nodes.client.known_members[0] == 9


@pytest.mark.parametrize("seed", SEEDS)
def test_members_that_are_all_frozen(seed: int) -> None:
    """They take connections and say nothing. The seeds are tried beside them."""
    nodes = AutomaticNodes(None, seed, SIX, only("f"))
    nodes.change(9, "abc")
    submit(nodes)
    nodes.frozen.update("abc")
    nodes.change(20, "f", tell="f")
    nodes.elect("f")
    assert submit(nodes) < 5.0
    assert nodes.client.known_members == (20, {"f": "10.0.0.6:5000"})


# ----------------------------------------------------------------- all seeds are gone


@pytest.mark.parametrize("seeds", [["10.0.0.1:5000"], only("ab")])
def test_all_seeds_are_gone_at_the_start(seeds: Cluster | list[str]) -> None:
    nodes = AutomaticNodes(None, 1, SIX, seeds)
    nodes.kill("a", "b")
    outcome = outcome_of(nodes.client.read(b"q", deadline_seconds=5.0))
    nodes.spend(10.0)
    failure = failed(outcome)
    assert failure.check(NoQuorum)
    place = "10.0.0.1:5000" if isinstance(seeds, list) else "a at 10.0.0.1:5000"
    line = failure.getErrorMessage()
    assert line.startswith(f"no answer came ({place} refuses connections")
    assert line.endswith(
        "; none of the nodes that this client was started with answers: start one of them, or start the client with the"
        " address of a node that runs)"
    )


@pytest.mark.parametrize("wrong", ["10.0.0.1", "10.0.0.1:0", "::1:5000", ""])
def test_a_seed_that_is_no_address(wrong: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a node's client port"):
        AutomaticNodes(None, 1, SIX, ["10.0.0.1:5000", wrong])


def test_no_seed() -> None:
    with pytest.raises(ConfigError, match="its nodes are"):
        AutomaticNodes(None, 1, SIX, [])


def test_an_address_that_is_not_in_a_list() -> None:
    with pytest.raises(TypeError, match=r"write \['10.0.0.1:5000'\]"):
        AutomaticNodes(None, 1, SIX, "10.0.0.1:5000")  # type: ignore[arg-type]


# ---------------------------------------------------------------------- by itself


def told(slot: int, **places: str) -> Members:
    return Members(slot, tuple(Contact(node, place, "voter") for node, place in places.items()))


def test_nodes_at_seeds_are_remembered_without_end_of_memory() -> None:
    """A seed may say each time that it is another node."""
    seed = Address("10.0.0.1", 5000)
    known = KnownNodes({"10.0.0.1:5000": seed}, is_fixed=False)
    for number in range(100):
        assert known.reached("10.0.0.1:5000", seed, f"n{number}", True) == f"n{number}"
    assert known.address_of("n99") == seed
    assert not known.knows_address_of("n98")
    assert known.candidates == ("10.0.0.1:5000",)


def test_another_node_answers_at_the_address_of_a_seed() -> None:
    """The member is tried where the nodes say that it is."""
    seed = Address("10.0.0.1", 5000)
    known = KnownNodes({"a": seed}, is_fixed=False)
    known.tell(told(0, a="10.0.9.9:5000", b="10.0.0.2:5000"), "b", True)
    assert known.address_of("a") == seed
    known.reached("a", seed, "b", True)
    assert known.address_of("a") == Address("10.0.9.9", 5000)
    known.failed("a")
    assert known.address_of("a") == seed


def test_a_host_name_is_looked_up_by_the_client() -> None:
    known = KnownNodes({"a": Address("10.0.0.1", 5000)}, is_fixed=False)
    known.tell(told(1, b="b.example.org:5000"), "a", True)
    assert known.address_of("b") == Address("b.example.org", 5000)


@pytest.mark.parametrize("seed", SEEDS)
def test_nodes_that_send_the_client_away_are_not_the_only_ones_that_are_tried(seed: int) -> None:
    """They welcome it and close the connection, as nodes do whose folder is lost; the others were off for a while."""
    known, rng = KnownNodes({node: member.client for node, member in SIX.members.items()}, is_fixed=False), Random(seed)
    for node in "abc":
        known.failed(node)
    tried: list[str] = []
    for _ in range(40):
        tried.append(rng.choice(known.fresh(node for node in known.candidates if node != (tried or [""])[-1])))
        if tried[-1] in "def":
            known.reached(tried[-1], known.address_of(tried[-1]), tried[-1], True)
        known.failed(tried[-1], was_there=tried[-1] in "def")
    assert set(tried) == set("abcdef")


# ------------------------------------------------------- what a client asks of members


def test_who_the_members_are() -> None:
    nodes = ManualNodes()
    outcome = outcome_of(nodes.client.members())
    node = nodes.accept()
    (asked,) = node.said()
    assert asked == MembersRequest(1)
    node.say(MembersAnswer(1, b'{"slot": 9}'))
    assert outcome == [{"slot": 9}]


def test_a_change_with_its_progress() -> None:
    """A line that is repeated is no news."""
    nodes, lines = ManualNodes(), list[str]()
    outcome = outcome_of(nodes.client.change_members("replace", "a", other="d", progress=lines.append))
    silent = outcome_of(nodes.client.change_members("priority", "a", priority=3))
    node = nodes.accept()
    assert node.said() == [ChangeMembers(1, "replace", "a", "d"), ChangeMembers(2, "priority", "a", priority=3)]
    node.say(*(ChangeProgress(number, line) for number in (1, 2, 3) for line in ("half", "half", "whole")))
    assert (lines, outcome) == (["half", "whole"], [])
    node.say(ChangeAnswer(1, "d votes in place of a"), ChangeProgress(1, "half"))
    assert (lines, outcome, silent) == (["half", "whole"], ["d votes in place of a"], [])


def test_a_change_is_asked_for_again_at_the_next_leader() -> None:
    nodes = ManualNodes()
    outcome = outcome_of(nodes.client.change_members("remove", "c"))
    first = nodes.accept()
    (asked,) = first.said()
    first.welcome(other_than(first.node))
    second = nodes.accept()
    assert second.said() == [asked]
    second.say(Refused(1, "MembersRefused", "c is the last voter"))
    failure = failed(outcome)
    assert failure.check(MembersRefused)
    assert failure.getErrorMessage() == "c is the last voter"


@pytest.mark.parametrize(("is_sent", "error"), [(True, OutcomeUnknown), (False, NoQuorum)])
def test_a_change_without_an_answer(is_sent: bool, error: type[Exception]) -> None:
    nodes = ManualNodes()
    outcome = outcome_of(nodes.client.change_members("remove", "c", deadline_seconds=3.0))
    if is_sent:
        assert nodes.accept().said()
    nodes.reactor.spend(4.0)
    assert failed(outcome).check(error)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"action": "delete"}, ValueError),
        ({"node": b"c"}, TypeError),
        ({"node": "\ud800"}, ValueError),
        ({"other": "d" * 301}, ValueError),
        ({"address": None}, TypeError),
        ({"priority": "1"}, TypeError),
        ({"priority": True}, TypeError),
        ({"priority": -1}, ValueError),
        ({"deadline_seconds": 0}, ValueError),
    ],
)
def test_arguments_that_are_wrong(arguments: dict[str, Any], error: type[Exception]) -> None:
    nodes = ManualNodes()
    with pytest.raises(error):
        nodes.client.change_members(**{"action": "remove", "node": "c", **arguments})
    assert nodes.calls == []


def test_actions_and_lengths_are_those_of_the_wire() -> None:
    assert get_args(Action) == checks.CHANGE_ACTIONS
    assert CHANGE_TEXT_CHARACTERS_MAX == checks.CHANGE_TEXT_CHARACTERS_MAX


def test_members_of_before_are_no_news() -> None:
    """A node that lags tells them. They count only while no member helps, from a node that is none and has a leader."""
    known = KnownNodes({"a": Address("10.0.0.1", 5000)}, is_fixed=False)
    before, newer = told(3, a="10.0.0.1:5000", b="10.0.0.2:5000"), told(9, b="10.0.0.2:5000", c="10.0.0.3:5000")
    assert known.tell(newer, "b", True)
    assert not known.tell(before, "c", True)
    assert not known.tell(newer, "b", True)
    known.try_seeds()
    assert set(known.candidates) == {"a", "b", "c"}
    assert not known.tell(before, "c", True)
    assert not known.tell(before, "a", False)
    assert known.tell(before, "a", True)
    assert (known.slot, known.candidates) == (3, ("a", "b"))
