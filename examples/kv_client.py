"""Asks the key-value store of kv.py, and prints the answer.

    python examples/kv_client.py cluster.toml put KEY VALUE
    python examples/kv_client.py cluster.toml get KEY
    python examples/kv_client.py cluster.toml delete KEY
    python examples/kv_client.py cluster.toml cas KEY OLD NEW
    python examples/kv_client.py cluster.toml watch KEY          (until its next change)

Ends with status 1 if there is no such key, or its value is not OLD.
"""

from __future__ import annotations

import sys
from typing import Any

from kv import Store
from twisted.internet.task import react

from txpaxos import Client, Cluster, PaxosError


async def answer(store: Store, arguments: list[str]) -> str | None:
    """What to print, or nothing if it is not so."""
    match arguments:
        case ["put", key, value]:
            return f"revision {await store.put(key, value.encode())}"
        case ["get", key]:
            found = await store.get(key)
            return None if found is None else found.decode(errors="replace")
        case ["delete", key]:
            return "deleted" if await store.delete(key) else None
        case ["cas", key, old, new]:
            return "set" if await store.compare_and_set(key, old.encode(), new.encode()) else None
        case ["watch", key]:
            item = (await store.item(key)) or (b"", 0)
            changed = await store.watch(key, item[1])
            return "deleted" if changed is None else changed[0].decode(errors="replace")
    raise SystemExit(__doc__)


async def main(reactor: Any, file: str, *arguments: str) -> None:
    try:
        client = Client(reactor, Cluster.load(file).resolve())
        line = await answer(Store(client), list(arguments))
    except PaxosError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    client.close()
    if line is None:
        raise SystemExit("no: it is not there, or is something else")
    print(line)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    react(main, sys.argv[1:])
