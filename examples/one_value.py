"""Three nodes, five people, one question: all ask at once, and all get the same answer.

    python examples/one_value.py

A *subject* is a name that is decided once. Every caller that asks offers a value, the first of the offers is decided,
and every later caller gets that one. The nodes run in this process, on free ports of
127.0.0.1, and save in a temporary folder that is removed at the end. Needs no arguments and ends by itself.
"""

from __future__ import annotations

import tempfile
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import react

from txpaxos.cli.local_cluster import free_members
from txpaxos.cluster import Cluster
from txpaxos.errors import PaxosError
from txpaxos.protocol import PaxosProtocol
from txpaxos.server.served_node import ServedNode

NODES = ("a", "b", "c")
SUBJECT = "where do we eat"
WISHES = {"Ann": "pizza", "Bob": "noodles", "Cay": "curry", "Dan": "tacos", "Eve": "soup"}


def start(reactor: Any, folder: str) -> dict[str, ServedNode]:
    """Three running nodes that know each other."""
    cluster = Cluster("dinner", dict(zip(NODES, free_members(len(NODES)), strict=True)))
    nodes = {}
    for node in NODES:
        nodes[node] = ServedNode(PaxosProtocol, node, cluster, f"{folder}/{node}", reactor=reactor)
        nodes[node].start()
    return nodes


def ask(nodes: dict[str, ServedNode], node: str, who: str, wish: str | None) -> Deferred[str]:
    """Ask at one node, and print what was asked and what the answer is."""
    offer = f"offers {wish}" if wish else "only asks"
    print(f"{who} asks node {node}: {SUBJECT}? ({offer})")

    def answered(value: bytes | None) -> str:
        answer = "nothing is decided" if value is None else value.decode()
        print(f"{who} is told by node {node}: {answer}")
        return answer

    service: PaxosProtocol = nodes[node].application
    return service.ask(SUBJECT, wish.encode() if wish else None).addCallback(answered)


async def dinner(nodes: dict[str, ServedNode]) -> None:
    """The questions."""
    await ask(nodes, "a", "Zoe", None)
    print("\nNow all at once:")
    asked = [ask(nodes, NODES[i % 3], who, wish) for i, (who, wish) in enumerate(WISHES.items())]
    answers = await gatherResults(asked)
    print("\nNode a stops; two of three are still a majority:")
    await nodes["a"].stop()
    answers += [await ask(nodes, "b", "Flo", "sushi"), await ask(nodes, "c", "Zoe", None)]
    if len(set(answers)) != 1:
        raise SystemExit(f"they were told different things: {answers}")
    print(f"\nAll {len(answers)} were told the same: {answers[0]}")


async def main(reactor: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            nodes = start(reactor, folder)
        except PaxosError as error:
            raise SystemExit(f"{error}; run it again") from None
        await ensureDeferred(dinner(nodes)).addTimeout(10, reactor)
        await gatherResults([node.stop() for node in nodes.values()])


if __name__ == "__main__":
    react(main)
