"""``txpaxos lead``: have a node lead."""

from __future__ import annotations

import json

import click

from txpaxos.cli.options import cluster_option, keys_option, node_option, timeout_option
from txpaxos.cli.running import CommandError, Seeds, request, run
from txpaxos.cluster import Cluster
from txpaxos.errors import PaxosError


@click.command("lead", short_help="Have the leader hand over the lead to a node.")
@click.argument("node")
@node_option
@cluster_option
@keys_option
@timeout_option(5.0, "How long the hand-over may take.")
@click.option("--json", "wants_json", is_flag=True, help="The outcome as JSON, also if it is a refusal.")
def command(node: str, cluster: Cluster | Seeds, timeout_seconds: float, wants_json: bool) -> None:
    """Have the leader hand over the lead to NODE, and wait until NODE leads.

    Commands wait meanwhile, a few milliseconds on a healthy network, and none of them fails. If NODE leads already,
    nothing is done. The hand-over is refused, and the leader leads on, if NODE was not heard lately, is far behind, or
    is about to stop.

    \b
    txpaxos lead b
    txpaxos lead b --json
    """
    try:
        leader = run(lambda reactor: request(reactor, cluster, timeout_seconds, lambda client: client.hand_over(node)))
    except PaxosError as error:
        if wants_json:
            click.echo(json.dumps({"cluster": cluster.name, "leader": None, "error": _one_line(error)}))
            raise SystemExit(1) from None
        raise CommandError(f"the lead was not handed over to {node}: {error}") from None
    if wants_json:
        click.echo(json.dumps({"cluster": cluster.name, "leader": leader, "error": None}))
    else:
        click.echo(f"{leader} leads")


def _one_line(error: PaxosError) -> str:
    return " ".join(str(error).split())
