"""``python -m test.torture``: the command line."""

from __future__ import annotations

import json
import sys
from random import SystemRandom
from typing import Any

import click

from test.torture import network_namespace
from test.torture.report import Report
from test.torture.run import Options, torture
from txpaxos.cli.running import run

SKIPPED = 77
"""The exit status that says that nothing was tested (as automake has it)."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", default=2.0, show_default=True, help="How long faults are begun, for all clusters together.")
@click.option("--nodes", multiple=True, default=(3, 5), type=click.IntRange(3, 9), help="A cluster's size; repeatable.")
@click.option("--seed", type=int, help="Of the plan and the clients; one is drawn and told unless given.")
@click.option("--faults-max", default=100_000, show_default=True, help="For all clusters together.")
@click.option("--operations-max", default=250_000, show_default=True, help="For all clusters together, roughly.")
@click.option("--members/--no-members", default=True, show_default=True, help="Whether members come and go.")
@click.option("--record/--no-record", "records", default=True, show_default=True, help="Whether nodes record.")
@click.option("--keep", is_flag=True, help="Keep histories, logs and data even if nothing is wrong.")
@click.option("--json", "wants_json", is_flag=True, help="The reports as JSON.")
def main(nodes: tuple[int, ...], seed: int | None, wants_json: bool, **limits: Any) -> None:
    """Torture clusters of real nodes on a real network, one after the other, and check what their clients were told.

    Exits with 0 if nothing is wrong, 1 if anything is, 77 if it cannot be tried here.
    """
    if not network_namespace.is_entered():
        reason = network_namespace.missing()
        if reason:
            click.echo(f"torture: skipped: {reason}", err=True)
            raise SystemExit(SKIPPED)
        network_namespace.enter([sys.executable, "-m", "test.torture", *sys.argv[1:]])
    drawn = SystemRandom().randrange(2**32) if seed is None else seed
    options = [options_for(count, len(nodes), drawn, **limits) for count in nodes]
    reports = run(lambda reactor: _every(reactor, options, wants_json))
    if wants_json:
        click.echo(json.dumps([report.as_json() for report in reports], indent=2))
    raise SystemExit(1 if any(report.violations for report in reports) else 0)


def options_for(
    nodes: int,
    clusters: int,
    seed: int,
    minutes: float,
    faults_max: int,
    operations_max: int,
    keep: bool,
    members: bool = True,
    records: bool = True,
) -> Options:
    """The options of one of ``clusters`` clusters."""
    share = max(1, faults_max // clusters), max(1, operations_max // clusters)
    return Options(nodes, seed, minutes * 60 / clusters, *share, keep, members, records)


async def _every(reactor: Any, options: list[Options], wants_json: bool) -> list[Report]:
    reports = []
    for one in options:
        reports.append(await torture(reactor, one, lambda line: click.echo(f"torture: {line}", err=True)))
        if not wants_json:
            click.echo(f"{reports[-1].as_text()}\n")
    return reports


if __name__ == "__main__":
    main(prog_name="python -m test.torture")
