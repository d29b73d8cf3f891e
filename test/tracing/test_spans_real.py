"""Three nodes and a client, each with a tracer: one trace has the whole way of a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from test.helpers.spans import Spans
from test.server.test_served_node import SECONDS, answered, cluster_of
from txpaxos import Client, ServedNode
from txpaxos.counter import Counter


async def test_one_trace_has_the_whole_way(tmp_path: Path) -> None:
    spans = Spans()
    cluster = cluster_of("abc")
    served = [ServedNode(Counter, node, cluster, tmp_path / node, tracer=spans.tracer) for node in "abc"]
    for one in served:
        one.start()
    for one in served:
        await answered(one.ready())
    client = Client(reactor, cluster, tracer=spans.tracer)
    assert await client.submit(b"+1", deadline_seconds=SECONDS) == 1  # It goes to the leader from now on.
    orders = [spans.root(f"order {number}") for number in range(5)]
    commands = [client.submit(b"+1", SECONDS, parent=order) for order in orders]
    assert await answered(gatherResults(commands)) == [2, 3, 4, 5, 6]
    for one in served:
        await answered(one.stop())
    client.close()
    for order in orders:
        (way,) = spans.tree(order)["txpaxos submit"].values()
        steps = [name.removeprefix("txpaxos ") for name in way]
        saves = [step for step in steps if step.startswith("save ")]
        assert [step for step in steps if step not in saves] == ["queue", "choose", "apply"]
        assert len(saves) >= 2  # A majority has saved. Others may be late.
    check_attributes(spans)


def check_attributes(spans: Spans) -> None:
    for span in spans.named("txpaxos command"):
        attributes: Any = span.attributes
        assert attributes["txpaxos.slot"] > 0
        assert attributes["txpaxos.ballot"].endswith(attributes["txpaxos.node"])


async def test_a_node_that_does_not_lead_has_spans_of_what_it_sees(tmp_path: Path) -> None:
    spans = Spans()
    cluster = cluster_of("abc")
    served = {node: ServedNode(Counter, node, cluster, tmp_path / node, tracer=spans.tracer) for node in "abc"}
    for one in served.values():
        one.start()
    for one in served.values():
        await answered(one.ready())
    follower = next(node for node, one in served.items() if not one.leads())
    client = Client(reactor, cluster, [follower], tracer=spans.tracer)
    order = spans.root()
    assert await answered(client.submit(b"+1", SECONDS, parent=order)) == 1
    for one in served.values():
        await answered(one.stop())
    client.close()
    (command,) = spans.named("txpaxos command")
    attributes: Any = command.attributes
    assert attributes["txpaxos.node"] == follower
    assert attributes["txpaxos.slot"] > 0
    (way,) = spans.tree(order)["txpaxos submit"].values()
    assert [*way][-2:] == ["txpaxos choose", "txpaxos apply"]
