"""Histories and models that several tests of the linearizability checker use."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

from twisted.internet.task import Clock

from txpaxos.testing.linearizability.history import UNKNOWN, HistoryRecorder
from txpaxos.testing.linearizability.models import SAME, Effect, Model, Other, Register


def recorded(*lines: str) -> HistoryRecorder:
    """The recorded history of ``lines``: ``a: ["read"]`` asks, ``a = 5`` is answered, ``a !`` fails, and ``a ?`` has an
    unknown outcome."""
    recorder = HistoryRecorder(Clock())
    numbers: dict[str, int] = {}
    for line in lines:
        client, mark, value = line[0], line[1:].strip()[0], line[1:].strip()[1:]
        if mark == ":":
            numbers[client] = recorder.invoke(client, json.loads(value))
        elif mark == "=":
            recorder.ok(client, numbers[client], json.loads(value))
        else:
            {"!": recorder.fail, "?": recorder.unknown}[mark](client, numbers[client])
    return recorder


WRITE_1 = ('a: ["write", 1]', "a = null")
WRITE_2 = ('b: ["write", 2]', "b = null")
READ_1 = ('c: ["read"]', "c = 1")
READ_2 = ('d: ["read"]', "d = 2")


def swaps_that_fail(count: int) -> list[str]:
    return [line for number in range(count) for line in (f'b: ["cas", {number + 10}, 5]', "b = false")]


def opaque(model: type[Model], *functions: str) -> Model:
    """``model`` without the effects of these functions; without any effect if no function is given."""

    def effect(self: Model, input: Any, output: Any) -> Effect | None:
        return None if not functions or input[0] in functions else model.effect(self, input, output)

    made: Model = type(f"Opaque{model.__name__}", (model,), {"effect": effect})()
    return made


class Queue(Model):
    """First in, first out, as a user may write it: with ``step`` alone."""

    def initial(self) -> Hashable:
        return ()

    def step(self, state: Any, input: Any, output: Any) -> tuple[bool, Hashable]:
        if input[0] == "push":
            return True, (*state, input[1])
        first = state[0] if state else None
        return output is UNKNOWN or output == first, state[1:]


class Unless(Register):
    """A register that can be set unless it holds some value."""

    def step(self, state: Any, input: Any, output: Any) -> tuple[bool, Hashable]:
        if input[0] != "unless":
            return super().step(state, input, output)
        _, excluded, value = input
        is_set = state != excluded
        return output is UNKNOWN or output is is_set, value if is_set else state

    def effect(self, input: Any, output: Any) -> Effect | None:
        if input[0] != "unless":
            return super().effect(input, output)
        return Effect(input[1], SAME) if output is False else Effect(Other(input[1]), input[2])


class Increments(Register):
    """A register that can be incremented. It has no effects for increments and for unknown outcomes."""

    def step(self, state: Any, input: Any, output: Any) -> tuple[bool, Hashable]:
        if input[0] == "increment":
            return True, 0 if state is None else (state + 1) % 3
        return super().step(state, input, output)

    def effect(self, input: Any, output: Any) -> Effect | None:
        return None if input[0] == "increment" or output is UNKNOWN else super().effect(input, output)


class SomeUnknown(Register):
    """A register without effects for operations with an unknown outcome."""

    def effect(self, input: Any, output: Any) -> Effect | None:
        return None if output is UNKNOWN else super().effect(input, output)
