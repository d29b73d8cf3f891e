"""``txpaxos restore``: the data folder of a founder of a new cluster, from a backup."""

from __future__ import annotations

import json

import click

from txpaxos.cli.backup import as_json, as_text
from txpaxos.cli.options import cluster_option
from txpaxos.cli.progress import Progress
from txpaxos.cluster import Cluster
from txpaxos.recovery.backup_file import read_backup
from txpaxos.recovery.restore import check_restore, restore


@click.command("restore", short_help="Make a data folder of a new cluster from a backup.")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--node", required=True, metavar="NODE", help="The node whose folder is made.")
@click.option("--data-dir", required=True, metavar="DIR", help="The folder, which is empty or absent.")
@click.option("--dry-run", is_flag=True, help="Only check the backup, and whether it could be restored.")
@click.option("--json", "wants_json", is_flag=True, help="What is in the backup, as JSON.")
@cluster_option
def command(file: str, node: str, data_dir: str, dry_run: bool, wants_json: bool, cluster: Cluster) -> None:
    """Make the data folder DIR of NODE, a founder of a new cluster, from the backup FILE.

    Do this for each founder, with the same FILE: the founders are the first nodes of the cluster file, as many as are a
    majority. Start the other nodes with empty folders. The new cluster must have another name than the one that was
    backed up, so that nodes of the old one are refused. State, sessions and slots continue.

    \b
    txpaxos restore counter.backup --cluster new.toml --node a --data-dir a-data --dry-run
    txpaxos restore counter.backup --cluster new.toml --node a --data-dir a-data

    Exit status: 0 if it is done, or could be; 1 if it is refused: one line says why, and nothing was changed.
    """
    progress = Progress(f"restoring {file}")
    try:
        backup = read_backup(file, progress.add)
        check_restore(backup, cluster, node, data_dir)
        if not dry_run:
            restore(backup, cluster, node, data_dir, progress.add)
    finally:
        progress.end()
    if wants_json:
        click.echo(
            json.dumps({"is_done": not dry_run, "data_dir": data_dir, "node": node, **as_json(backup)}, indent=2)
        )
        return
    click.echo(as_text(backup))
    if dry_run:
        click.echo(f"It can be restored to {data_dir} for node {node} of cluster {cluster.name}. Nothing was changed.")
    else:
        click.echo(f"{data_dir} is restored for node {node} of cluster {cluster.name}.")
