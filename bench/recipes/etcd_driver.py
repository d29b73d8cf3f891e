"""Drives etcd over gRPC: locks through its concurrency API, puts, and transactions.

    python -m bench.recipes.etcd_driver ADDRESS WORKLOAD WORKERS SECONDS

The messages are written by hand, field by field, since only a few are needed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import grpc.aio

from bench.etcd import varint
from bench.recipes.loop import Operation, told, window, work

LEASE_SECONDS = 600
VALUE = b"v" * 100


def bytes_field(number: int, value: bytes) -> bytes:
    """A field of bytes, of a string, or of a message."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def number_field(number: int, value: int) -> bytes:
    """A field with a whole number."""
    return varint(number << 3) + varint(value)


def fields_of(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message, in their order. All that etcd answers here are numbers and bytes."""
    position = 0

    def number() -> int:
        nonlocal position
        value, shift = 0, 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value
            shift += 7

    while position < len(message):
        key = number()
        value: Any = number()
        if key & 7 == 2:
            position, value = position + value, message[position : position + value]
        yield key >> 3, value


def field(message: bytes, wanted: int, default: Any) -> Any:
    """One field of a message."""
    return next((value for number, value in fields_of(message) if number == wanted), default)


class Etcd:
    """Calls of etcd."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._lock = channel.unary_unary("/v3lockpb.Lock/Lock")
        self._unlock = channel.unary_unary("/v3lockpb.Lock/Unlock")
        self._grant = channel.unary_unary("/etcdserverpb.Lease/LeaseGrant")
        self._put = channel.unary_unary("/etcdserverpb.KV/Put")
        self._txn = channel.unary_unary("/etcdserverpb.KV/Txn")

    async def locking(self, name: bytes) -> Operation:
        """Take and release a lock, with a lease of the worker's own."""
        lease = field(await self._grant(number_field(1, LEASE_SECONDS)), 2, 0)
        request = bytes_field(1, name) + number_field(2, lease)

        async def operation() -> None:
            key = field(await self._lock(request), 2, b"")
            await self._unlock(bytes_field(1, key))

        return operation

    async def putting(self, key: bytes) -> Operation:
        """Put a value."""
        request = bytes_field(1, key) + bytes_field(2, VALUE)

        async def operation() -> None:
            await self._put(request)

        return operation

    async def guarded(self, key: bytes) -> Operation:
        """Put a value if the key was not changed since this worker's last put."""
        put = bytes_field(1, key) + bytes_field(2, VALUE)
        then = bytes_field(2, bytes_field(2, put))
        revision = field(field(await self._put(put), 1, b""), 3, 0)

        async def operation() -> None:
            nonlocal revision
            # A comparison: EQUAL (0), target MOD (2), the key, and the revision.
            compare = number_field(2, 2) + bytes_field(3, key) + number_field(6, revision)
            answer = await self._txn(bytes_field(1, compare) + then)
            if not field(answer, 2, 0):
                raise SystemExit(f"etcd refused a transaction on {key!r}")
            revision = field(field(answer, 1, b""), 3, 0)

        return operation


async def main(address: str, workload: str, workers: str, seconds: str) -> None:
    """Run a workload, and print its figures."""
    async with grpc.aio.insecure_channel(address) as channel:
        etcd = Etcd(channel)
        operations = [await operation_of(etcd, workload, f"{number}".encode()) for number in range(int(workers))]
        counted = window(1.0, float(seconds))
        taken: list[float] = []
        await asyncio.gather(*(work(operation, counted, taken) for operation in operations))
    print(told(taken, counted))


async def operation_of(etcd: Etcd, workload: str, own: bytes) -> Operation:
    """The operation of a worker."""
    match workload:
        case "lock":
            return await etcd.locking(b"lock-" + own)
        case "contended lock":
            return await etcd.locking(b"one-lock")
        case "map put":
            return await etcd.putting(b"key-" + own)
        case "map transaction":
            return await etcd.guarded(b"guarded-" + own)
    raise SystemExit(f"etcd has no {workload}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
