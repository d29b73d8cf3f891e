"""The client process of a benchmark: puts to a cluster that runs examples/kv.py, and tells how long each one took.

    python -m bench.load --cluster cluster.toml --outstanding 64

Prints JSON. Other modules here start it; it is a process of its own, so that the nodes need not share theirs with it.
"""

from __future__ import annotations

import json
import time
from array import array
from pathlib import Path
from random import Random
from typing import Any

import attrs
import click
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from bench.figures import Latencies, latencies_of
from txpaxos.cli.running import CommandError, run
from txpaxos.client import Client
from txpaxos.cluster import Cluster

KEYS_MAX = 5000
KEYS_BYTES_MAX = 2**26
"""All values together: a bigger value has fewer keys."""

TURN_SECONDS = 0.001
"""An open loop sends what is due so often."""

SETTLE_SECONDS_MAX = 30.0


@attrs.frozen
class Loaded:
    """What the client saw.

    :ivar operations: answered in the window of ``seconds``.
    :ivar operations_total: answered in all, warm-up included.
    :ivar cpu_seconds: of this process, while it put.
    """

    operations: int
    operations_total: int
    seconds: float
    cpu_seconds: float
    latencies: Latencies


class Loop:
    """Keeps puts under way.

    :param clients: each has a connection.
    :param outstanding: how many puts are under way: always, or without ``rate``, never more.
    """

    def __init__(
        self, reactor: Any, clients: list[Client], commands: list[bytes], outstanding: int, rate: float | None
    ) -> None:
        self.answered = 0
        self._reactor = reactor
        self._clients = clients
        self._commands = commands
        self._outstanding = outstanding
        self._rate = rate
        self._next = 0
        self._under_way = 0
        self._window = (0.0, 0.0)
        self._latencies = array("d")
        self._done: Deferred[None] = Deferred()

    async def put(self, warm_up_seconds: float, seconds: float) -> Loaded:
        """Put for as long, and wait for the last answer.

        :raises CommandError: if one has not come in time.
        :raises PaxosError: if a put failed.
        """
        cpu_began, began = time.process_time(), time.perf_counter()
        self._window = began + warm_up_seconds, began + warm_up_seconds + seconds
        if self._rate is None:
            for number in range(self._outstanding):
                self._submit(self._clients[number % len(self._clients)], time.perf_counter())
        else:
            turns = LoopingCall(self._send_due, began, self._rate)
            turns.start(TURN_SECONDS).addErrback(self._failed)
        timeout = self._reactor.callLater(warm_up_seconds + seconds + SETTLE_SECONDS_MAX, self._too_late)
        await self._done
        timeout.cancel()
        cpu_seconds = time.process_time() - cpu_began
        latencies = latencies_of(self._latencies)
        return Loaded(len(self._latencies), self.answered, seconds, cpu_seconds, latencies)

    def _submit(self, client: Client, began: float) -> None:
        command = self._commands[self._next % len(self._commands)]
        self._next += 1
        self._under_way += 1
        client.submit(command).addCallbacks(self._put, self._failed, (client, began))

    def _put(self, _: object, client: Client, began: float) -> None:
        now = time.perf_counter()
        self.answered += 1
        self._under_way -= 1
        opened, closed = self._window
        if opened <= now < closed:
            self._latencies.append(now - began)
        if self._rate is None and now < closed:
            self._submit(client, now)
        elif self._under_way == 0 and now >= closed and not self._done.called:
            self._done.callback(None)

    def _send_due(self, began: float, rate: float) -> None:
        """Send what should have been by now. Its time counts from when it should have been."""
        now = time.perf_counter()
        due = int((min(now, self._window[1]) - began) * rate)
        while self._next < due and self._under_way < self._outstanding:
            self._submit(self._clients[self._next % len(self._clients)], began + self._next / rate)

    def _failed(self, failure: Any) -> None:
        if not self._done.called:
            self._done.errback(failure)

    def _too_late(self) -> None:
        if not self._done.called:
            self._done.errback(CommandError(f"{self._under_way} puts were not answered"))


def commands_for(value_bytes: int, rng: Random) -> list[bytes]:
    """Puts of all keys, in the order in which they are sent again and again."""
    count = max(1, min(KEYS_MAX, KEYS_BYTES_MAX // value_bytes))
    return [msgspec.msgpack.encode(["put", f"key {key}", rng.randbytes(value_bytes)]) for key in range(count)]


@click.command()
@click.option("--cluster", "cluster_file", type=click.Path(path_type=Path), required=True)
@click.option("--outstanding", default=1, show_default=True)
@click.option("--connections", default=16, show_default=True)
@click.option("--rate", type=float, help="Puts per second, whether answered or not.")
@click.option("--seconds", default=5.0, show_default=True)
@click.option("--warm-up-seconds", default=1.0, show_default=True)
@click.option("--value-bytes", default=100, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(
    cluster_file: Path,
    outstanding: int,
    connections: int,
    rate: float | None,
    seconds: float,
    warm_up_seconds: float,
    value_bytes: int,
    seed: int,
) -> None:
    """See the top of this file."""

    async def work(reactor: Any) -> Loaded:
        cluster = Cluster.load(str(cluster_file))
        clients = [Client(reactor, cluster) for _ in range(connections)]
        try:
            for client in clients:  # Connected, and with a session, before the clock starts.
                await client.submit(msgspec.msgpack.encode(["put", "warm", b""])).addTimeout(
                    SETTLE_SECONDS_MAX, reactor
                )
            loop = Loop(reactor, clients, commands_for(value_bytes, Random(seed)), outstanding, rate)
            return await loop.put(warm_up_seconds, seconds)
        finally:
            for client in clients:
                client.close()

    click.echo(json.dumps(attrs.asdict(run(work))))


if __name__ == "__main__":
    main()
