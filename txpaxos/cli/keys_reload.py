"""``txpaxos keys reload``: have nodes that run read their keys, and the rights of clients, again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import attrs
import click

from txpaxos.cli.options import cluster_option, keys_option, node_option, timeout_option
from txpaxos.cli.printing import DIGITS
from txpaxos.cli.running import CommandError, Seeds, request, run
from txpaxos.cli.status import cluster_of
from txpaxos.cluster import Cluster
from txpaxos.errors import PaxosError
from txpaxos.log_lines import printable


@attrs.frozen
class Reloaded:
    """What a node has answered.

    :ivar used: what it uses now; ``None`` if it did not answer, or refused.
    :ivar error: why, in one line; empty if there is ``used``.
    """

    used: dict[str, Any] | None
    error: str = ""


@click.command("reload", short_help="Have nodes that run read their keys and [rights] again.")
@click.argument("nodes", metavar="[NODE]...", nargs=-1)
@node_option
@cluster_option
@keys_option
@timeout_option(5.0, "How long each node may take to answer; they are asked one after the other.")
@click.option("--json", "wants_json", is_flag=True, help="What each node uses now, as JSON.")
def command(nodes: Sequence[str], cluster: Cluster | Seeds, timeout_seconds: float, wants_json: bool) -> None:
    """Have each NODE, or all members, read their folders of keys again, and [rights] in their cluster files.

    Nodes go on meanwhile: no command fails, and the leader stays. A node that cannot use what is there says why, and
    goes on with what it had. Bring the new folders and files to the machines before. SIGHUP does the same for one node.
    Your keys need the rights `members` and `status`.

    \b
    txpaxos keys reload
    txpaxos keys reload a b

    Exits with 0 if each node uses what is there now, with 1 if not.
    """
    answers = run(lambda reactor: ask_all(reactor, cluster, nodes, timeout_seconds))
    if wants_json:
        told = {node: one.used or {"node": node, "error": one.error} for node, one in answers.items()}
        click.echo(json.dumps({"nodes": told}, indent=2))
    else:
        for node, one in answers.items():
            click.echo(f"{printable(node)}: {as_line(one)}")
    raise SystemExit(int(any(one.error for one in answers.values())))


async def ask_all(
    reactor: Any, cluster: Cluster | Seeds, nodes: Sequence[str], timeout_seconds: float
) -> dict[str, Reloaded]:
    """Have ``nodes``, by default all members, reload, one after the other. One that fails does not keep the others from
    it.

    :raises CommandError: if one of ``nodes`` is no member.
    :raises PaxosError: if no node tells who the members are.
    """
    report = await request(reactor, cluster, timeout_seconds, lambda client: client.members())
    told = cluster_of(report)
    if isinstance(cluster, Cluster):  # Its file may have addresses that are better from here.
        told = attrs.evolve(told, members={node: cluster.members.get(node, one) for node, one in told.members.items()})
    for node in nodes:
        if node not in told.members:
            raise CommandError(f"there is no member {printable(node)}: there are {', '.join(told.members)}")
    answers = {}
    for node in dict.fromkeys(nodes) or told.members:
        try:
            used = await request(reactor, told, timeout_seconds, lambda client: client.reload_keys(), [node])
            answers[node] = Reloaded(used)
        except PaxosError as error:
            answers[node] = Reloaded(None, " ".join(str(error).split()))
    return answers


def as_line(answer: Reloaded) -> str:
    """What a node has answered, in a few words."""
    used = answer.used
    if used is None:
        return answer.error
    rights = "[rights] read again" if used["rights"] == "read" else "rights kept: it has no cluster file"
    return f"certificate {used['fingerprint'][:DIGITS]}, valid until {used['expires'][:10]}; {rights}"
