"""A state of a few attributes, as bytes and back."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from datetime import UTC, datetime
from random import Random
from typing import Any

import attrs
import msgspec
import pytest

from txpaxos.application import Application, has_snapshots
from txpaxos.fields import dump_fields, load_fields
from txpaxos.protocol import PaxosProtocol


@attrs.frozen
class Item:
    name: str
    tags: frozenset[str] = frozenset()


@dataclasses.dataclass
class Account:
    owner: bytes
    seen: set[int] = dataclasses.field(default_factory=set)


class Point(msgspec.Struct):
    x: int
    marks: set[str]


class State:
    total: int
    by_name: dict[str, Item]
    by_key: dict[bytes, tuple[int, float]]
    by_number: dict[int, Account]
    by_pair: dict[tuple[int, str], bytes]
    members: set[bytes]
    items: set[Item]
    point: Point | None
    made: datetime

    def __init__(self) -> None:
        self.total = 0
        self.by_name = {}
        self.by_key = {}
        self.by_number = {}
        self.by_pair = {}
        self.members = set()
        self.items = set()
        self.point = None
        self.made = datetime(2020, 1, 2, tzinfo=UTC)
        self.plain: Any = None


NAMES = ("total", "by_name", "by_key", "by_number", "by_pair", "members", "items", "point", "made", "plain")


def full() -> State:
    state = State()
    state.total = -5
    state.by_name = {"z": Item("z", frozenset({"b", "a", "c"})), "a": Item("a")}
    state.by_key = {b"\xff": (1, 2.5), b"": (0, -1.0)}
    state.by_number = {9: Account(b"nine", {3, 1, 2}), 1: Account(b"one")}
    state.by_pair = {(2, "b"): b"2b", (1, "a"): b"1a"}
    state.members = {b"x", b"y", b"\0"}
    state.items = {Item("p", frozenset("ab")), Item("o"), Item("q")}
    state.point = Point(3, {"u", "v"})
    state.plain = [None, True, "text", b"bytes", {"k": [1, 2]}]
    return state


def test_what_was_dumped_is_loaded() -> None:
    state, again = full(), State()
    load_fields(again, NAMES, dump_fields(state, NAMES))
    assert vars(again) == vars(state)


def test_a_dictionary_keeps_its_order() -> None:
    """An application that depends on the order finds the same one after a restore."""
    state, again = full(), State()
    load_fields(again, NAMES, dump_fields(state, NAMES))
    assert [*again.by_key] == [b"\xff", b""]
    assert [*again.by_name] == ["z", "a"]


def test_no_fields() -> None:
    load_fields(State(), (), dump_fields(full(), ()))


def test_without_an_annotation_it_comes_back_as_messagepack_carries_it() -> None:
    state, again = State(), State()
    state.plain = {"set": {2, 1}, "tuple": (1, 2), b"key": Item("n")}
    load_fields(again, ("plain",), dump_fields(state, ("plain",)))
    assert again.plain == {"set": [1, 2], "tuple": [1, 2], b"key": {"name": "n", "tags": []}}


PROGRAM = """
from test.test_fields import NAMES, full
from txpaxos.fields import dump_fields
print(dump_fields(full(), NAMES).hex())
"""


def test_equal_states_give_equal_bytes_in_every_process() -> None:
    dumps = set()
    for seed in ("0", "1", "2", "3"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        dumps.add(run.stdout)
    assert dumps == {dump_fields(full(), NAMES).hex() + "\n"}


def test_sets_made_in_any_order_give_equal_bytes() -> None:
    rng = Random(1)
    words = [b"%d" % number for number in range(500)]
    dumps = set()
    for _ in range(5):
        rng.shuffle(words)
        state = State()
        state.members = set(words)
        dumps.add(dump_fields(state, NAMES))
    assert len(dumps) == 1


@pytest.mark.parametrize("value", [object(), {"deep": [object()]}, 2**64, "\ud800"])
def test_what_cannot_be_carried_is_an_error(value: object) -> None:
    state = State()
    state.plain = value
    with pytest.raises((TypeError, OverflowError, UnicodeEncodeError)):
        dump_fields(state, NAMES)


@pytest.mark.parametrize(
    "data", [b"", b"\x90", b"nonsense", msgspec.msgpack.encode(["text"]), msgspec.msgpack.encode([1, 2])]
)
def test_what_is_no_dump_sets_nothing(data: bytes) -> None:
    state = State()
    state.total = 7
    with pytest.raises(msgspec.MsgspecError):
        load_fields(state, ("total",), data)
    assert state.total == 7


class Table(PaxosProtocol):
    """Its annotations, and those of all it inherits, are looked at."""

    state_fields = ("rows", "names")
    rows: dict[bytes, Item]
    names: set[str]

    def __init__(self) -> None:
        self.rows = {}
        self.names = set()


def test_a_nodes_own_hooks_use_them() -> None:
    one, other = (Table() for _ in range(2))
    one.rows[b"k"] = Item("n", frozenset("t"))
    one.names = {"x", "y"}
    chunk = one.snapshot()
    assert isinstance(chunk, bytes)
    other.restore(iter([chunk[:3], chunk[3:]]))
    assert (other.rows, other.names) == (one.rows, one.names)


def test_whether_an_application_has_snapshots() -> None:
    class Own(Application):
        def snapshot(self) -> bytes:
            return b""

    assert has_snapshots(Own())
    assert has_snapshots(Table())
    assert has_snapshots(Application()), "it has no state of its own, and registers may be all there is"


@attrs.frozen
class Pair:
    names: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Meeting:
    who: Pair
    where: tuple[str, frozenset[int]] = ("", frozenset())


class Tag(msgspec.Struct, frozen=True):
    marks: frozenset[str]


class Keyed:
    """Dictionaries with sets in their keys, in whatever depth."""

    by_set: dict[frozenset[str], int]
    by_tuple: dict[tuple[str, frozenset[str]], set[str]]
    by_pair: dict[Pair, dict[frozenset[frozenset[str]], list[int]]]
    by_meeting: dict[Meeting, bytes]
    by_tag: dict[Tag, int]
    sets: set[frozenset[Pair]]
    inside: list[dict[str, dict[frozenset[str], int]]]

    def __init__(self) -> None:
        self.by_set, self.by_tuple, self.by_pair, self.by_meeting, self.by_tag = {}, {}, {}, {}, {}
        self.sets, self.inside = set(), []
        self.bare: Any = None


KEYED = ("by_set", "by_tuple", "by_pair", "by_meeting", "by_tag", "sets", "inside")


def full_keyed() -> Keyed:
    some, others = frozenset({"alice", "bob", "carol"}), frozenset({"dave", "erin", "frank"})
    state = Keyed()
    state.by_set = {some: 1, others: 2, frozenset(): 3}
    state.by_tuple = {("x", some): {"k", "l", "m"}, ("", others): set()}
    state.by_pair = {Pair(some): {frozenset({some, others}): [1, 2]}}
    state.by_meeting = {Meeting(Pair(some), ("home", frozenset({3, 1, 2}))): b"met"}
    state.by_tag = {Tag(others): 7}
    state.sets = {frozenset({Pair(some), Pair(others)}), frozenset()}
    state.inside = [{"deep": {others: 1}}]
    return state


def test_what_has_sets_in_its_keys_is_loaded_again() -> None:
    state, again = full_keyed(), Keyed()
    load_fields(again, KEYED, dump_fields(state, KEYED))
    assert vars(again) == vars(state)


def test_sets_in_keys_give_equal_bytes_in_every_process() -> None:
    program = PROGRAM.replace("NAMES, full", "KEYED as NAMES, full_keyed as full") + (
        "from txpaxos.node.sessions import encode_result\n"
        "print(encode_result({frozenset({'alice', 'bob', 'carol'}): ('x', {('a', frozenset({'b', 'c'})): 1})}).hex())\n"
    )
    prints = set()
    for seed in ("0", "1", "2", "3"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        run = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        prints.add(run.stdout)
    assert len(prints) == 1


@pytest.mark.parametrize("count", [1, 15, 16, 2**16 - 1, 2**16])
def test_a_dictionary_with_other_keys_is_the_map_that_messagepack_makes_of_it(count: int) -> None:
    state = State()
    state.plain = {(number, "k"): number for number in range(count)}
    assert dump_fields(state, ("plain",)) == msgspec.msgpack.encode([state.plain])


@pytest.mark.parametrize(
    "bare",
    [
        {frozenset({"a"}): 1},
        {("x", frozenset({"a"})): 1},
        {Pair(frozenset({"a"})): 1},
        [{"k": {Tag(frozenset()): 1}}],
        (Account(b"one"), {Meeting(Pair(frozenset())): 1}),
    ],
)
def test_a_key_that_would_come_back_as_another_is_refused(bare: object) -> None:
    """Without an annotation a set comes back as a tuple: a node that was started again would not find what it has."""
    state = Keyed()
    state.bare = bare
    with pytest.raises(TypeError, match="annotate the attribute with the types of its keys"):
        dump_fields(state, ("by_set", "bare"))


def test_a_key_without_an_annotation_that_comes_back_is_none_of_those() -> None:
    state = Keyed()
    state.bare = [{("a", (1, b"k")): {1}}, {None: {2}, 3: Pair(frozenset({"a"}))}]
    dump_fields(state, ("bare",))
    state.by_set, state.bare = {frozenset({"a"}): 1}, {"tuple": (1, {2})}
    dump_fields(state, ("by_set", "bare"))


def test_two_keys_that_messagepack_does_not_tell_apart_are_refused() -> None:
    state = Keyed()
    state.bare = {("a", "b"): 1, frozenset({"a", "b"}): 2}
    with pytest.raises(TypeError, match="two keys that are the same"):
        dump_fields(state, ("bare",))
