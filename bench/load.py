"""The client process of a benchmark: puts to a cluster that runs examples/kv.py, and tells how long each one took.

    python -m bench.load --cluster cluster.toml --outstanding 64

Prints JSON. Other modules here start it; it is a process of its own, so that the nodes need not share theirs with it.
That each put was done once is seen from the store's revision, which counts them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import click
from twisted.internet.defer import Deferred

from bench.loop import SETTLE_SECONDS_MAX, Loaded, Loop, Submit, commands_for, put_command
from bench.system import CONNECTIONS, Load
from bench.trace import Trace
from txpaxos.cli.running import CommandError, run, together
from txpaxos.client import Client
from txpaxos.cluster import Cluster
from txpaxos.keys import load_keys


async def put(
    reactor: Any, cluster: Cluster, load: Load, connections: int, trace: Trace | None, keys: Path | None = None
) -> Loaded:
    """Connect, put, and see that each put was done once.

    :param trace: told of every put, if given.
    :param keys: the client's folder of keys, if the nodes have keys.
    :raises CommandError: if one was not.
    """
    loaded_keys = None if keys is None else load_keys(str(keys), "client")
    clients = [Client(reactor, cluster, keys=loaded_keys) for _ in range(connections)]
    try:

        async def revision(client: Client) -> int:
            answer: int = await client.submit(put_command("revision", b"")).addTimeout(SETTLE_SECONDS_MAX, reactor)
            return answer

        before = max(await together(*map(revision, clients)))  # All connected, and with a session.
        commands = commands_for(load.value_bytes)
        submits = [client.submit if trace is None else watched(client.submit, trace) for client in clients]
        loaded = await Loop(reactor, submits, commands, load).run()
        done = await revision(clients[0]) - before - 1
        if done != loaded.answered_total:
            raise CommandError(f"{loaded.answered_total} puts were answered, and {done} were done")
        return loaded
    finally:
        for client in clients:
            client.close()


def watched(submit: Submit, trace: Trace) -> Submit:
    """The same, noting when it is called and when it is answered."""

    def submit_watched(command: bytes) -> Deferred[Any]:
        def answered(result: Any) -> Any:
            trace.note("answered")
            return result

        trace.note("submit")
        return submit(command).addCallback(answered)

    return submit_watched


@click.command()
@click.option("--cluster", "cluster_file", type=click.Path(path_type=Path), required=True)
@click.option("--outstanding", default=1, show_default=True, help="Puts under way; of an open loop, the most.")
@click.option("--connections", default=CONNECTIONS, show_default=True)
@click.option("--rate", type=float, help="An open loop: puts per second, whether answered or not.")
@click.option("--seconds", default=5.0, show_default=True)
@click.option("--warm-up-seconds", default=1.0, show_default=True)
@click.option("--value-bytes", default=100, show_default=True)
@click.option("--keys", type=click.Path(path_type=Path), help="A client's folder of keys, if the nodes have keys.")
@click.option("--trace", "trace_file", type=click.Path(path_type=Path), help="Write there when what was done.")
def main(cluster_file: Path, connections: int, keys: Path | None, trace_file: Path | None, **load: Any) -> None:
    """See the top of this file."""

    async def work(reactor: Any) -> Loaded:
        trace = None if trace_file is None else Trace()
        loaded = await put(reactor, Cluster.load(str(cluster_file)), Load(**load), connections, trace, keys)
        if trace is not None and trace_file is not None:
            trace.write(trace_file)
        return loaded

    click.echo(json.dumps(attrs.asdict(run(work))))


if __name__ == "__main__":
    main()
