"""``txpaxos ask``: have the value of one register decided, or read it."""

from __future__ import annotations

import click

from txpaxos.cli.options import CommandWithNumbers, cluster_option, node_option, read_bytes, timeout_option
from txpaxos.cli.printing import print_value
from txpaxos.cli.running import Seeds, request, run
from txpaxos.cluster import Cluster

UNDECIDED = 3
"""The exit status if no value was decided."""


def _check_subject(ctx: click.Context, parameter: click.Parameter, subject: str) -> str:
    try:
        subject.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("it is not UTF-8.") from None
    return subject


@click.command("ask", cls=CommandWithNumbers, short_help="Have a subject decided, or read what it was decided on.")
@click.argument("subject", callback=_check_subject)
@click.argument("value", required=False, callback=read_bytes)
@cluster_option
@node_option
@timeout_option(5.0, "How long a quorum may take to answer.")
def command(subject: str, value: bytes | None, cluster: Cluster | Seeds, timeout_seconds: float) -> None:
    """Have SUBJECT decided on VALUE, once and for ever, unless it is decided already. Print the decided value.

    Without VALUE, only read the decided value: if there is none, print `undecided` and exit with status 3. A VALUE of
    `-` is read from standard input, byte for byte. Put `--` before a VALUE that begins with a dash and is no number.

    \b
    txpaxos ask owner-of-shard-7 node-b
    txpaxos ask owner-of-shard-7
    """
    decided = run(lambda reactor: request(reactor, cluster, timeout_seconds, lambda client: client.ask(subject, value)))
    if decided is None:
        click.echo("undecided")
        raise SystemExit(UNDECIDED)
    print_value(decided)
