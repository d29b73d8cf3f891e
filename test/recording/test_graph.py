"""The state of a core as plain data: nothing is left out, and what comes back goes on as the core does."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import msgspec
import pytest

from test.helpers.core_node import elect
from txpaxos.core.drops import Drop
from txpaxos.core.election import Role
from txpaxos.core.messages import AcceptedSlot, Ballot, Heartbeat, Vote
from txpaxos.core.replica import Replica
from txpaxos.recording.graph import Dump, Load

RNG = Random(0)
NAMES = {id(RNG): "rng"}


def through_bytes(plain: Any) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(plain))


def leading() -> Replica:
    replica = Replica("a", ("a", "b", "c"), RNG, 0.0, admits=None, change_of=None)
    elect(replica, 1.0)
    replica.propose(b"one", 1.0)
    replica.receive("b", Heartbeat(Ballot(9, "c")), 1.0)
    return replica


def named(replica: Replica) -> dict[int, str]:
    return {**NAMES, id(replica._admits): "admits", id(replica._change_of): "change_of"}


def test_a_core_comes_back_and_goes_on_as_it_was() -> None:
    replica = leading()
    dump = Dump(named(replica))
    plain = dump.plain(replica)
    things = {"rng": RNG, "admits": replica._admits, "change_of": replica._change_of}
    twin = Load(things, values=dump.values).item(through_bytes(plain))
    assert isinstance(twin, Replica)
    assert twin.status() == replica.status()
    assert Dump(named(replica)).plain(twin) == plain == through_bytes(plain)
    slot = min(replica._leader.window.slots)  # type: ignore[union-attr]
    vote = AcceptedSlot(replica.election.own_ballot, slot)
    assert twin.receive("b", vote, 2.0) == replica.receive("b", vote, 2.0)
    assert twin.status() == replica.status()


def test_what_is_one_object_is_one_object_again() -> None:
    replica = leading()
    things = {"rng": RNG, "admits": replica._admits, "change_of": replica._change_of}
    dump = Dump(named(replica))
    twin = Load(things, values=dump.values).item(dump.plain(replica))
    assert twin._catch_up._log is twin.log is twin._leader._log
    assert twin.election.membership is twin.membership


@pytest.mark.parametrize(
    "item",
    [
        *(None, True, 7, -1, 2**64 - 1, 0.5, float("inf"), "text", b"bytes", (), [], {}, set(), frozenset()),
        *((1, ("a", b"b")), [1, b"y"], {"b": 1, "a": [2]}, {3, 1, 2}, frozenset({2, 1})),
        *(Ballot(3, "a"), Vote(1, Ballot(2, "b"), b"v"), Role.LEADER, Counter({Drop.NOT_FROM_A_MEMBER: 3})),
    ],
    ids=repr,
)
def test_each_kind_of_data_comes_back(item: object) -> None:
    back = Load().item(through_bytes(Dump().plain(item)))
    assert back == item
    assert type(back) is type(item)


def test_a_list_of_values_is_kept_beside_the_rest() -> None:
    dump = Dump()
    plain = dump.plain({"one": [b"x", b"y"], "other": [b"z"]})
    assert plain == ["d", "one", ["v", 0], "other", ["v", 1]]
    assert dump.values == [[b"x", b"y"], [b"z"]]
    assert Load(values=dump.values).item(plain) == {"one": [b"x", b"y"], "other": [b"z"]}


def test_sets_have_one_order() -> None:
    assert Dump().plain({"c", "a", "b"}) == ["s", "a", "b", "c"]


def test_a_class_that_is_not_named_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"name it in txpaxos\.recording\.graph"):
        Dump().plain(Random(0))


@pytest.mark.parametrize(
    "plain",
    [
        *([], ["?"], [7], ["t", []], ["n"], ["n", "Ballot", 1], ["n", "Nothing", 1], ["e", "Role", "KING"], ["e"]),
        *(["o"], ["o", "Popen"], ["o", "Timing", "heartbeat_seconds"], ["o", "Timing", "__class__", 1], ["r", 0]),
        *(["o", "Timing", "no_such_slot", 1], ["o", "Ready", 3, 4], ["x", "os"], ["d", 1], ["d", ["l"], 1]),
        *(["s", ["l"]], ["v"], ["v", 0], ["v", "a"], ["C", 1], ["r", "a"], ["r", None], ["o", ["l"]], {"a": 1}),
    ],
    ids=repr,
)
def test_other_data_is_refused(plain: Any) -> None:
    with pytest.raises(ValueError, match=r"no |without|unpack|number|invalid"):
        Load().item(plain)
