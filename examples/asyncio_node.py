"""A node of the replicated counter in a program that is written with asyncio.

    python examples/asyncio_node.py cluster.toml a +5 -2 +10

It starts node ``a`` of the cluster, waits until a leader is known, adds the numbers all at once, prints each total, and
stops. The node's data is in ``paxos-data-a``; run it again, and it continues from there. With three nodes in the
cluster file, run it for another one at the same time: no total is told before a majority has it on disk.
"""

from __future__ import annotations

import asyncio
import sys

from txpaxos import PaxosError, PaxosProtocol
from txpaxos.aio import Node

WAIT_SECONDS = 30.0


class Counter(PaxosProtocol):
    total = 0

    def apply(self, slot: int, command: bytes) -> int:
        self.total += int(command)
        return self.total


async def main(file: str, name: str, *numbers: str) -> None:
    async with Node(Counter, name, file, f"paxos-data-{name}") as node:
        async with asyncio.timeout(WAIT_SECONDS):
            await node.ready()

        async def add(number: str) -> None:
            print(f"{number} makes {await node.submit(number.encode(), deadline_seconds=WAIT_SECONDS)}")

        await asyncio.gather(*map(add, numbers))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except PaxosError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    except TimeoutError:
        raise SystemExit(f"no leader in {WAIT_SECONDS:g} s: do the other nodes run?") from None
