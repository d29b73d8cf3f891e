"""``txpaxos recover``: a new cluster from the folders that survived the loss of a majority."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from txpaxos.cli.options import cluster_option
from txpaxos.cli.printing import table
from txpaxos.cli.progress import Progress, size_text
from txpaxos.cli.running import CommandError
from txpaxos.cluster import NAME, Cluster
from txpaxos.log_lines import printable
from txpaxos.recovery.recover import (
    Recovery,
    complete,
    find_begun,
    find_done,
    locked,
    nonce_of,
    plan_recovery,
    recover,
    recovered_cluster,
)
from txpaxos.recovery.survivors import Survivor
from txpaxos.storage.disk import Disk

SHOWN_MAX = 12
"""The number of slots or registers that are listed one by one."""


def _names(ctx: click.Context, parameter: click.Parameter, text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name)
    for name in names:
        if not NAME.match(name.partition("~")[0]):
            raise click.BadParameter(f"{name!r} is no name of a node: give names with commas between them, as a,b")
    if len(set(names)) < len(names):
        raise click.BadParameter("a node is named twice.")
    if not names:
        raise click.BadParameter("it names no node.")
    return names


@click.command("recover", short_help="Begin anew with the folders of a minority.")
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=click.Path())
@click.option("--keep", required=True, metavar="NODES", callback=_names, help="The nodes of the new cluster: a,b")
@click.option("--lose", required=True, metavar="NODES", callback=_names, help="All other nodes of the old one: c,d,e")
@click.option("--accept-loss", is_flag=True, help="Do it. Without this, only say what would be done, and what is lost.")
@click.option("--write-cluster", metavar="FILE", help="Write the new cluster file there, instead of printing it.")
@click.option("--json", "wants_json", is_flag=True, help="The report as JSON.")
@cluster_option
def command(
    directories: tuple[str, ...],
    keep: tuple[str, ...],
    lose: tuple[str, ...],
    accept_loss: bool,
    write_cluster: str | None,
    wants_json: bool,
    cluster: Cluster,
) -> None:
    """Make a cluster of its own from the data folders DIR... that are left when a majority of the nodes is lost.

    Give all folders that are left, with their nodes stopped, and the cluster file of the old cluster. What only the
    lost nodes knew is lost, also if a client was told that it is done.

    Without --accept-loss nothing is changed: it is only said what would be lost. With it, the kept nodes get new
    folders, and the old contents stay in them, in before-recovery.NONCE. The cluster gets a new name, so nodes that
    return, and clients with the old cluster file, are refused.

    \b
    txpaxos recover a-data b-data --keep a,b --lose c,d,e --cluster cluster.toml
    txpaxos recover a-data b-data --keep a,b --lose c,d,e --cluster cluster.toml \\
        --accept-loss --write-cluster recovered.toml

    If it is interrupted, give the same command again.

    Exit status: 0 if it is done, or could be; 1 if it is refused: one line says why, and nothing was changed.
    """
    if both := sorted(set(keep) & set(lose)):
        raise click.UsageError(f"--keep and --lose both name {', '.join(both)}.")
    if not accept_loss:
        recovery = plan_recovery(directories, keep, lose, cluster)
        _report(recovery, is_done=False, wants_json=wants_json)
        return
    with locked([os.path.abspath(one) for one in directories], Disk()):
        name = find_begun(directories)
        if name:
            complete(directories, name)
        name = name or find_done(directories, keep, cluster)
        if name:
            made = recovered_cluster(cluster, keep, name.partition("~")[2])
            _hand_out(made, write_cluster, wants_json=wants_json, before=True)
            return
        recovery = plan_recovery(directories, keep, lose, cluster, are_locked=True)
        check_target(write_cluster, recovery.cluster)
        _carry_out(recovery, write_cluster)
    _report(recovery, is_done=True, wants_json=wants_json)
    if not wants_json:
        _hand_out(recovery.cluster, write_cluster, wants_json=False, before=False)


def _carry_out(recovery: Recovery, write_cluster: str | None) -> None:
    progress = Progress("writing the new folders")
    snapshot, values = recovery.union.snapshot, recovery.union.values.values()
    total = ((0 if snapshot is None else snapshot.size_bytes) + sum(map(len, values))) * len(recovery.keep)
    try:
        recover(
            recovery,
            lambda made: write_file(write_cluster, made),
            lambda size_bytes: progress.add(size_bytes, total),
        )
    finally:
        progress.end()


# ------------------------------------------------------------------ the new cluster file


def check_target(path: str | None, cluster: Cluster) -> None:
    """Check that the file at ``path`` is absent, or holds this very cluster.

    :raises CommandError: if it holds something else."""
    if path is not None and Path(path).exists() and Path(path).read_bytes() != cluster.dumps().encode():
        raise CommandError(f"{path} exists already: name another file for the new cluster; nothing was changed")


def write_file(path: str | None, cluster: Cluster) -> None:
    """Write the cluster file at ``path``, in one step; nothing if ``path`` is ``None``."""
    if path is not None:
        temporary = Path(f"{path}.new")
        temporary.write_text(cluster.dumps(), encoding="utf-8")
        temporary.replace(path)


def _hand_out(cluster: Cluster, path: str | None, *, wants_json: bool, before: bool) -> None:
    """Say where the cluster file is, or print it."""
    if before:
        check_target(path, cluster)
        write_file(path, cluster)
        if wants_json:
            click.echo(
                json.dumps({"is_done": True, "cluster": cluster.name, "cluster_file": cluster.dumps()}, indent=2)
            )
            return
        click.echo(f"The recovery was done before: the cluster is {cluster.name}.")
    if path is None:
        click.echo(f"\nThe new cluster file:\n\n{cluster.dumps()}")
    else:
        click.echo(f"\n{path} is the new cluster file.")
    click.echo(
        f"Start {' and '.join(cluster.members)} with it, and give it to all clients. Keep all other nodes of the old"
        " cluster off: with a majority of them it would go on by itself."
    )


# ------------------------------------------------------------------ the report


def _report(recovery: Recovery, *, is_done: bool, wants_json: bool) -> None:
    if wants_json:
        click.echo(json.dumps(as_json(recovery, is_done), indent=2))
    else:
        click.echo(as_text(recovery, is_done))


def as_json(recovery: Recovery, is_done: bool) -> dict[str, Any]:
    """The report, of types that JSON has."""
    union = recovery.union
    return {
        "is_done": is_done,
        "cluster": recovery.cluster.name,
        "keep": [*recovery.keep],
        "lose": [*recovery.lose],
        "folders": [
            {
                "node": one.node,
                "directory": one.directory,
                "promised": str(one.promised),
                "chosen_through": one.chosen_through,
                "votes": {str(slot): str(vote.ballot) for slot, vote in sorted(one.votes.items())},
                "snapshot_slot": one.snapshot_slot,
                "registers": len(one.registers),
            }
            for one in recovery.survivors
        ],
        "snapshot_slot": 0 if union.snapshot is None else union.snapshot.slot,
        "chosen_through": union.chosen_through,
        "known_through": union.known_through,
        "through": union.through,
        "guessed_slots": [*union.guessed],
        "empty_slots": [*union.empty],
        "registers": len(union.registers),
        "guessed_registers": [*union.guessed_registers],
        "undecided_registers": [*union.undecided_registers],
        "cluster_file": recovery.cluster.dumps(),
    }


def as_text(recovery: Recovery, is_done: bool) -> str:
    """The report for people: what each folder has, what is taken of it, and what is lost."""
    union, keep = recovery.union, ", ".join(recovery.keep)
    head = ("node", "folder", "promised", "chosen through", "votes above", "snapshot", "registers")
    lines = [table(head, map(_row, recovery.survivors)), ""]
    lines.append(f"The new cluster {'is' if is_done else 'would be'} {recovery.cluster.name}, with the nodes {keep}.")
    lines.append(f"* Slots through {union.chosen_through} are chosen, without doubt.")
    if union.guessed:
        lines.append(
            f"* {_some('slot', union.guessed)} only voted for: the votes count as chosen now, and clients may have been"
            " told something else."
        )
    if union.empty:
        lines.append(f"* {_some('slot', union.empty)} unknown to all folders: nothing is applied there.")
    if union.guessed_registers:
        names = _some("register", union.guessed_registers)
        lines.append(f"* {names} only voted on: the votes count as chosen now.")
    if union.undecided_registers:
        lines.append(f"* {_some('register', union.undecided_registers)} left without a value.")
    lines.append(
        f"* Lost: all that {', '.join(recovery.lose)} alone knew. What is behind slot {union.known_through} cannot be"
        " known here, and clients may have been told that it is done."
    )
    if is_done:
        lines.append(f"The old contents of the folders are in their before-recovery.{nonce_of(recovery.cluster)}.")
        return "\n".join(lines)
    size = 0 if union.snapshot is None else union.snapshot.size_bytes
    lines.append(f"Each new folder takes {size_text(size + sum(map(len, union.values.values())))} beside the old one.")
    lines.append("Nothing was changed. If you accept this loss, give the command again with --accept-loss.")
    return "\n".join(lines)


def _row(one: Survivor) -> tuple[object, ...]:
    slots = [*sorted(one.votes.items())]
    votes = "-" if not slots else f"{len(slots)}, through {slots[-1][0]} in {max(vote.ballot for _, vote in slots)}"
    folder, votes = printable(one.directory, 60), printable(votes)
    return (one.node, folder, str(one.promised), one.chosen_through, votes, one.snapshot_slot, len(one.registers))


def _some(what: str, items: tuple[object, ...]) -> str:
    """Some slots or registers, as the subject of a sentence with its verb."""
    shown = ", ".join(printable(str(item)) for item in items[:SHOWN_MAX])
    more = f" and {len(items) - SHOWN_MAX} more" if len(items) > SHOWN_MAX else ""
    return f"{what.capitalize()} {shown} is" if len(items) == 1 else f"{what.capitalize()}s {shown}{more} are"
