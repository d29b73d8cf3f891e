"""``txpaxos read``: ask the application a query."""

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
from txpaxos.cli.running import Seeds, request, run
from txpaxos.cluster import Cluster
from txpaxos.reading import Consistency


@click.command("read", cls=CommandWithJsonAndNumbers, short_help="Ask the application a query; nothing is changed.")
@click.argument("query", callback=read_bytes)
@click.option("--local", is_flag=True, help="Ask one node alone, whose state may be old.")
@cluster_option
@keys_option
@node_option
@timeout_option(5.0, "How long a quorum may take to answer.")
@json_option("The answer and its slot as JSON; an error, too.")
def command(query: bytes, local: bool, cluster: Cluster | Seeds, timeout_seconds: float, wants_json: bool) -> None:
    """Ask the application QUERY, and print its answer.

    The answer contains every command that was acknowledged before. With `--local` it needs no quorum, but may be older;
    the slot that it reflects is then printed on standard error. A QUERY of `-` is read from standard input, byte for
    byte. Put `--` before a QUERY that begins with a dash and is no number.

    \b
    txpaxos read total
    txpaxos read --local total
    """
    consistency: Consistency = "local" if local else "linearizable"
    reading = run(lambda reactor: request(reactor, cluster, timeout_seconds, lambda one: one.read(query, consistency)))
    show(reading.result, {"slot": reading.slot}, wants_json)
    if local and not wants_json:
        click.echo(f"as of slot {reading.slot}", err=True)
