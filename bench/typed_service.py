"""What methods cost: a typed key-value service beside ``examples/kv.py``, which has its bytes written by hand.

    python -m bench.typed_service [--seconds SECONDS]

Three things are measured. *Bytes*: a client makes the bytes of a put, a node decodes and applies it, and encodes the
result. *Calls*: a program awaits a put of the client of the service, with all of the above and a Deferred that fires
later. Neither has a network, a log or a disk. *Cluster*: the same on three nodes with all of these, which are in this
process, as the client is. The two services take turns, since a machine is not equally fast all the time; what is
compared is the processor time of a turn and that of the turn beside it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, cast

import click
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from txpaxos import (
    Client,
    Cluster,
    PaxosProtocol,
    PaxosService,
    Reading,
    Service,
    application_of,
    command,
    query,
    state,
)
from txpaxos.cli.local_cluster import free_members
from txpaxos.node.sessions import decode_result, encode_result
from txpaxos.service.calls import encoder_of
from txpaxos.service.definition import definition_of
from txpaxos.service.remote import remote_service

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import kv

COMMANDS = 2000
"""How many commands a turn has."""

CALLERS = 50
"""How many puts are under way at a time on a cluster."""

VALUE = bytes(100)
KEYS = [f"key {number}" for number in range(100)]


class KeyValue(Service):
    """The store of ``examples/kv.py``, as methods, without its watchers."""

    items: dict[str, tuple[bytes, int]] = state(dict)
    revision: int = state(int)

    @command
    def put(self, key: str, value: bytes) -> int:
        """Set a key. The new revision."""
        return self._change(key, value)

    @command
    def delete(self, key: str) -> bool:
        """Remove a key. Whether it was there."""
        return key in self.items and bool(self._change(key, None))

    @command
    def compare_and_set(self, key: str, old: bytes | None, new: bytes) -> bool:
        """Set a key if its value is ``old``. Whether it was."""
        present, _ = self.items.get(key, (None, 0))
        return present == old and bool(self._change(key, new))

    @query
    def get(self, key: str) -> tuple[bytes, int] | None:
        """The value of a key, and its revision."""
        return self.items.get(key)

    def _change(self, key: str, value: bytes | None) -> int:
        self.revision += 1
        if value is None:
            del self.items[key]
        else:
            self.items[key] = value, self.revision
        return self.revision


class PlainKeyValue(kv.KeyValue):
    """The store of ``examples/kv.py``, without its watchers, as is fair."""

    def _change(self, key: str, value: bytes | None) -> int:
        self.revision += 1
        if value is None:
            del self.items[key]
        else:
            self.items[key] = value, self.revision
        return self.revision


class Loopback:
    """A client and a node without anything between them. As with a network, the answer comes later."""

    def __init__(self, application: PaxosProtocol) -> None:
        self._apply = application.apply
        self._waiting: list[tuple[bytes, Deferred[Any]]] = []

    def submit(self, command: bytes, deadline_seconds: float | None = None) -> Deferred[Any]:
        """Have a command applied."""
        answer: Deferred[Any] = Deferred()
        self._waiting.append((command, answer))
        return answer

    def apply(self) -> None:
        """Apply the command that waits, and give its result to its caller."""
        command, answer = self._waiting.pop()
        answer.callback(decode_result(encode_result(self._apply(1, command))))

    def read(
        self, query: bytes, consistency: str = "local", deadline_seconds: float | None = None
    ) -> Deferred[Reading]:
        """Nothing is read here."""
        raise AssertionError(query)


Put = Callable[[str, bytes], Awaitable[int]]


def bytes_turn(encode: Callable[[str, bytes], bytes], apply: Callable[[int, bytes], Any]) -> float:
    """Processor time of a turn, in seconds: of making, applying and answering commands."""
    begun = time.process_time()
    for key in keys_of_turn():
        encode_result(apply(1, encode(key, VALUE)))
    return time.process_time() - begun


def calls_turn(loopback: Loopback, put: Put) -> float:
    """Processor time of a turn, in seconds: of calls."""

    async def puts() -> None:
        for key in keys_of_turn():
            await put(key, VALUE)

    begun = time.process_time()
    done = Deferred.fromCoroutine(puts())
    while not done.called:
        loopback.apply()
    return time.process_time() - begun


async def cluster_turn(put: Put) -> float:
    """Processor time of a turn on a cluster, in seconds: of nodes and client together."""

    async def puts(keys: list[str]) -> None:
        for key in keys:
            await put(key, VALUE)

    keys, begun = keys_of_turn(), time.process_time()
    await gatherResults([Deferred.fromCoroutine(puts(keys[at::CALLERS])) for at in range(CALLERS)])
    return time.process_time() - begun


async def start_cluster(reactor: Any, folder: Path, application: type[PaxosProtocol]) -> Client:
    """Start three nodes, and make a client of them. They end with the reactor."""
    folder.mkdir()
    cluster = Cluster(folder.name, dict(zip("abc", free_members(3), strict=True)))
    services = [PaxosService(application, node, cluster, folder / node, reactor=reactor) for node in "abc"]
    for service in services:
        service.startService()
    for service in services:
        await service.ready()
    return Client(reactor, cluster)


async def compare_clusters(reactor: Any, seconds: float) -> None:
    """Let the two take turns on clusters of their own, and print what a command costs in each."""
    with TemporaryDirectory() as folder:
        by_hand = kv.Store(await start_cluster(reactor, Path(folder, "hand"), PlainKeyValue))
        client = await start_cluster(reactor, Path(folder, "typed"), application_of(KeyValue))
        sides: tuple[Put, Put] = by_hand.put, client.service(KeyValue, deadline_seconds=10.0).put
        pairs: list[tuple[float, float]] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            order = (0, 1) if len(pairs) % 2 else (1, 0)
            turns = {side: await cluster_turn(sides[side]) for side in order}
            pairs.append((turns[0], turns[1]))
        print_pairs("cluster", pairs)
        client.close()


def keys_of_turn() -> list[str]:
    """The keys that are put in a turn."""
    return KEYS * (COMMANDS // len(KEYS))


def print_comparison(what: str, seconds: float, by_hand: Callable[[], float], typed: Callable[[], float]) -> None:
    """Let the two take turns, and print what a command costs in each, and the ratio."""
    pairs: list[tuple[float, float]] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if len(pairs) % 2:
            one, two = by_hand(), typed()
        else:
            two, one = typed(), by_hand()
        pairs.append((one, two))
    print_pairs(what, pairs)


def print_pairs(what: str, pairs: list[tuple[float, float]]) -> None:
    """Print the medians of turns by hand and typed, and that of their ratios."""
    one, two = (median(times) / COMMANDS * 1e6 for times in zip(*pairs, strict=True))
    ratio = median(two / one for one, two in pairs)
    print(f"{what}: by hand {one:.2f} us, typed {two:.2f} us a command; ratio {ratio:.3f} ({len(pairs)} turns each)")


@click.command()
@click.option("--seconds", default=10.0, show_default=True, help="How long to measure each.")
def main(seconds: float) -> None:
    """Print the processor time of a put, by hand and typed, and the ratio."""
    encode = encoder_of(definition_of(KeyValue).commands["put"].call)
    by_hand, typed = PlainKeyValue().apply, application_of(KeyValue)().apply
    print_comparison(
        "bytes",
        seconds,
        lambda: bytes_turn(lambda key, value: kv.encode(kv.Put(key, value)), by_hand),
        lambda: bytes_turn(encode, typed),
    )
    ours, others = Loopback(application_of(KeyValue)()), Loopback(PlainKeyValue())
    put_by_hand: Put = kv.Store(cast("Client", others)).put
    put_typed: Put = remote_service(ours, KeyValue, deadline_seconds=10.0).put
    print_comparison("calls", seconds, lambda: calls_turn(others, put_by_hand), lambda: calls_turn(ours, put_typed))
    react(lambda reactor: Deferred.fromCoroutine(compare_clusters(reactor, seconds)))


if __name__ == "__main__":
    main()
