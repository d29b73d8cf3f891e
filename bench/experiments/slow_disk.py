"""A disk that takes 5 ms for every sync: what is left of the rate, and whether heartbeats still come on time."""

from __future__ import annotations

import statistics
from typing import Any

import attrs

from bench.asking import ask
from bench.figures import Sample
from bench.ours import Nodes, Ours
from bench.report import Point, Report, TargetCheck, as_table, at_least, at_most
from bench.setting import Setting, as_data, running
from bench.system import Load
from txpaxos.cli.printing import table
from txpaxos.cli.status import ask_nodes

SYNC_SECONDS = 0.005
OUTSTANDING = 1024
SHARE_TARGET = 0.8
SILENCE_SECONDS_MAX = 0.2
"""Heartbeats come every 0.1 s by default: after this long without one, one is missing."""

STATUS_SECONDS = 5.0


@attrs.frozen
class Run:
    """One load on one cluster.

    :ivar silence_seconds: the longest that a follower heard no datagram of the leader.
    :ivar syncs: of all nodes, for one put.
    :ivar leader_changes: whether another ballot was followed at the end than at the beginning.
    """

    sample: Sample
    silence_seconds: float
    syncs: float
    leader_changes: bool


async def slow_disk(setting: Setting) -> Report:
    """1,024 outstanding on a disk as it is, and on one whose every sync takes 5 ms more, in turn."""
    if not setting.has(Ours.name):
        return Report("slow disk", "not measured", [], {})
    runs: dict[str, list[Run]] = {"disk as it is": [], "each sync 5 ms more": []}
    clusters = {}
    for label, seconds in zip(runs, (0.0, SYNC_SECONDS), strict=True):
        options = [f"--sync-seconds={seconds}"]
        nodes = Nodes(setting.reactor, setting.new_folder("disk"), asked=True, bench_options=options)
        clusters[label] = Ours(setting.reactor, nodes)
    async with running(list(clusters.values())):
        for _ in range(setting.pairs):
            for label, ours in clusters.items():
                runs[label].append(await _run(setting, ours))
                setting.say(f"{label}: {runs[label][-1].sample.rate:.0f} puts/s")
    return _report(runs)


async def _run(setting: Setting, ours: Ours) -> Run:
    before = await _ballots(setting, ours)
    await _ask_all(setting, ours, "begin")
    sample = await ours.put(Load(OUTSTANDING, setting.seconds))
    said = await _ask_all(setting, ours, "end")
    silences = [one["silences"].get(ours.leader, 0.0) for node, one in said.items() if node != ours.leader]
    syncs = sum(sum(one["syncs"].values()) for one in said.values())
    changed = before != await _ballots(setting, ours)
    return Run(sample, max(silences), syncs / sample.operations_total, changed)


async def _ask_all(setting: Setting, ours: Ours, about: str) -> dict[str, Any]:
    return {
        node: await ask(setting.reactor, process, ours.folder, about) for node, process in ours.nodes.processes.items()
    }


async def _ballots(setting: Setting, ours: Ours) -> set[str]:
    statuses = await ask_nodes(setting.reactor, ours.nodes.cluster, STATUS_SECONDS)
    return {status["ballot"] if status else "no answer" for status in statuses.values()}


def _report(runs: dict[str, list[Run]]) -> Report:
    points = [Point(label, {Ours.name: [run.sample for run in all_]}) for label, all_ in runs.items()]
    fast, slow = (statistics.median(run.sample.rate for run in all_) for all_ in runs.values())
    allowed = OUTSTANDING / (SYNC_SECONDS + OUTSTANDING / fast)
    silence = max(run.silence_seconds for all_ in runs.values() for run in all_)
    changes = sum(run.leader_changes for all_ in runs.values() for run in all_)
    rows = [
        (
            label,
            f"{statistics.median(run.syncs for run in all_):.4f}" if all_[0].syncs else "not counted",
            f"{max(run.silence_seconds for run in all_) * 1e3:.0f}",
        )
        for label, all_ in runs.items()
    ]
    text = as_table(points, "disk", Ours.name)
    text += f"\n\n{table(('disk', 'syncs/put, all nodes', 'longest silence of the leader, ms'), rows)}"
    text += (
        f"\n\none sync of {SYNC_SECONDS * 1e3:g} ms per round trip of {OUTSTANDING} puts, beside the time that those"
        f" take on the disk as it is, allows {allowed:.0f} puts/s"
    )
    verdicts = [
        at_least("slow disk: rate in what one sync per round trip allows", slow / allowed, SHARE_TARGET),
        at_most("slow disk: longest silence of the leader", silence * 1e3, SILENCE_SECONDS_MAX * 1e3, "ms"),
        TargetCheck("slow disk: the leader leads on", changes == 0, f"{changes} changes"),
    ]
    return Report("slow disk", text, verdicts, {"points": as_data(points), "allowed": allowed})
