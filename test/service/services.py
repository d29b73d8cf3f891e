"""Typed services for tests."""

from __future__ import annotations

import enum
from typing import Annotated, NewType

import attrs
import msgspec

from txpaxos import Service, ServiceError, command, query, state


class Refused(ServiceError):
    """An error with a text."""


@attrs.define
class NotEnough(ServiceError):
    """An error with fields."""

    account: str
    missing: int = 0


class Late(ServiceError, ValueError):
    """An error with an ``__init__``, which is an error of Python's, too."""

    def __init__(self, by_seconds: float, *, words: tuple[str, ...] = ()) -> None:
        super().__init__(f"{by_seconds} too late")
        self.by_seconds = by_seconds
        self.words = words


class Bank(Service):
    """A small service."""

    balances: dict[str, int] = state(dict)

    @command
    def deposit(self, account: str, amount: int = 1) -> int:
        self.balances[account] = self.balances.get(account, 0) + amount
        return self.balances[account]

    @command(raises=(Refused, NotEnough, Late))
    def fail(self, kind: str) -> None:
        match kind:
            case "refused":
                raise Refused("no")
            case "not enough":
                raise NotEnough("ann", missing=5)
            case "late":
                raise Late(2.5, words=("a", "b"))
            case "a subclass":
                raise LaterRefused("no")
            case "another":
                raise KeyError(kind)

    @query
    def balance(self, account: str) -> int:
        return self.balances.get(account, 0)

    @query(raises=Refused)
    def of_all(self, *, above: int = 0) -> dict[str, int]:
        if above < 0:
            raise Refused("below zero")
        return {name: amount for name, amount in self.balances.items() if amount > above}


class LaterRefused(Refused):
    """A subclass, which no method names."""


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen
class Point:
    x: int
    tags: frozenset[str] = frozenset()


@attrs.define
class Open:
    points: list[Point]


Name = NewType("Name", str)
Amount = Annotated[int, msgspec.Meta(ge=0)]


class Everything(Service):
    """A service with a part of its state of each type."""

    count: int = state(int)
    ratio: float = state(float)
    text: str = state(lambda: "first")
    colour: Colour = state(lambda: Colour.RED)
    pair: tuple[int, str] = state(lambda: (1, "one"))
    maybe: bytes | None = state(lambda: None)
    names: set[str] = state(set)
    points: dict[tuple[int, str], Point] = state(dict)
    sets: dict[frozenset[str], int] = state(dict)
    log: list[str] = state(list)
    open: dict[str, Open] = state(dict)
    nested: dict[str, dict[str, list[int]]] = state(dict)
    by_name: dict[Name, float] = state(dict)
    point: Point = state(lambda: Point(0))
    primes: list[int] = state(lambda: [2, 3, 5])

    @command
    def take(
        self,
        a: Point,
        b: Amount = 1,
        c: list[float] = [],  # noqa: B006
        *,
        colour: Colour = Colour.RED,
        d: str | None = None,
    ) -> tuple[Point, Colour, float]:
        self.log.append(f"{a} {b} {c} {colour} {d}")
        return a, colour, b

    @command
    def nothing(self) -> None:
        self.count += 1

    @query
    def mirror(self, points: set[Point]) -> list[Point]:
        return sorted(points, key=lambda point: point.x)
