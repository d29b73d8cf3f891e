"""A replicated key-value store: get, put, delete, compare-and-set, watch. With snapshots, so its log stays short.

One node of it:  twistd -n paxos --app examples/kv.py:KeyValue
Its client:      python examples/kv_client.py cluster.toml put greeting hello
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from txpaxos import Client, PaxosProtocol

WATCH_SECONDS = 0.5
ITEMS_IN_A_CHUNK = 500

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode
Item = tuple[bytes, int]
"""A value and its revision: how many changes there had been when it was put."""


class Put(msgspec.Struct, tag="put", array_like=True):
    """Set a key: as MessagePack ``["put", key, value]``."""

    key: str
    value: bytes


class Delete(msgspec.Struct, tag="delete", array_like=True):
    """Remove a key: ``["delete", key]``."""

    key: str


class CompareAndSet(msgspec.Struct, tag="cas", array_like=True):
    """Set a key if its value is ``old``; nothing is the value of one that is not there: ``["cas", key, old, new]``."""

    key: str
    old: bytes | None
    new: bytes


decode_command = msgspec.msgpack.Decoder(Put | Delete | CompareAndSet).decode


class KeyValue(PaxosProtocol):
    """Commands: those above. Queries: ``["get", key]``, ``["watch", key, revision]``, as MessagePack."""

    def __init__(self) -> None:
        super().__init__()
        self.items: dict[str, Item] = {}
        self.revision = 0
        self._watchers: dict[str, list[Deferred[Item | None]]] = {}

    def apply(self, slot: int, command: bytes) -> Any:
        match decode_command(command):
            case Put(key, value):
                return self._change(key, value)
            case Delete(key):
                return key in self.items and bool(self._change(key, None))
            case CompareAndSet(key, old, new):
                present, _ = self.items.get(key, (None, 0))
                return present == old and bool(self._change(key, new))

    def query(self, query: bytes) -> Item | Deferred[Item | None] | None:
        match decode(query):
            case ["get", str(key)]:
                return self.items.get(key)
            case ["watch", str(key), int(revision)]:
                item = self.items.get(key)
                return item if (item[1] if item else 0) != revision else self._watch(key)
        raise ValueError("neither get nor watch")

    def snapshot(self) -> Iterable[bytes]:
        items, revision = list(self.items.items()), self.revision  # What changes from now on is not in it.
        starts = range(0, len(items) or 1, ITEMS_IN_A_CHUNK)
        return (encode((revision, items[start : start + ITEMS_IN_A_CHUNK])) for start in starts)

    def restore(self, chunks: Iterator[bytes]) -> None:
        self.items = {}
        for chunk in chunks:
            self.revision, items = decode(chunk, type=tuple[int, list[tuple[str, Item]]])
            self.items.update(items)

    def _change(self, key: str, value: bytes | None) -> int:
        self.revision += 1
        if value is None:
            del self.items[key]
        else:
            self.items[key] = value, self.revision
        for watcher in self._watchers.pop(key, ()):
            watcher.callback(self.items.get(key))
        return self.revision

    def _watch(self, key: str) -> Deferred[Item | None]:
        """Fires when the key changes, or after a while with what it is: who still wants to know asks again."""
        watcher: Deferred[Item | None] = Deferred()
        self._watchers.setdefault(key, []).append(watcher)

        def enough(failure: Any) -> Item | None:
            watchers = self._watchers.get(key, [])
            if watcher in watchers:
                watchers.remove(watcher)
            return self.items.get(key)

        return watcher.addTimeout(WATCH_SECONDS, self.clock).addErrback(enough)


# For the simulator:  txpaxos simulate --app examples/kv.py:KeyValue --workload examples/kv.py:some_command \
#                         --query examples/kv.py:some_query

KEYS = ("apple", "pear", "plum")


def some_command(rng: Random) -> bytes:
    """A command as a client might send it."""
    key, value = rng.choice(KEYS), rng.randbytes(rng.randrange(20))
    return encode(rng.choice([Put(key, value), Put(key, value), Delete(key), CompareAndSet(key, None, value)]))


def some_query(rng: Random) -> bytes:
    """A query as a client might send it."""
    return encode(["get", rng.choice(KEYS)])


class Store:
    """A client of it. Every method may raise what :class:`txpaxos.client.Client` does."""

    def __init__(self, client: Client, deadline_seconds: float = 10.0) -> None:
        self._client = client
        self._seconds = deadline_seconds

    async def put(self, key: str, value: bytes) -> int:
        """Set a key. Its revision."""
        revision: int = await self._submit(Put(key, value))
        return revision

    async def delete(self, key: str) -> bool:
        """Remove a key. Whether it was there."""
        return bool(await self._submit(Delete(key)))

    async def compare_and_set(self, key: str, old: bytes | None, new: bytes) -> bool:
        """Set a key if its value is ``old`` (``None``: if it is not there). Whether it was."""
        return bool(await self._submit(CompareAndSet(key, old, new)))

    async def get(self, key: str) -> bytes | None:
        """The value of a key, ``None`` if it is not there."""
        item = await self.item(key)
        return None if item is None else item[0]

    async def item(self, key: str) -> Item | None:
        """The value of a key, and its revision."""
        reading = await self._client.read(encode(["get", key]), deadline_seconds=self._seconds)
        return None if reading.result is None else tuple(reading.result)

    async def watch(self, key: str, revision: int) -> Item | None:
        """The value and revision of a key, once that is no longer ``revision`` (0: not there)."""
        while True:
            query = encode(["watch", key, revision])
            item = (await self._client.read(query, deadline_seconds=self._seconds)).result
            if (item[1] if item else 0) != revision:
                return item and (item[0], item[1])

    def _submit(self, command: Put | Delete | CompareAndSet) -> Deferred[Any]:
        return self._client.submit(encode(command), deadline_seconds=self._seconds)
