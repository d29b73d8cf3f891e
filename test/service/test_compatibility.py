"""What may change between two releases of a service."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import attrs
import msgspec
import pytest

from test.service.services import Bank, Everything
from txpaxos import Service, ServiceError, application_of, command, each_change, query, state
from txpaxos.errors import ConfigError
from txpaxos.service.compatibility import changes_between
from txpaxos.service.definition import definition_of
from txpaxos.service.schema import dump_schema, load_schema, schema_of
from txpaxos.testing import ServicesHarness


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen
class Item:
    name: str
    colour: Colour = Colour.RED


class Row(msgspec.Struct, array_like=True):
    number: int
    text: str = ""


class Full(ServiceError):
    def __init__(self, room: int, unit: str = "m3") -> None:
        super().__init__(f"only {room} {unit}")


class Store(Service):
    items: dict[str, Item] = state(dict)
    rows: list[Row] = state(list)
    limit: int = state(lambda: 10)

    @command(raises=Full)
    def put(self, where: str, item: Item, count: int = 1) -> int:
        return count

    @query
    def find(self, name: str | None) -> list[Item]:
        return []

    @query(topic="shelf {name}", changes_kept=True)
    def shelf(self, name: str) -> int:
        return 0

    @query(topic="limit")
    def room(self) -> int:
        return self.limit


OLD = schema_of([definition_of(Store, "Store")])


def changed(change: Callable[[dict[str, Any]], object]) -> list[tuple[bool, str]]:
    """The changes to a schema that ``change`` makes to a copy of it."""
    new = json.loads(json.dumps(OLD))
    change(new)
    return [(one.allowed, one.text) for one in changes_between(OLD, new)]


def store(schema: dict[str, Any]) -> Any:
    return schema["services"]["Store"]


def put(schema: dict[str, Any]) -> Any:
    return store(schema)["commands"]["put"]


def queries(schema: dict[str, Any]) -> Any:
    return store(schema)["queries"]


def field(schema: dict[str, Any], name: str, number: int) -> Any:
    return store(schema)["classes"][name]["fields"][number]


NEW = {"name": "new", "type": "int"}
CASES: list[tuple[Callable[[dict[str, Any]], object], bool, str]] = [
    (lambda new: new["services"].clear(), False, "service Store is gone"),
    (lambda new: new["services"].update(More=store(new)), True, "service More is new"),
    (lambda new: store(new)["commands"].clear(), False, "command Store.put is gone: the log has calls of it"),
    (lambda new: queries(new).clear(), False, "query Store.find is gone: earlier clients call it"),
    (
        lambda new: queries(new)["room"].pop("topic"),
        True,
        "query Store.room has no topic, and had the topic 'limit'",
    ),
    (
        lambda new: queries(new)["find"].update(topic="all"),
        True,
        "query Store.find has the topic 'all', and had no topic",
    ),
    (
        lambda new: queries(new)["find"].update(topic="all", changes_kept=True),
        True,
        "query Store.find has the topic 'all', and had no topic",
    ),
    (
        lambda new: queries(new)["room"].update(changes_kept=True),
        True,
        "query Store.room may have its changes kept: have all nodes run this release before a caller asks for that",
    ),
    (
        lambda new: queries(new)["shelf"].pop("changes_kept"),
        False,
        "query Store.shelf may not have its changes kept any more: the log has commands that say so",
    ),
    (
        lambda new: queries(new)["shelf"].pop("topic"),
        False,
        "query Store.shelf has no topic, and had the topic 'shelf {name}': snapshots have calls",
    ),
    (
        lambda new: queries(new)["shelf"].update(topic="{name}"),
        False,
        "query Store.shelf has the topic '{name}', and had the topic 'shelf {name}': snapshots have calls",
    ),
    (lambda new: store(new)["commands"].update(two=put(new)), True, "command Store.two is new: have all nodes"),
    (lambda new: put(new)["parameters"].pop(), False, "command Store.put: count is gone"),
    (lambda new: put(new)["parameters"].append(NEW), False, "command Store.put: new is new and has no default"),
    (lambda new: put(new)["parameters"].append({**NEW, "default": 5}), True, "command Store.put: new is new, with a"),
    (lambda new: put(new)["parameters"].insert(0, NEW), False, "command Store.put: new has the place of where"),
    (lambda new: put(new)["parameters"][0].update(name="shelf"), False, "command Store.put: shelf has the place of"),
    (lambda new: put(new)["parameters"][0].update(type="int"), False, "command Store.put: where is int, and was str"),
    (
        lambda new: put(new)["parameters"][0].update(type="None | str"),
        True,
        "command Store.put: where takes None | str",
    ),
    (lambda new: put(new)["parameters"][0].update(default="x"), True, "command Store.put: where has a default now"),
    (
        lambda new: put(new)["parameters"][2].update(default=2),
        False,
        "command Store.put: count has the default 2, and had",
    ),
    (lambda new: put(new)["parameters"][2].pop("default"), False, "command Store.put: count has no default, and had 1"),
    (lambda new: put(new).update(returns="str"), False, "command Store.put returns str, and returned int"),
    (
        lambda new: put(new)["raises"].update(Other=[]),
        True,
        "command Store.put raises Other, which earlier clients get",
    ),
    (lambda new: put(new)["raises"].clear(), True, "command Store.put does not raise Full any more"),
    (
        lambda new: put(new)["raises"]["Full"].reverse(),
        False,
        "command Store.put: error Full: unit has the place of room",
    ),
    (lambda new: store(new)["state"].pop("limit"), False, "state Store.limit is gone: snapshots have it"),
    (lambda new: store(new)["state"].update(new={"type": "int", "first": 0}), True, "state Store.new is new"),
    (
        lambda new: store(new)["state"]["limit"].update(first=20),
        False,
        "state Store.limit begins as 20, and began as 10",
    ),
    (lambda new: store(new)["state"]["limit"].update(type="str"), False, "state Store.limit is str, and was int"),
    (lambda new: store(new)["state"]["limit"].update(type="int | str"), True, "state Store.limit takes int | str"),
    (lambda new: field(new, "Item", 0).update(name="title"), False, "class Store.Item: name is gone"),
    (lambda new: store(new)["classes"]["Item"]["fields"].reverse(), True, ""),
    (
        lambda new: store(new)["classes"]["Item"]["fields"].append(NEW),
        False,
        "class Store.Item: new is new and has no default",
    ),
    (
        lambda new: store(new)["classes"]["Item"]["fields"].append({**NEW, "optional": True}),
        True,
        "class Store.Item: new is new, wi",
    ),
    (
        lambda new: field(new, "Item", 1).update(default="blue"),
        False,
        "class Store.Item: colour has the default 'blue', and",
    ),
    (
        lambda new: store(new)["classes"]["Row"]["fields"].reverse(),
        False,
        "class Store.Row: text has the place of number",
    ),
    (
        lambda new: store(new)["classes"]["Row"]["options"].update(tag="row"),
        False,
        "class Store.Row is another kind of class",
    ),
    (
        lambda new: store(new)["classes"]["Colour"]["values"].update(GREEN="green"),
        True,
        "class Store.Colour: GREEN is new",
    ),
    (
        lambda new: store(new)["classes"]["Colour"]["values"].update(RED="rot"),
        False,
        "class Store.Colour: RED = 'red' is gone",
    ),
    (
        lambda new: store(new)["classes"]["Colour"]["values"].update(
            CRIMSON=store(new)["classes"]["Colour"]["values"].pop("RED")
        ),
        True,
        "",
    ),
    (lambda new: None, True, ""),
]


@pytest.mark.parametrize(("change", "allowed", "line"), CASES, ids=[line or "nothing" for _, _, line in CASES])
def test_a_change(change: Callable[[dict[str, Any]], object], allowed: bool, line: str) -> None:
    found = changed(change)
    if not line:
        assert found == []
        return
    assert found[0][1].startswith(line)
    assert all(one for one, _ in found) == allowed


def test_the_schema_says_what_the_classes_say() -> None:
    assert put(OLD)["parameters"] == [
        {"name": "where", "type": "str"},
        {"name": "item", "type": "Item"},
        {"name": "count", "type": "int", "default": 1},
    ]
    assert put(OLD)["raises"] == {
        "Full": [{"name": "room", "type": "int"}, {"name": "unit", "type": "str", "default": "m3"}]
    }
    assert store(OLD)["state"]["items"] == {"type": "dict[str, Item]", "first": {}}
    assert field(OLD, "Item", 1) == {"name": "colour", "type": "Colour", "default": "red"}
    assert store(OLD)["classes"]["Colour"] == {"values": {"BLUE": "blue", "RED": "red"}}
    assert store(OLD)["classes"]["Row"]["in_order"] is True
    assert store(OLD)["classes"]["Item"]["in_order"] is False


def test_the_schema_says_of_queries_with_what_their_answers_change_and_whether_changes_may_be_kept() -> None:
    said = {name: (one.get("topic"), one.get("changes_kept")) for name, one in queries(OLD).items()}
    assert said == {"find": (None, None), "room": ("limit", None), "shelf": ("shelf {name}", True)}
    assert "topic" not in put(OLD)


def test_a_golden_file_that_says_nothing_of_topics_is_read() -> None:
    def change(old: dict[str, Any]) -> None:
        for one in queries(old).values():
            one.pop("topic", None)
            one.pop("changes_kept", None)

    old = json.loads(json.dumps(OLD))
    change(old)
    assert [one.allowed for one in changes_between(load_schema(dump_schema(old), "golden.json"), OLD)] == [True] * 3


@pytest.mark.parametrize(("name", "value"), [("topic", 5), ("changes_kept", "yes")])
def test_a_query_with_a_topic_that_is_none(name: str, value: object) -> None:
    damaged = json.loads(json.dumps(OLD))
    queries(damaged)["room"][name] = value
    with pytest.raises(ConfigError, match=r"^golden\.json is damaged"):
        load_schema(dump_schema(damaged), "golden.json")


class Goods(Service):
    price: int = state(int)

    @command
    def set(self, price: int) -> None:
        self.price = price
        self.changed("price")

    @query(topic="price", changes_kept=True)
    def cost(self) -> int:
        return self.price


class LaterGoods(Goods):
    @command
    def set(self, price: int) -> None:
        self.price = price
        self.changed("cost")

    @query(topic="cost", changes_kept=True)
    def cost(self) -> int:
        return self.price


@pytest.mark.parametrize(("later", "seen"), [(Goods, 2), (LaterGoods, 1)])
def test_why_the_topic_of_kept_changes_is_fixed(later: type[Goods], seen: int) -> None:
    """Snapshots have kept calls with their topics. A release that says another topic does not make those any more."""
    before, after = ServicesHarness(goods=Goods), ServicesHarness(goods=later)
    ServicesHarness.result(each_change(before.service(Goods, "goods").cost).next())
    after.application.restore(before.application.snapshot())
    after.service(later, "goods").set(5)
    (kept,) = after.application._kept._kept.values()
    assert len(kept.changes) == seen


def test_types_are_written_as_people_write_them() -> None:
    everything = schema_of([definition_of(Everything)])["services"]["Everything"]
    assert {name: one["type"] for name, one in everything["state"].items()} == {
        "count": "int",
        "ratio": "float",
        "text": "str",
        "colour": "Colour",
        "pair": "tuple[int, str]",
        "maybe": "None | bytes",
        "names": "set[str]",
        "points": "dict[tuple[int, str], Point]",
        "sets": "dict[frozenset[str], int]",
        "log": "list[str]",
        "open": "dict[str, Open]",
        "nested": "dict[str, dict[str, list[int]]]",
        "by_name": "dict[str, float]",
        "point": "Point",
        "primes": "list[int]",
    }
    parameters = everything["commands"]["take"]["parameters"]
    assert [one["type"] for one in parameters] == ["Point", "int(ge=0)", "list[float]", "Colour", "None | str"]


class Pair(NamedTuple):
    number: int
    text: str = ""


class Settings(TypedDict, total=False):
    depth: int


@attrs.frozen
class Shelf:
    numbers: list[int] = attrs.field(factory=lambda: [1])
    settings: Settings | None = None
    kind: Literal["b", "a"] = "a"
    pairs: tuple[Pair, ...] = ()
    limit: Annotated[int, msgspec.Meta(ge=0, description="how many")] = 5


def test_classes_are_written_with_all_that_is_sent_of_them() -> None:
    class Shelves(Service):
        shelves: list[Shelf] = state(list)

    Shelves.__annotations__["shelves"] = list[Shelf]
    classes = schema_of([definition_of(Shelves)])["services"]["Shelves"]["classes"]
    assert classes["Shelf"]["fields"] == [
        {"name": "numbers", "type": "list[int]", "default": [1]},
        {"name": "settings", "type": "None | Settings", "default": None},
        {"name": "kind", "type": "Literal['a', 'b']", "default": "a"},
        {"name": "pairs", "type": "tuple[Pair, ...]", "default": []},
        {"name": "limit", "type": "int(ge=0)", "default": 5},
    ]
    assert classes["Settings"] == {"in_order": False, "fields": [{"name": "depth", "type": "int", "optional": True}]}
    assert classes["Pair"]["in_order"] is True


def test_a_class_that_is_used_no_more_breaks_what_used_it() -> None:
    def change(new: dict[str, Any]) -> None:
        del store(new)["classes"]["Row"]
        store(new)["state"]["rows"]["type"] = "list[int]"

    assert changed(change) == [(False, "state Store.rows is list[int], and was list[Row]")]


def test_a_schema_is_the_same_each_time_and_comes_back_from_text() -> None:
    schema = schema_of(application_of(Everything, Bank).definitions.values())
    text = dump_schema(schema)
    assert load_schema(text, "golden.json") == schema
    assert dump_schema(load_schema(text, "golden.json")) == text
    assert changes_between(schema, schema) == []


def test_values_that_json_has_not_are_in_the_schema_too() -> None:
    class Odd(Service):
        data: bytes = state(lambda: b"\xff")
        pairs: dict[int, str] = state(lambda: {1: "one"})
        nothing: int | None = state(lambda: None)

    (odd,) = schema_of([definition_of(Odd)])["services"].values()
    assert odd["state"]["data"]["first"] == {"msgpack": "xAH/"}
    assert odd["state"]["pairs"]["first"] == {"msgpack": "gQGjb25l"}
    assert odd["state"]["nothing"]["first"] is None


def test_two_classes_of_one_name_are_refused() -> None:
    class Colour(enum.Enum):
        GREEN = "green"

    class Both(Service):
        one: Item = state(lambda: Item("a"))
        two: Any = state(lambda: Colour.GREEN)

    Both.__annotations__["two"] = Colour
    Both.__annotations__["one"] = Item
    Colour.__qualname__ = "Colour"
    with pytest.raises(
        ConfigError, match="two classes in one service are called Colour: give one of them another name"
    ):
        schema_of([definition_of(Both)])


def test_classes_of_two_services_may_have_one_name() -> None:
    class Colour(enum.Enum):
        GREEN = "green"

    class Other(Service):
        colour: Any = state(lambda: Colour.GREEN)

    Other.__annotations__["colour"] = Colour
    Colour.__qualname__ = "Colour"
    both = schema_of([definition_of(Store), definition_of(Other)])["services"]
    assert both["Store"] == store(OLD)
    assert both["Other"]["classes"] == {"Colour": {"values": {"GREEN": "green"}}}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"txpaxos_schema": 1}', "\x00"])
def test_what_is_no_schema(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^golden\.json is no schema of services"):
        load_schema(text, "golden.json")
