"""What a service must know of the types in its annotations."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict

import attrs
import msgspec
import pytest

from test.service.services import Name, Open, Point
from txpaxos.service.annotations import as_kept, check_state_type, check_value_type, has_sets, never_changes


class Struct(msgspec.Struct):
    a: int


class FrozenStruct(msgspec.Struct, frozen=True):
    a: int
    more: FrozenStruct | None = None


@dataclasses.dataclass
class Data:
    a: int


@dataclasses.dataclass(frozen=True)
class FrozenData:
    a: int


@attrs.frozen(slots=False)
class Deep:
    lists: tuple[list[int], ...]


class Pair(NamedTuple):
    a: int
    b: str


class Typed(TypedDict):
    a: int


class Colour(enum.Enum):
    RED = 1


FROZEN: list[Any] = [int, str | None, tuple[int, ...], frozenset[str], Point, FrozenStruct, FrozenData, Pair, Colour]
FROZEN += [Literal["a"], datetime.datetime, Annotated[int, msgspec.Meta(ge=0)], Name, tuple[str, Point]]
CHANGING: list[Any] = [
    list[int],
    dict[str, int],
    set[int],
    Open,
    Struct,
    Data,
    Deep,
    Typed,
    bytearray,
    tuple[list[int], int],
    Any,
]


@pytest.mark.parametrize("hint", FROZEN)
def test_values_that_never_change(hint: Any) -> None:
    assert never_changes(hint)


@pytest.mark.parametrize("hint", CHANGING)
def test_values_that_may_change(hint: Any) -> None:
    assert not never_changes(hint)


@pytest.mark.parametrize("hint", [set[int], dict[str, frozenset[int]], Point, list[Point], tuple[Point | None, int]])
def test_types_with_sets(hint: Any) -> None:
    assert has_sets(hint)


@pytest.mark.parametrize("hint", [list[int], dict[str, list[int]], FrozenStruct, Pair, tuple[int, ...]])
def test_types_without_sets(hint: Any) -> None:
    assert not has_sets(hint)


@pytest.mark.parametrize("hint", [object, complex, list[object], msgspec.Raw, msgspec.msgpack.Ext, dict[str, complex]])
def test_what_cannot_be_sent(hint: Any) -> None:
    with pytest.raises(TypeError):
        check_value_type(hint)


@attrs.frozen
class Lost:
    a: Nowhere  # type: ignore[name-defined]  # noqa: F821


def test_a_class_whose_annotations_are_lost() -> None:
    with pytest.raises(
        TypeError, match=r"an annotation in .*Lost.* cannot be looked up: name 'Nowhere' is not defined"
    ):
        check_value_type(list[Lost])


def test_a_frozen_class_may_hold_a_class_that_is_in_itself() -> None:
    assert never_changes(dict[str, FrozenStruct] | None) is False
    assert never_changes(tuple[FrozenStruct, FrozenStruct])


def test_an_annotation_with_more_than_a_type() -> None:
    check_state_type(Annotated[int, msgspec.Meta(extra_json_schema={"unit": "EUR"})])
    assert as_kept(dict[str, Annotated[int, msgspec.Meta(extra_json_schema={"unit": "EUR"})]])
    check_state_type(Annotated[int, msgspec.Meta(ge=0, description="an amount")])
    with pytest.raises(TypeError, match="Any may hold"):
        check_state_type(Annotated[Any, msgspec.Meta(description="a thing")])


@pytest.mark.parametrize("hint", [Any, list[Any], dict[str, dict[str, Any]], list, tuple])
def test_what_can_be_sent_and_not_be_in_the_state(hint: Any) -> None:
    check_value_type(hint)
    with pytest.raises(TypeError, match="Any may hold a tuple or a set"):
        check_state_type(hint)


ID = NewType("ID", int)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, True),
        (int, 5),
        (float, 5),
        (float, True),
        (float, 2.5),
        (ID, True),
        (dict[str, float], {"a": 5, "b": 2.5, "c": False}),
        (list[tuple[int, ...]], [(True, 2), ()]),
        (dict[tuple[int, str], float | None], {(True, "a"): None, (0, "b"): 4}),
        (frozenset[float], frozenset([2.5, 4])),
    ],
)
def test_a_number_comes_back_as_what_it_was(hint: Any, value: Any) -> None:
    """To type checkers a bool is an int, and an int is a float."""
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=as_kept(hint))
    assert repr(again) == repr(value)


@pytest.mark.parametrize("hint", [str, Point, Literal[1], Annotated[int, msgspec.Meta(ge=0)], list])
def test_other_types_are_what_they_are(hint: Any) -> None:
    assert as_kept(hint) is hint
