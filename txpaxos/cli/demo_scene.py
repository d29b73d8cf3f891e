"""What both acts of ``txpaxos demo`` share: nodes, clients that count, and the comparison at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from txpaxos.cli.history import AcknowledgedIncrement, complaints
from txpaxos.cli.local_cluster import LocalCluster
from txpaxos.cli.printing import table
from txpaxos.cli.running import CommandError, request
from txpaxos.client import Client

STEP_SECONDS_MAX = 15.0
"""The limit on the time of a step, but for the counting."""


class Scene:
    """The nodes of the demo, and all that was counted.

    :param nodes: the nodes.
    :ivar acknowledged: the increments that were acknowledged.
    """

    def __init__(self, reactor: Any, nodes: LocalCluster) -> None:
        self.reactor = reactor
        self.nodes = nodes
        self.acknowledged: list[AcknowledgedIncrement] = []
        self._began_at = reactor.seconds()

    def say(self, text: str) -> None:
        """Print a line, with the time since the beginning."""
        seconds = click.style(f"{self.reactor.seconds() - self._began_at:6.2f} s", dim=True)
        click.echo(f"{seconds}  {text}")

    async def increment(self, client: Client, amount: int) -> AcknowledgedIncrement:
        """Send one increment, and note its result."""
        sent_at = self.reactor.seconds()
        total = await client.submit(b"+%d" % amount)
        one = AcknowledgedIncrement(amount, total, sent_at, self.reactor.seconds())
        self.acknowledged.append(one)
        return one

    async def compare(self, amounts: Sequence[int], remarks: Mapping[str, str]) -> None:
        """Print and compare the totals of the nodes. The result of ``+0`` is the total of the node that was asked.

        :param amounts: all increments that were sent.
        :param remarks: what is to be said of a node, for some of them.
        :raises CommandError: if an increment was lost or counted twice, or the totals differ.
        """
        nodes, totals = self.nodes, {}
        for node in nodes.cluster.members:
            totals[node] = await request(
                self.reactor, nodes.cluster, STEP_SECONDS_MAX, lambda client: client.submit(b"+0"), [node]
            )
        statuses = await nodes.wait_until(nodes.is_level, "the last slot everywhere", STEP_SECONDS_MAX)
        rows = []
        for node, status in statuses.items():
            assert status is not None
            rows.append((node, status["role"], status["applied_through"], totals[node], remarks.get(node, "")))
        rows.sort()
        click.echo(f"\n{table(('node', 'role', 'slots applied', 'total', ''), rows)}\n")
        found = complaints(amounts, self.acknowledged, totals)
        if found:
            raise CommandError("; ".join(found))
        line = f"All three are equal: 1 + 2 + ... + {amounts[-1]} = {totals[rows[0][0]]}."
        click.secho(line, fg="green", bold=True)
        click.echo("Every increment was acknowledged; none was lost, none was counted twice.")
