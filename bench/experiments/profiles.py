"""What the nodes do with their time under a load, function by function."""

from __future__ import annotations

import io
import pstats
from pathlib import Path

from bench.ours import Nodes, Ours
from bench.report import Report
from bench.setting import Setting, running
from bench.system import ROOT, Load

LINES = 25


async def profile(setting: Setting, outstanding: int, value_bytes: int) -> Report:
    """The leader and a follower under cProfile, which makes them slower, and calls of small functions dearer than they
    are."""
    folder = setting.new_folder("profiled")
    nodes = Nodes(setting.reactor, folder, asked=True, bench_options=[f"--profile={folder}/{{node}}.profile"])
    ours = Ours(setting.reactor, nodes)
    async with running([ours]):
        sample = await ours.put(Load(outstanding, setting.seconds, value_bytes=value_bytes))
        leader = ours.leader
    follower = next(node for node in nodes.cluster.members if node != leader)
    parts = [f"{sample.rate:.0f} puts/s of {value_bytes} bytes, {outstanding} outstanding, while profiled"]
    for role, node in (("leader", leader), ("a follower", follower)):
        parts.append(f"{role}:\n{dearest(folder / f'{node}.profile')}")
    return Report("profile", "\n\n".join(parts), [], {})


def dearest(file: Path) -> str:
    """The functions that took most time themselves."""
    out = io.StringIO()
    pstats.Stats(str(file), stream=out).sort_stats("tottime").print_stats(LINES)
    lines = out.getvalue().replace(f"{ROOT}/", "").splitlines()
    return "\n".join(line for line in lines[2:] if line.strip())
