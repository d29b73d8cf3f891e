"""``txpaxos ask``: have the value of one register decided, read it, or have it forgotten."""

from __future__ import annotations

import click
from twisted.internet.defer import Deferred

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
from txpaxos.cli.running import Seeds, request, run
from txpaxos.client import Client
from txpaxos.cluster import Cluster

UNDECIDED = 3
"""The exit status if no value was decided."""


def _check_subject(ctx: click.Context, parameter: click.Parameter, subject: str) -> str:
    try:
        subject.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("it is not UTF-8.") from None
    return subject


@click.command("ask", cls=CommandWithJsonAndNumbers, short_help="Have a subject decided, or read its decision.")
@click.argument("subject", callback=_check_subject)
@click.argument("value", required=False, callback=read_bytes)
@click.option("--forget", is_flag=True, help="Make SUBJECT undecided, and print the value that is forgotten.")
@cluster_option
@keys_option
@node_option
@timeout_option(5.0, "How long a quorum may take to answer.")
@json_option("The value as JSON, null if there is none; an error, too.")
def command(
    subject: str,
    value: bytes | None,
    forget: bool,
    cluster: Cluster | Seeds,
    timeout_seconds: float,
    wants_json: bool,
) -> None:
    """Have SUBJECT decided on VALUE, once, unless it is decided already. Print the decided value.

    Without VALUE, only read the decided value: if there is none, print `undecided` and exit with status 3. A VALUE of
    `-` is read from standard input, byte for byte. Put `--` before a VALUE that begins with a dash and is no number.

    \b
    txpaxos ask owner-of-shard-7 node-b
    txpaxos ask owner-of-shard-7
    txpaxos ask --forget owner-of-shard-7

    With --forget, SUBJECT is undecided from then on, and may be decided on another VALUE. No program that was told the
    old value is told so: forget a SUBJECT when nothing acts on it any more.
    """
    if forget and value is not None:
        raise click.UsageError("--forget takes no VALUE: ask again, with the VALUE, when SUBJECT is forgotten.")

    def call(client: Client) -> Deferred[bytes | None]:
        return client.forget(subject) if forget else client.ask(subject, value)

    decided = run(lambda reactor: request(reactor, cluster, timeout_seconds, call))
    if decided is None and not wants_json:
        click.echo("undecided")
    else:
        show(decided, {"subject": subject}, wants_json)
    if decided is None:
        raise SystemExit(UNDECIDED)
