"""Families of attrs classes to bytes and back."""

from __future__ import annotations

import attrs
import pytest

from txpaxos.packing import Packing


@attrs.frozen
class Name:
    name: str


@attrs.frozen
class Pair:
    left: int = attrs.field(validator=attrs.validators.le(9))
    right: tuple[bytes, ...] = ()


@attrs.frozen
class Stranger:
    pass


PACKING = Packing[Name | Pair]({1: Name, 7: Pair})


@pytest.mark.parametrize("item", [Name("a"), Pair(1), Pair(-(2**63), (b"", b"b"))])
def test_round_trip(item: Name | Pair) -> None:
    kind, body = PACKING.pack(item)
    assert kind == {Name: 1, Pair: 7}[type(item)]
    assert PACKING.unpack(kind, body) == item
    assert PACKING.unpack(kind, memoryview(body)) == item


def test_not_of_the_family() -> None:
    with pytest.raises(KeyError):
        PACKING.pack(Stranger())  # type: ignore[arg-type]


def test_integer_too_big() -> None:
    with pytest.raises(OverflowError):
        PACKING.pack(Pair(-(2**70)))


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        (2, b"\x81\xa4name\xa1a", "unknown kind 2"),
        (1, b"", "kind 1: "),
        (1, b"\x81\xa4name\xa1a\xc0", "kind 1: "),
        (1, b"\x81\xa4name\x01", r"Expected `str`, got `int` - at `\$.name`"),
        (1, b"\x81\xa4name\xa2\xff\xff", "kind 1: "),
        (7, b"\x81\xa4left\x0a", "<= 9"),
        (7, b"\x82\xa4left\x01\xa4more" + b"\x91" * 100_000, "recursion"),
    ],
)
def test_not_of_this_kind(kind: int, body: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        PACKING.unpack(kind, body)
