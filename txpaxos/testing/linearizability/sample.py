"""Histories to try the checker on: clients of a service that really is linearizable, recorded as it serves them.

``python -m txpaxos.testing.linearizability.sample`` measures the checker; ``docs/linearizability.rst`` has the figures.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import attrs
import click
import msgspec
from twisted.internet.task import Clock

from txpaxos.testing.linearizability.check import check
from txpaxos.testing.linearizability.history import HistoryRecorder
from txpaxos.testing.linearizability.models import MODELS

Input: TypeAlias = tuple[Any, ...]

TICK_SECONDS = 0.001


@attrs.frozen
class Service:
    """A service in one process, which applies operations at once.

    :ivar ask: makes an input from a random source and a number that was never used before.
    :ivar apply: answers an input, given the state, a dictionary that it changes.
    """

    ask: Callable[[Random, int], Input]
    apply: Callable[[dict[Any, Any], Input], Any]


@attrs.define
class _Client:
    """A client, what it asks for now, and how far that is."""

    name: str
    number: int = 0
    input: Input | None = None
    output: Any = None
    is_applied: bool = False


def sample_history(
    rng: Random, service: Service, operations: int, clients: int = 10, unknown: float = 0.01
) -> HistoryRecorder:
    """Record ``operations`` operations.

    Each of the ``clients`` has one operation at a time in work; invocations, applications and ends come in any order.
    The share ``unknown`` of the operations ends in an unknown outcome; half of them are applied later.
    """
    clock = Clock()
    recorder = HistoryRecorder(clock)
    state: dict[Any, Any] = {}
    everyone = [_Client(f"client-{number}") for number in range(clients)]
    late: list[Input] = []
    asked = 0
    while asked < operations or any(client.input for client in everyone):
        clock.advance(TICK_SECONDS)
        client = rng.choice(everyone)
        if late and rng.random() < 0.05:
            service.apply(state, late.pop(rng.randrange(len(late))))
        if client.input is None:
            if asked < operations:
                asked += 1
                client.input = service.ask(rng, asked)
                client.number = recorder.invoke(client.name, client.input)
                client.is_applied = False
        elif rng.random() < unknown / 2:  # twice in each operation's life
            recorder.unknown(client.name, client.number, "the client gave up")
            if not client.is_applied and rng.random() < 0.5:
                late.append(client.input)
            client.input = None
        elif client.is_applied:
            recorder.ok(client.name, client.number, client.output)
            client.input = None
        else:
            client.output = service.apply(state, client.input)
            client.is_applied = True
    return recorder


def _ask_register(rng: Random, number: int) -> Input:
    chance = rng.random()
    if chance < 0.5:
        return ("read",)
    return ("write", number) if chance < 0.9 else ("cas", number - rng.randrange(1, 20), number)


def _apply_register(state: dict[Any, Any], input: Input) -> Any:
    match input:
        case ("write", value):
            state["value"] = value
        case ("cas", old, new):
            swapped = state.get("value") == old
            if swapped:
                state["value"] = new
            return swapped
        case ("read",):
            return state.get("value")
    return None


def _ask_key_value(rng: Random, number: int) -> Input:
    chance, key = rng.random(), f"key-{rng.randrange(10)}"
    if chance < 0.5:
        return "get", key
    if chance < 0.85:
        return "put", key, number
    return ("delete", key) if chance < 0.9 else ("cas", key, number - rng.randrange(1, 100), number)


def _apply_key_value(state: dict[Any, Any], input: Input) -> Any:
    match input:
        case ("get", key):
            return state.get(key)
        case ("put", key, value):
            state[key] = value
        case ("delete", key):
            return state.pop(key, None) is not None
        case ("cas", key, old, new):
            swapped = state.get(key) == old
            if swapped:
                state[key] = new
            return swapped
    return None


def _ask_counter(rng: Random, number: int) -> Input:
    return ("read",) if rng.random() < 0.5 else ("add", rng.randrange(1, 6))


def _apply_counter(state: dict[Any, Any], input: Input) -> Any:
    if input[0] == "add":
        state["total"] = state.get("total", 0) + input[1]
    return state.get("total", 0)


SERVICES = {
    "register": Service(_ask_register, _apply_register),
    "key-value": Service(_ask_key_value, _apply_key_value),
    "counter": Service(_ask_counter, _apply_counter),
}


@click.command()
@click.option("--model", default="register", type=click.Choice(list(SERVICES)))
@click.option("--operations", default=100_000, show_default=True)
@click.option("--clients", default=10, show_default=True)
@click.option("--unknown", default=0.01, show_default=True, help="Share of operations whose outcome is unknown.")
@click.option("--seed", default=1, show_default=True)
@click.option("--stale", is_flag=True, help="Answer one read near the end with what was true long ago.")
@click.option("--output", type=click.Path(), help="Write the history there, for `txpaxos check`.")
def main(model: str, operations: int, clients: int, unknown: float, seed: int, stale: bool, output: str | None) -> None:
    """Make a history, check it, and say what that took."""
    recorder = sample_history(Random(seed), SERVICES[model], operations, clients, unknown)
    if stale:
        make_stale(recorder)
    if output is not None:
        Path(output).write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in recorder.events))
    begun = time.process_time()
    result = check(recorder.operations(), MODELS[model]())
    seconds = time.process_time() - begun
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    click.echo(result.report())
    click.echo(f"{seconds:.1f} s of processor time, {result.configurations} configurations, {megabytes:.0f} MB at most")


def make_stale(recorder: HistoryRecorder) -> None:
    """Give the last answered read the output of one as far back as the middle, if there is one with another output."""
    inputs = {(each.client, each.operation): each.input for each in recorder.events if each.type == "invoke"}
    reads = []
    for number, event in enumerate(recorder.events):
        asked = inputs[event.client, event.operation]
        if event.type == "ok" and event.output is not None and asked[0] in ("read", "get"):
            reads.append((number, event, asked))
    number, last, asked = reads[-1]
    for _, early, its_asked in reads[len(reads) // 2 :]:
        if its_asked == asked and early.output != last.output:
            recorder.events[number] = attrs.evolve(last, output=early.output)
            return


if __name__ == "__main__":
    main()
