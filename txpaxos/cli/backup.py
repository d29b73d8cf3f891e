"""``txpaxos backup``: the state of a running cluster in one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import click
import msgspec

from txpaxos.cli.options import cluster_option, keys_option, timeout_option
from txpaxos.cli.progress import Progress, size_text
from txpaxos.cli.running import CommandError, new_client, run
from txpaxos.cli.status import Statuses, ask_nodes
from txpaxos.client import Client
from txpaxos.cluster import Cluster
from txpaxos.errors import BackupOutdated
from txpaxos.recovery.backup_file import Backup, BackupWriter, read_backup
from txpaxos.wire.client_messages import BackupHead

ATTEMPTS = 3
"""How often a backup is begun anew when the node has replaced what is being fetched."""


@click.command("backup", short_help="Write the state of a running cluster to a file.")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--node", metavar="NODE", help="The node to ask. [default: a follower that has applied the most]")
@click.option("--check", "wants_check", is_flag=True, help="Make no backup; check that FILE is one, to its last byte.")
@click.option("--json", "wants_json", is_flag=True, help="What is in the backup, as JSON.")
@cluster_option
@keys_option
@timeout_option(10.0, "How long the node may take for each part.")
def command(
    file: str, node: str | None, wants_check: bool, wants_json: bool, cluster: Cluster, timeout_seconds: float
) -> None:
    """Write the state of a running cluster to FILE, for `txpaxos restore`.

    One node is asked for its newest snapshot and for the values behind it, part by part. Commands go on meanwhile. The
    backup holds the state after one slot: all that was applied on that node when it began. FILE is written beside its
    place, checked, and put there in one step; a file that was there is replaced.

    \b
    txpaxos backup counter.backup
    txpaxos backup counter.backup --node b --json
    txpaxos backup counter.backup --check

    Exit status: 0 if FILE is a whole backup; 1 if not: one line says why, and FILE is what it was.
    """
    if wants_check:
        progress = Progress(f"reading {file}")
        try:
            backup = read_backup(file, progress.add)
        finally:
            progress.end()
    else:
        if node is not None and node not in cluster.members:
            raise click.BadParameter(f"cluster {cluster.name} has no node '{node}': {', '.join(cluster.members)}.")
        backup = run(lambda reactor: _make(reactor, cluster, node, file, timeout_seconds))
    click.echo(json.dumps(as_json(backup), indent=2) if wants_json else as_text(backup))


async def _make(reactor: Any, cluster: Cluster, node: str | None, path: str, timeout_seconds: float) -> Backup:
    if not Path(path).absolute().parent.is_dir():
        raise CommandError(f"cannot write {path}: its folder does not exist")
    if node is None:
        node = best_node(await ask_nodes(reactor, cluster, min(timeout_seconds, 2.0)))
        if node is None:
            raise CommandError(f"no node of cluster {cluster.name} answers: nothing was written")
    client = new_client(reactor, cluster, [node])
    progress = Progress(f"fetching from {node}")
    try:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await _fetch(client, path, timeout_seconds, progress)
            except BackupOutdated as error:
                if attempt == ATTEMPTS:
                    raise CommandError(f"{error}, again and again: ask a node that is less busy") from None
    finally:
        progress.end()
        client.close()
    raise AssertionError("not reached")


def best_node(statuses: Statuses) -> str | None:
    """The node to ask: one that has applied the most, and rather not the leader, which has the most to do."""
    answered = {node: status for node, status in statuses.items() if status is not None}
    if not answered:
        return None
    return max(answered, key=lambda node: (answered[node]["applied_through"], answered[node]["role"] != "leader"))


async def _fetch(client: Client, path: str, timeout_seconds: float, progress: Progress) -> Backup:
    """Fetch the values first: the node keeps them for a shorter time than the snapshot."""
    head = msgspec.msgpack.decode(await client.backup_part(0, 0, timeout_seconds), type=BackupHead)
    writer = BackupWriter(path, head)
    try:
        slot = head.snapshot_slot + 1
        while slot <= head.through:
            body = await client.backup_part(0, slot, timeout_seconds)
            values = msgspec.msgpack.decode(body, type=list[bytes])[: head.through + 1 - slot]
            if not values:
                raise CommandError(
                    f"the node has no value at slot {slot}, though it has applied it: its log is damaged"
                )
            writer.values(values)
            slot += len(values)
            progress.add(len(body))
        position = 0
        while position < head.snapshot_bytes:
            part = await client.backup_part(head.snapshot_slot, position, timeout_seconds)
            if not part:
                raise CommandError(f"the snapshot of the node ends at {position} of {head.snapshot_bytes} bytes")
            writer.snapshot(part)
            position += len(part)
            progress.add(len(part), head.snapshot_bytes)
        return writer.finish()
    except BaseException:
        writer.abandon()
        raise


def as_json(backup: Backup) -> dict[str, Any]:
    """What is in the backup, of types that JSON has."""
    return {
        "file": backup.path,
        "checksum": backup.digest,
        "size_bytes": backup.size_bytes,
        **attrs.asdict(backup.head),
    }


def as_text(backup: Backup) -> str:
    """What is in the backup, for people."""
    head = backup.head
    lines = [
        f"{backup.path}: {size_text(backup.size_bytes)}",
        f"  cluster      {head.cluster}, the state after slot {head.through}, from node {head.node}",
        f"  application  {head.application}",
        f"  members      {', '.join(f'{node} ({its[0]}, clients {its[1]})' for node, its in head.members.items())}",
        f"  checksum     {backup.digest}",
    ]
    return "\n".join(lines)
