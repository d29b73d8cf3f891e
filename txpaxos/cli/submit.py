"""``txpaxos submit``: have one command applied."""

from __future__ import annotations

import click

from txpaxos.cli.options import (
    CommandWithJsonAndNumbers,
    cluster_option,
    json_option,
    keys_option,
    node_option,
    read_bytes,
    timeout_option,
)
from txpaxos.cli.printing import show
from txpaxos.cli.running import CommandError, Seeds, request, run
from txpaxos.cluster import Cluster
from txpaxos.errors import CommandFailed


@click.command("submit", cls=CommandWithJsonAndNumbers, short_help="Have a command applied on every node, once.")
@click.argument("command", callback=read_bytes)
@cluster_option
@keys_option
@node_option
@timeout_option(5.0, "How long a quorum may take to answer.")
@json_option("The result as JSON; an error, too.")
def command(command: bytes, cluster: Cluster | Seeds, timeout_seconds: float, wants_json: bool) -> None:
    """Have COMMAND applied on every node, once, and print its result.

    The command is sent again until there is a result, also after the leader has changed. A COMMAND of `-` is read from
    standard input, byte for byte. Put `--` before a COMMAND that begins with a dash and is no number.

    \b
    txpaxos submit +5
    txpaxos submit --cluster cluster.toml -- -5
    """
    try:
        result = run(lambda reactor: request(reactor, cluster, timeout_seconds, lambda client: client.submit(command)))
    except CommandFailed as error:
        counts = "the command is in the log and counts as applied, so sending it again submits another command"
        raise CommandError(f"{error}; {counts}") from None
    show(result, {}, wants_json)
