"""What it costs clients to replace all keys of a cluster, and both of its authorities, under load.

    python -m bench.rotation [--rotations 3] [--outstanding 1,64] [--json]

Three ``twistd paxos --keys`` nodes on this machine, at default settings, and one client that has increments
under way all the time. A rotation is what ``docs/keys.rst`` says: ``txpaxos keys rotate begin``, ``issue`` and ``end``,
after each of which the new folders are brought to all nodes and clients, and the nodes reload. The folders are made
before, since that is done on another machine. Nodes reload at SIGHUP, one after the other, or since ``txpaxos keys
reload`` tells them to. The client uses what is in its folder after each step, too.

For each way to reload, and each number of increments: the longest time without an answer, during each step and in a
time of the same length after it, in which nothing is done. It ends with 1 if an increment failed, or was not applied
once, or if the leader changed.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import click
import msgspec
from twisted.internet.task import deferLater

from bench.hand_over import STEP_SECONDS_MAX, WARM_UP_SECONDS, Load, ballot_round
from bench.machine import about
from bench.report import TargetCheck, at_most
from bench.system import output_of
from txpaxos.cli.demo_keys import OWNER, READER, RIGHTS, DemoKeys
from txpaxos.cli.local_cluster import LocalCluster
from txpaxos.cli.printing import table
from txpaxos.cli.running import CommandError, run

NODES = ("a", "b", "c")
GAP_MILLISECONDS_MAX = 100.0
SETTLE_SECONDS = 2.0
"""After each step. Connections that were replaced are closed by then."""
POLL_SECONDS = 0.01
USES_ITS_KEYS = "uses its keys"
"""What a node says when it has loaded them."""
NAMES = (*NODES, OWNER, READER)
"""Who has keys."""
STEPS = (("begin", "update"), ("issue", "renew"), ("end", "update"))
"""Each step of a rotation, and what brings the folders up to date after it."""


@attrs.frozen
class Rotations:
    """All keys and both authorities were replaced under load, several times.

    :ivar way: how nodes were told to reload.
    :ivar outstanding: how many increments were under way.
    :ivar count: how many rotations there were.
    :ivar commands: how many increments were answered.
    :ivar errors: how many failed, or were not applied once.
    :ivar said: what the first ones failed with.
    :ivar leader_changes: how many ballots were begun.
    :ivar took_seconds: how long the rotations took together.
    :ivar gaps_seconds: the longest time without an answer during each step.
    :ivar usual_gaps_seconds: the same in a time of the same length after it, in which nothing was done.
    """

    way: str
    outstanding: int
    count: int
    commands: int
    errors: int
    said: list[str]
    leader_changes: int
    took_seconds: float
    gaps_seconds: list[float]
    usual_gaps_seconds: list[float]


async def make_stages(reactor: Any, folder: Path, count: int) -> list[Path]:
    """Make keys in ``folder``, and rotate them ``count`` times, as a person does it on a machine of their own.

    :returns: a folder for each step, with what is brought to the machines then. The first one is for the start.
    """
    issued = folder / "issued"
    issued.mkdir()
    DemoKeys.make(issued, NODES)
    folders = [str(issued / f"{name}.keys") for name in NAMES]
    stages = [_stage(folder, 0)]
    for step, bring in STEPS * count:
        await _keys(reactor, "rotate", step, "--authority", str(issued / "authority"))
        await _keys(reactor, bring, *folders, "--authority", str(issued / "authority"))
        stages.append(_stage(folder, len(stages)))
        for before in issued.glob("*.before"):
            shutil.rmtree(before)
    return stages


def _stage(folder: Path, number: int) -> Path:
    made = folder / str(number)
    made.mkdir()
    for name in NAMES:
        shutil.copytree(folder / "issued" / f"{name}.keys", made / f"{name}.keys")
    return made


async def _keys(reactor: Any, *arguments: str) -> None:
    await output_of(reactor, sys.executable, ["-m", "txpaxos", "keys", *arguments])


async def reload_by_signal(reactor: Any, nodes: LocalCluster) -> None:
    """Send SIGHUP to one node after the other."""
    for node in NODES:
        before = _loaded(nodes, node)
        nodes.processes[node].signal("HUP")
        give_up_at = reactor.seconds() + STEP_SECONDS_MAX
        while _loaded(nodes, node) == before:
            if reactor.seconds() > give_up_at:
                raise CommandError(f"node {node} did not load its keys: {nodes.last_line(node)}")
            await deferLater(reactor, POLL_SECONDS)


def _loaded(nodes: LocalCluster, node: str) -> int:
    return nodes.log(node).read_text(errors="replace").count(USES_ITS_KEYS)


async def reload_by_command(reactor: Any, nodes: LocalCluster) -> None:
    """Have ``txpaxos keys reload`` tell all nodes."""
    await _keys(reactor, "reload", "--cluster", str(nodes.file), "--keys", str(nodes.client_keys))


WAYS = {"SIGHUP": reload_by_signal, "txpaxos keys reload": reload_by_command}


async def rotations(reactor: Any, folder: Path, stages: Sequence[Path], way: str, outstanding: int) -> Rotations:
    """Bring the keys of one stage after the other to a cluster, with ``outstanding`` increments under way."""
    folder.mkdir()
    nodes = LocalCluster(reactor, "bench", NODES, folder, rights=RIGHTS)
    keys = DemoKeys(folder)
    nodes.node_keys, nodes.client_keys = keys.of, keys.of(OWNER)
    bring(stages[0], folder)
    took, gaps, usual = list[float](), list[float](), list[float]()
    try:
        await nodes.start_all(STEP_SECONDS_MAX)
        load = Load(reactor, nodes, outstanding)
        await deferLater(reactor, WARM_UP_SECONDS)
        before = await ballot_round(nodes)
        for stage in stages[1:]:
            load.reset()
            began = reactor.seconds()
            bring(stage, folder)
            await WAYS[way](reactor, nodes)
            load.client.use_keys(keys.of(OWNER))
            await deferLater(reactor, SETTLE_SECONDS)
            took.append(reactor.seconds() - began)
            gaps.append(load.longest_gap_seconds)
            load.reset()
            await deferLater(reactor, took[-1])
            usual.append(load.longest_gap_seconds)
        changes = await ballot_round(nodes) - before
        total = await load.stop()
    finally:
        await nodes.stop()
    errors, count = load.failed + abs(total - load.answered), len(stages) // len(STEPS)
    return Rotations(way, outstanding, count, load.answered, errors, load.errors, changes, sum(took), gaps, usual)


def bring(stage: Path, folder: Path) -> None:
    """Put the folders of keys of a stage in the place of those that are in ``folder``."""
    for name in NAMES:
        shutil.rmtree(folder / f"{name}.keys", ignore_errors=True)
        shutil.copytree(stage / f"{name}.keys", folder / f"{name}.keys")


def as_text(measured: Sequence[Rotations]) -> str:
    """A row for each way and load, and whether the targets are met."""
    rows = [
        (
            *(one.way, str(one.outstanding), str(one.count), f"{one.took_seconds:.0f}", f"{one.commands:,}"),
            *(str(one.errors), str(one.leader_changes), *_median_and_worst(one.gaps_seconds)),
            *_median_and_worst(one.usual_gaps_seconds),
        )
        for one in measured
    ]
    head = (
        *("reload by", "under way", "rotations", "s", "commands", "errors", "leader changes"),
        *("gap of a step ms, median", "worst", "without, median", "worst"),
    )
    said = [line for one in measured for line in one.said]
    return "\n\n".join(["\n".join([table(head, rows), *said]), "\n".join(map(str, verdicts(measured)))])


def _median_and_worst(seconds: list[float]) -> tuple[str, str]:
    return f"{1000 * statistics.median(seconds):.1f}", f"{1000 * max(seconds):.1f}"


def verdicts(measured: Sequence[Rotations]) -> list[TargetCheck]:
    """What is asked of a rotation."""
    gap = max(1000 * max(one.gaps_seconds) for one in measured)
    return [
        at_most("errors", sum(one.errors for one in measured), 0, "increments"),
        at_most("leader changes", sum(one.leader_changes for one in measured), 0, "ballots"),
        at_most("longest gap", gap, GAP_MILLISECONDS_MAX, "ms"),
    ]


def is_whole(measured: Sequence[Rotations]) -> bool:
    """Whether no increment failed and the leader stayed."""
    return not any(one.errors or one.leader_changes for one in measured)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rotations", "count", type=click.IntRange(min=1), default=3, show_default=True, help="For each way.")
@click.option("--outstanding", default="1,64", show_default=True, help="Under way at a time.")
@click.option("--json", "wants_json", is_flag=True, help="Print JSON.")
def main(count: int, outstanding: str, wants_json: bool) -> None:
    """Measure what it costs clients to replace all keys and both authorities under load."""
    try:
        loads = [int(one) for one in outstanding.split(",")]
    except ValueError:
        raise click.BadParameter("numbers, with commas between them.", param_hint="--outstanding") from None

    async def measure(reactor: Any, folder: Path) -> list[Rotations]:
        measured = []
        stages = await make_stages(reactor, folder, count)
        for one in loads:
            for number, way in enumerate(WAYS):
                measured.append(await rotations(reactor, folder / f"{one}-{number}", stages, way, one))
                click.echo(f"{one} under way, {way}: done", err=True)
        return measured

    with tempfile.TemporaryDirectory(prefix="txpaxos-bench-") as name:
        measured = run(lambda reactor: measure(reactor, Path(name)))
    if wants_json:
        told = {"rotations": measured, "verdicts": list(map(str, verdicts(measured))), **about()}
        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
    else:
        click.echo(as_text(measured))
    raise SystemExit(0 if is_whole(measured) else 1)


if __name__ == "__main__":
    main()
