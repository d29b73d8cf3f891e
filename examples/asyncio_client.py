"""Adds numbers to the replicated counter, all at once, from a program that is written with asyncio.

    python examples/asyncio_client.py cluster.toml +5 -2 +10

Twisted runs on asyncio's own event loop, once its reactor for that is installed. A Deferred becomes a Future with
``asFuture``; from there on it is asyncio alone: ``await``, ``gather``, ``create_task``. Ends with status 1 and one line
if a number is refused, or has no answer after ten seconds.
"""

from __future__ import annotations

import asyncio
import sys

from twisted.internet import asyncioreactor

from txpaxos import Client, Cluster, PaxosError


async def main(file: str, *numbers: str) -> None:
    loop = asyncio.get_running_loop()
    asyncioreactor.install(loop)
    from twisted.internet import reactor  # which is the one just installed

    client = Client(reactor, Cluster.load(file).resolve())

    async def add(number: str) -> None:
        total = await client.submit(number.encode(), deadline_seconds=10).asFuture(loop)
        print(f"{number} makes {total}")

    try:
        await asyncio.gather(*map(add, numbers))
    finally:
        client.close()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except PaxosError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
