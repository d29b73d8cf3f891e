"""Keeps puts under way, in a closed loop or an open one, and records how long each took."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from bench.figures import Latencies, latencies_of
from bench.system import Load
from txpaxos.cli.running import CommandError

KEYS_MAX = 5000
KEYS_BYTES_MAX = 2**22
"""All values together: a bigger value has fewer keys. What is measured is the log, not snapshots of a big state."""

TURN_SECONDS = 0.001
"""How often an open loop sends the operations that are due."""

SETTLE_SECONDS_MAX = 30.0
LATENCIES_MAX = 2_000_000
"""Beyond that, only some are recorded."""

Submit = Callable[[bytes], "Deferred[Any]"]


@attrs.frozen
class Loaded:
    """What the client saw.

    :ivar answered: in each second of the measured window.
    :ivar answered_total: in all, before and after it, too.
    :ivar cpu_seconds: of this process, while it put.
    :ivar longest_gap_seconds: between two answers that came one after the other, in the window.
    """

    answered: list[int]
    answered_total: int
    seconds: float
    cpu_seconds: float
    longest_gap_seconds: float
    latencies: Latencies


class Loop:
    """One run.

    :param submits: each is a connection's; they take turns.
    :param commands: sent in this order, again and again.
    """

    def __init__(self, reactor: Any, submits: Sequence[Submit], commands: Sequence[bytes], load: Load) -> None:
        self._reactor = reactor
        self._submits = submits
        self._commands = commands
        self._load = load
        self._sent = 0
        self._under_way = 0
        self._answered_total = 0
        self._answered = [0] * max(1, round(load.seconds))
        self._last = self._longest_gap = 0.0
        self._latencies = array("d")
        self._record_every = 1
        self._done: Deferred[None] = Deferred()

    async def run(self) -> Loaded:
        """Put for as long as the load says, and wait for the last answer.

        :raises CommandError: if one has not come in time.
        :raises PaxosError: if a put failed.
        """
        load = self._load
        cpu_began, began = time.process_time(), time.perf_counter()
        self._opens = self._last = began + load.warm_up_seconds
        self._closes = self._opens + load.seconds
        turns = LoopingCall(self._send_due, began)
        if load.rate is None:
            for number in range(load.outstanding):
                self._submit(self._submits[number % len(self._submits)], time.perf_counter())
        else:
            turns.start(TURN_SECONDS).addErrback(self._failed)
        timeout = self._reactor.callLater(load.warm_up_seconds + load.seconds + SETTLE_SECONDS_MAX, self._too_late)
        try:
            await self._done
        finally:
            if turns.running:
                turns.stop()
            if timeout.active():
                timeout.cancel()
        cpu_seconds = time.process_time() - cpu_began
        latencies = latencies_of(self._latencies)
        return Loaded(self._answered, self._answered_total, load.seconds, cpu_seconds, self._longest_gap, latencies)

    def _submit(self, submit: Submit, began: float) -> None:
        command = self._commands[self._sent % len(self._commands)]
        self._sent += 1
        self._under_way += 1
        submit(command).addCallbacks(self._put, self._failed, (submit, began))

    def _put(self, _: object, submit: Submit, began: float) -> None:
        now = time.perf_counter()
        self._under_way -= 1
        self._answered_total += 1
        if now < self._closes:
            if now >= self._opens:
                self._record(now, now - began)
            if self._load.rate is None:
                self._submit(submit, now)
        elif self._under_way == 0 and not self._done.called:
            self._done.callback(None)

    def _record(self, now: float, seconds: float) -> None:
        self._answered[min(int(now - self._opens), len(self._answered) - 1)] += 1
        if now - self._last > self._longest_gap:
            self._longest_gap = now - self._last
        self._last = now
        if self._answered_total % self._record_every == 0:
            self._latencies.append(seconds)
            if len(self._latencies) > LATENCIES_MAX:  # A long run: from now on every second of these.
                self._latencies = self._latencies[::2]
                self._record_every *= 2

    def _send_due(self, began: float) -> None:
        """Send what should have been by now. Its time counts from when it should have been."""
        assert self._load.rate is not None
        now = time.perf_counter()
        due = int((min(now, self._closes) - began) * self._load.rate)
        while self._sent < due and self._under_way < self._load.outstanding:
            self._submit(self._submits[self._sent % len(self._submits)], began + self._sent / self._load.rate)
        if now >= self._closes and self._under_way == 0 and not self._done.called:
            self._done.callback(None)

    def _failed(self, failure: Any) -> None:
        if not self._done.called:
            self._done.errback(failure)

    def _too_late(self) -> None:
        if not self._done.called:
            self._done.errback(CommandError(f"{self._under_way} puts were not answered"))


def commands_for(value_bytes: int, seed: int = 1) -> list[bytes]:
    """Puts of all keys, in the order in which they are sent again and again."""
    rng = Random(seed)
    count = max(1, min(KEYS_MAX, KEYS_BYTES_MAX // value_bytes))
    return [put_command(f"key {key}", rng.randbytes(value_bytes)) for key in range(count)]


def put_command(key: str, value: bytes) -> bytes:
    """A put, as examples/kv.py takes it."""
    return msgspec.msgpack.encode(["put", key, value])
