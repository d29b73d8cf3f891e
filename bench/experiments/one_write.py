"""One write at a time: how far it is above what the machine allows, and where its time goes."""

from __future__ import annotations

import json
import statistics
import sys

import attrs
import msgspec

from bench import trace
from bench.floor import Floor
from bench.loop import Loaded
from bench.ours import Nodes, Ours
from bench.report import Report, TargetCheck, at_most
from bench.setting import Setting, running
from bench.system import Load, output_of
from txpaxos.cli.printing import table

FLOORS_TARGET = 3.0


async def one_write(setting: Setting) -> Report:
    """The floor, then writes one after the other, in turn; at the end such writes with every call recorded."""
    if not setting.has(Ours.name):
        return Report("one write", "not measured", [], {})
    load = Load(1, setting.seconds)
    floors: list[Floor] = []
    loaded: list[Loaded] = []
    ours = Ours(setting.reactor, Nodes(setting.reactor, setting.new_folder("ours")))
    async with running([ours]):
        for _ in range(setting.pairs):
            floors.append(await _floor(setting))
            loaded.append(await ours.load(load))
    # Whatever else the machine does makes a floor higher than it is.
    floor = Floor(*(min(one) for one in zip(*map(attrs.astuple, floors), strict=True)))
    p50_seconds = statistics.median(one.latencies.p50_seconds for one in loaded)
    steps, syncs = await _steps(setting, load)
    rows = [
        ("UDP round trip", floor.udp_round_trip_seconds),
        ("TCP round trip", floor.tcp_round_trip_seconds),
        ("append and fdatasync", floor.append_and_sync_seconds),
        ("the floor: all three", floor.seconds),
        ("one write, p50", p50_seconds),
    ]
    text = table(("measured", "us"), [(what, f"{seconds * 1e6:.1f}") for what, seconds in rows])
    traced = [(step, f"{seconds * 1e6:.1f}") for step, seconds in steps.items()]
    traced += [("sum of these medians", f"{sum(steps.values()) * 1e6:.1f}")]
    traced += [("the leader's own sync, which began before the Accept was sent or right after", f"{syncs * 1e6:.1f}")]
    text += f"\n\n{table(('step of one write, with every call recorded', 'us'), traced)}"
    verdicts = [at_most("one write's p50 in floors", p50_seconds / floor.seconds, FLOORS_TARGET)]
    if not steps:
        verdicts.append(TargetCheck("where each microsecond goes", None, "no put could be followed"))
    data = {
        "floors": [attrs.asdict(one) for one in floors],
        "p50_seconds": [one.latencies.p50_seconds for one in loaded],
        "steps": steps,
    }
    return Report("one write", text, verdicts, data)


async def _floor(setting: Setting) -> Floor:
    """In a process of its own, as all others are."""
    output = await output_of(setting.reactor, sys.executable, ["-m", "bench.floor", str(setting.folder)])
    return msgspec.convert(json.loads(output), Floor)


async def _steps(setting: Setting, load: Load) -> tuple[dict[str, float], float]:
    """Where the time goes, and how long the leader's own sync takes."""
    folder = setting.new_folder("traced")
    nodes = Nodes(setting.reactor, folder, asked=True, bench_options=[f"--trace={folder}/{{node}}.trace"])
    ours = Ours(setting.reactor, nodes)
    client = folder / "client.trace"
    async with running([ours]):
        await ours.load(load, f"--trace={client}")
    calls = {node: trace.read(folder / f"{node}.trace") for node in nodes.cluster.members}
    leader = calls.pop(ours.leader)
    steps = trace.steps_of(trace.read(client), leader, list(calls.values()))
    return steps, statistics.median(trace.syncs_of(leader))
