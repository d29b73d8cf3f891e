"""``txpaxos clock``: what time the nodes say it is, and whether the cluster goes by it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from txpaxos.cli.options import CommandWithJson, cluster_option, keys_option, node_option, timeout_option
from txpaxos.cli.running import Seeds, request, run
from txpaxos.cluster import Cluster

HOUR_SECONDS = 3600.0


@click.group("clock", short_help="Accept a time of day that has jumped.")
def command() -> None:
    """The time of day in the log of a cluster.

    It never goes back. So when the clocks say that it is more than an hour later than it should be, by the time that
    has passed, it goes on as if they had not jumped, until an operator accepts what they say. ``txpaxos status`` says
    when that is so, and how far the clocks of the nodes are apart.
    """


@command.command("accept", cls=CommandWithJson)
@node_option
@cluster_option
@keys_option
@timeout_option(5.0, "How long to wait for an answer.")
@click.option("--json", "wants_json", is_flag=True, help="The time as JSON.")
def accept(cluster: Cluster | Seeds, timeout_seconds: float, wants_json: bool) -> None:
    """Go by what the clocks of the nodes say, however late that is.

    Look at the clocks of all machines first: the time in the log can never be set back.
    """
    accepted = run(lambda reactor: request(reactor, cluster, timeout_seconds, lambda client: client.accept_clock()))
    if wants_json:
        click.echo(json.dumps({"cluster": cluster.name, **accepted}))
    else:
        click.echo(told(accepted))


def told(accepted: dict[str, Any]) -> str:
    """One line on what the leader goes by from now on."""
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=accepted["utc_ms"])
    hours = accepted["refused_seconds"] / HOUR_SECONDS
    before = f"{hours:.1f} hours later than before" if hours else "nothing was refused before"
    return (
        f"the time in the log goes on from {time:%Y-%m-%d %H:%M:%S} UTC, by the clocks of {accepted['leader']} and the"
        f" other voters ({before})"
    )
