"""Adds numbers to the replicated counter, one after the other, and prints each new total.

    python examples/counter_client.py cluster.toml +5 -2 +10

It finds a living node and the leader by itself, and sends again what gets no answer; a number that is sent twice counts
once. Ends with status 1 and one line if a number is refused, or has no answer after ten seconds.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.task import react

from txpaxos import Client, Cluster, PaxosError


async def main(reactor: Any, file: str, *numbers: str) -> None:
    try:
        client = Client(reactor, Cluster.load(file).resolve())
        for number in numbers:
            total = await client.submit(number.encode(), deadline_seconds=10)
            print(f"{number} makes {total}")
    except PaxosError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    client.close()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    react(main, sys.argv[1:])
