"""One node of PySyncObj with a dictionary, that puts to itself, in its own process, when asked to.

    python -m bench.pysyncobj_node --address 127.0.0.1:4001 --partners 127.0.0.1:4002,127.0.0.1:4003 --journal FILE

It takes questions on its standard input (see :mod:`bench.asking`), and ends when that does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

import attrs
import click
import msgspec
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated

from bench.asking import Question, answer
from bench.figures import latencies_of
from bench.loop import KEYS_MAX, SETTLE_SECONDS_MAX, Loaded
from bench.system import Load


class KeyValue(SyncObj):  # type: ignore[misc]
    """The same as examples/kv.py does for a put."""

    def __init__(self, address: str, partners: list[str], settings: SyncObjConf) -> None:
        super().__init__(address, partners, settings)
        self._items: dict[str, tuple[bytes, int]] = {}
        self._revision = 0

    @replicated  # type: ignore[untyped-decorator]
    def put(self, key: str, value: bytes) -> int:
        """Set a key. Its revision."""
        self._revision += 1
        self._items[key] = value, self._revision
        return self._revision


class Loop:
    """A closed loop. All but :meth:`run` happens in the thread of PySyncObj."""

    def __init__(self, store: KeyValue, load: Load) -> None:
        rng = Random(1)
        self._puts = [(f"key {key}", rng.randbytes(load.value_bytes)) for key in range(KEYS_MAX)]
        self._store = store
        self._load = load
        self._sent = self._under_way = self._answered_total = 0
        self._latencies: list[float] = []
        self._last = self._longest_gap = 0.0
        self._problem = ""
        self._done = Event()

    def run(self) -> Loaded:
        """Put for as long as the load says, and wait for the last answer.

        :raises RuntimeError: if a put failed, or an answer has not come in time.
        """
        load = self._load
        cpu_began = time.process_time()
        self._opens = self._last = time.perf_counter() + load.warm_up_seconds
        self._closes = self._opens + load.seconds
        self._under_way = load.outstanding
        for _ in range(load.outstanding):
            self._submit(time.perf_counter())
        if not self._done.wait(load.warm_up_seconds + load.seconds + SETTLE_SECONDS_MAX):
            raise RuntimeError(f"PySyncObj: {self._under_way} puts were not answered")
        if self._problem:
            raise RuntimeError(self._problem)
        return Loaded(
            [len(self._latencies)],
            self._answered_total,
            load.seconds,
            time.process_time() - cpu_began,
            self._longest_gap,
            latencies_of(self._latencies),
        )

    def _submit(self, began: float) -> None:
        key, value = self._puts[self._sent % len(self._puts)]
        self._sent += 1
        self._store.put(key, value, callback=lambda _, reason: self._answered(began, reason))

    def _answered(self, began: float, reason: int) -> None:
        now = time.perf_counter()
        if reason != FAIL_REASON.SUCCESS:
            self._problem = f"PySyncObj: a put failed with reason {reason}"
            self._done.set()
            return
        self._answered_total += 1
        if self._opens <= now < self._closes:
            self._latencies.append(now - began)
            self._longest_gap = max(self._longest_gap, now - self._last)
            self._last = now
        if now < self._closes:
            self._submit(now)
            return
        self._under_way -= 1
        if self._under_way == 0:
            self._done.set()


def respond(store: KeyValue, question: Question) -> Any:
    """The answer to a question; a string if something went wrong."""
    if question.about == "put" and question.load is not None:
        try:
            return attrs.asdict(Loop(store, question.load).run())
        except RuntimeError as error:
            return str(error)
    return {"leads": bool(store._isLeader()), "ready": bool(store.isReady())}


@click.command()
@click.option("--address", required=True)
@click.option("--partners", required=True)
@click.option("--journal", required=True, type=click.Path(path_type=Path))
@click.option("--settings", default="{}", help="More of SyncObjConf, as JSON.")
def main(address: str, partners: str, journal: Path, settings: str) -> None:
    """See the top of this file."""
    configured = SyncObjConf(journalFile=str(journal), **json.loads(settings))
    store = KeyValue(address, partners.split(","), configured)
    for line in sys.stdin.buffer:
        question = msgspec.json.decode(line, type=Question)
        answer(respond(store, question), question)
    os._exit(0)  # Its thread would go on.


if __name__ == "__main__":
    main()
