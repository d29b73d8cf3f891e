"""Both faces have the same methods, with the same arguments and results."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from txpaxos import aio
from txpaxos.client import Client
from txpaxos.protocol import PaxosProtocol
from txpaxos.server.served_node import ServedNode

NODE_NAMES = ("submit", "read", "ask", "forget", "hand_over", "status", "leader")
"""What a node's program calls of its application."""


def public(kind: type) -> Iterator[str]:
    return (name for name in vars(kind) if not name.startswith("_"))


def without_deferred(annotation: str) -> str:
    return annotation.removeprefix("Deferred[").removesuffix("]") if annotation.startswith("Deferred[") else annotation


def unlike(twisted: Any, other: Any, leaving_out: tuple[str, ...] = ()) -> list[str]:
    """What differs between two functions. The second one may be a coroutine where the first one gives a Deferred."""
    if not inspect.isfunction(twisted):
        return [] if type(other) is property else [f"{other!r} is no property"]
    first, second = inspect.signature(twisted), inspect.signature(other)
    wanted = {name: one for name, one in first.parameters.items() if name not in leaving_out}
    found = []
    for name in wanted.keys() | second.parameters.keys():
        one, two = wanted.get(name), second.parameters.get(name)
        if one is not None and two is not None and two.annotation == "Any":
            two = two.replace(annotation=one.annotation)
        if one != two:
            found.append(f"{name}: {one} and {two}")
    gives_deferred = str(first.return_annotation).startswith("Deferred[")
    if gives_deferred != inspect.iscoroutinefunction(other):
        found.append(f"{other.__qualname__} is a coroutine: {not gives_deferred}")
    if without_deferred(str(first.return_annotation)) != str(second.return_annotation):
        found.append(f"{first.return_annotation} and {second.return_annotation}")
    return found


def test_the_clients() -> None:
    assert set(public(aio.Client)) == set(public(Client))
    assert [one for name in public(Client) for one in unlike(vars(Client)[name], vars(aio.Client)[name])] == []
    assert unlike(Client.__init__, aio.Client.__init__, leaving_out=("reactor",)) == []


@pytest.mark.parametrize("name", NODE_NAMES)
def test_a_node_and_its_application(name: str) -> None:
    twisted = vars(PaxosProtocol)[name]
    other = vars(aio.Node)[name]
    assert name == "leader" or unlike(twisted, other) == []
    assert set(NODE_NAMES) <= set(public(aio.Node))


def test_how_a_node_is_made() -> None:
    assert unlike(ServedNode.__init__, aio.Node.__init__, leaving_out=("reactor",)) == []


def test_this_test_finds_what_differs() -> None:
    class Twisted:
        def call(self, one: int, two: str = "a") -> Deferred[int]:
            raise NotImplementedError

    class Other:
        async def call(self, one: int, two: str = "b") -> str:
            raise NotImplementedError

        def plain(self, one: int, two: str = "a") -> int:
            raise NotImplementedError

    assert len(unlike(Twisted.call, Other.call)) == 2
    assert len(unlike(Twisted.call, Other.plain)) == 1
