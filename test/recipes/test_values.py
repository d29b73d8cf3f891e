"""Values are checked at the door, on the way in and on the way out."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, TypedDict

import attrs
import pytest

from txpaxos.recipes.values import Values, WrongValue


@attrs.frozen
class Job:
    name: str
    tries: int = 0


@dataclass
class Place:
    city: str


class Color(enum.Enum):
    RED = "red"


class Row(TypedDict):
    name: str


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Job, Job("a", 5)),
        (Place, Place("Ulm")),
        (Color, Color.RED),
        (Row, {"name": "a"}),
        (bytes, b"a"),
        (str, ""),
        (int, -5),
        (float, 1.5),
        (dict[str, list[int]], {"a": [1]}),
        (frozenset[str], frozenset("abc")),
        (Any, {"a": [1, None]}),
    ],
)
def test_a_value_comes_back(kind: Any, value: object) -> None:
    values: Values[Any] = Values(kind, "the queue jobs")
    again = values.decoded(values.encoded(value))
    assert (type(again), again) == (type(value), value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Job, {"name": "a", "tries": 5}),
        (Job, Job(5)),  # type: ignore[arg-type]
        (Job, None),
        (int, True),
        (int, 5.0),
        (int, 2**64),
        (str, "\ud800"),
        (str, b"a"),
        (Row, {"name": 5}),
        (dict[str, list[int]], {"a": [1.5]}),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(kind: Any, value: object) -> None:
    with pytest.raises(TypeError, match=r"^the queue jobs has values of .*, not .*: .*$") as raised:
        Values(kind, "the queue jobs").encoded(value)
    assert "\n" not in str(raised.value)


def test_an_int_is_a_float_to_type_checkers() -> None:
    values = Values(float, "the queue jobs")
    assert values.decoded(values.encoded(5)) == 5.0


def test_bytes_of_another_type_are_refused_in_one_line() -> None:
    jobs, numbers = Values(Job, "the queue jobs"), Values(int, "the queue jobs")
    with pytest.raises(WrongValue, match=r"^the queue jobs has what is no Job: Expected `object`, got `int`$"):
        jobs.decoded(numbers.encoded(5))
    with pytest.raises(WrongValue, match=r"^the queue jobs has what is no int: MessagePack data is malformed"):
        numbers.decoded(b"\xc1")


def test_a_type_that_cannot_be_sent_is_refused_in_one_line() -> None:
    class Other:
        pass

    with pytest.raises(TypeError, match=r"^the queue jobs cannot have values of Other: Other is no type that"):
        Values(Other, "the queue jobs")


def test_equal_values_are_equal_bytes() -> None:
    sets, numbers = Values(frozenset[str], "the set s"), Values(dict[str, int], "the set s")
    names = [f"name {number}" for number in range(50)]
    assert sets.encoded(frozenset(names)) == sets.encoded(frozenset(reversed(names)))
    assert numbers.encoded(dict.fromkeys(names, 1)) == numbers.encoded(dict.fromkeys(reversed(names), 1))


@attrs.frozen
class Point:
    x: float
    y: float = 0.0


class Size(TypedDict):
    width: float


@attrs.frozen
class Line:
    points: list[Point]


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (float, 1, 1.0),
        (float | None, 1, 1.0),
        (dict[str, float], {"a": 1}, {"a": 1.0}),
        (Point, Point(1), Point(1.0, 0)),
        (Line, Line([Point(1)]), Line([Point(1.0)])),
        (Size, {"width": 1}, {"width": 1.0}),
    ],
)
def test_equal_values_of_other_types_are_equal_bytes(kind: Any, one: object, other: object) -> None:
    """A guard with the value that was read did not hold for what was put as an int."""
    values: Values[Any] = Values(kind, "the map m")
    assert one == other
    assert values.encoded(one) == values.encoded(other)
    assert values.encoded(values.decoded(values.encoded(one))) == values.encoded(one)
