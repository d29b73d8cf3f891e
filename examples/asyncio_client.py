"""Adds numbers to the replicated counter, all at once, from a program that is written with asyncio.

    python examples/asyncio_client.py cluster.toml +5 -2 +10

The methods of ``txpaxos.aio.Client`` are coroutines: ``await`` them, ``gather`` them, make tasks of them. Ends with
status 1 and one line if a number is refused, or has no answer after ten seconds.
"""

from __future__ import annotations

import asyncio
import sys

from txpaxos import Cluster, PaxosError
from txpaxos.aio import Client


async def main(file: str, *numbers: str) -> None:
    async with Client(Cluster.load(file).resolve()) as client:

        async def add(number: str) -> None:
            print(f"{number} makes {await client.submit(number.encode(), deadline_seconds=10)}")

        await asyncio.gather(*map(add, numbers))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except PaxosError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
