"""What changes with time: the cost of a put after millions of them, and ten minutes at full load."""

from __future__ import annotations

import statistics
from typing import Any

import attrs
from twisted.internet.task import LoopingCall

from bench.figures import Sample
from bench.loop import Loaded
from bench.machine import disk_bytes, resident_bytes
from bench.ours import Nodes, Ours
from bench.report import Report, TargetCheck, at_most
from bench.setting import Setting, running
from bench.system import Load
from txpaxos.cli.printing import table
from txpaxos.cli.status import ask_nodes

OUTSTANDING = 1024
COMMANDS_FIRST = 10_000
COMMANDS = 5_000_000
GROWTH_TARGET = 0.1
ENDS = 3
"""How many windows at each end are compared, by their medians."""

SAMPLE_SECONDS = 5.0
STATUS_SECONDS = 5.0


@attrs.frozen
class Window:
    """Some seconds of load, and after how many commands they began."""

    commands: int
    sample: Sample

    @property
    def cpu_seconds(self) -> float:
        """What one put costs all nodes together."""
        return self.sample.cpu_seconds["leader"] + self.sample.cpu_seconds["followers"]


async def growth(setting: Setting, commands: int = COMMANDS) -> Report:
    """Windows of load, one after the other, until ``commands`` commands were applied. The cost of the first ones is
    compared with that of the last ones."""
    if not setting.has(Ours.name):
        return Report("growth", "not measured", [], {})
    windows: list[Window] = []
    ours = Ours(setting.reactor, Nodes(setting.reactor, setting.new_folder("ours")))
    async with running([ours]):
        done = 0
        while done < COMMANDS_FIRST:
            done += (await ours.put(Load(OUTSTANDING, 1.0, 0.0))).operations_total
        while done < commands or len(windows) < 2 * ENDS:
            sample = await ours.put(Load(OUTSTANDING, setting.seconds, 0.5))
            windows.append(Window(done, sample))
            done += sample.operations_total
            setting.say(f"{done} commands: {sample.rate:.0f} puts/s")
    first, last = (statistics.median(one.cpu_seconds for one in part) for part in (windows[:ENDS], windows[-ENDS:]))
    shown = windows[:: max(1, len(windows) // 10)]
    rows = [(one.commands, f"{one.sample.rate:.0f}", f"{one.cpu_seconds * 1e6:.1f}") for one in shown]
    growing = abs(last / first - 1)
    target = f"growth: change of a put's cost up to {done} commands"
    verdicts = [at_most(target, growing * 100, GROWTH_TARGET * 100, "%")]
    text = table(("commands", "puts/s", "CPU us/put, all nodes"), rows)
    return Report("growth", text, verdicts, [attrs.asdict(one) for one in windows])


@attrs.frozen
class Held:
    """What all nodes hold at a moment, together."""

    seconds: float
    disk_bytes: int
    memory_bytes: int


async def steady(setting: Setting, minutes: float = 10.0) -> Report:
    """Full load for so long, without a pause, while the log is compacted."""
    if not setting.has(Ours.name):
        return Report("steady", "not measured", [], {})
    held: list[Held] = []
    ours = Ours(setting.reactor, Nodes(setting.reactor, setting.new_folder("ours")))
    began = setting.reactor.seconds()

    def sample() -> None:
        pids = [pid for role in ours.pids().values() for pid in role]
        disk, memory = disk_bytes(ours.folder), sum(map(resident_bytes, pids))
        held.append(Held(setting.reactor.seconds() - began, disk, memory))

    async with running([ours]):
        before = await _statuses(setting, ours)
        sampling = LoopingCall(sample)
        sampling.start(SAMPLE_SECONDS)
        loaded = await ours.load(Load(OUTSTANDING, minutes * 60))
        sampling.stop()
        after = await _statuses(setting, ours)
    return _steady_report(loaded, held, before, after)


async def _statuses(setting: Setting, ours: Ours) -> list[dict[str, Any]]:
    statuses = await ask_nodes(setting.reactor, ours.nodes.cluster, STATUS_SECONDS)
    return [status or {"ballot": "no answer", "snapshot_slot": 0} for status in statuses.values()]


def _steady_report(
    loaded: Loaded, held: list[Held], before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> Report:
    count = len(loaded.answered)
    quarters = [loaded.answered[part * count // 4 : (part + 1) * count // 4] for part in range(4)]
    rows = []
    for part, answered in enumerate(quarters):
        there = held[part * len(held) // 4 : (part + 1) * len(held) // 4] or held
        disk, memory = max(one.disk_bytes for one in there), max(one.memory_bytes for one in there)
        rate = statistics.mean(answered) if answered else 0.0
        rows.append((part + 1, f"{rate:.0f}", min(answered, default=0), f"{disk / 2**20:.0f}", f"{memory / 2**20:.0f}"))
    latencies = loaded.latencies
    text = table(("quarter", "puts/s", "in the worst second", "most MiB on disk", "most MiB of memory"), rows)
    text += (
        f"\n\n{sum(loaded.answered)} puts in {loaded.seconds:.0f} s; p50 {latencies.p50_seconds * 1e3:.2f} ms, p99"
        f" {latencies.p99_seconds * 1e3:.2f} ms, p99.9 {latencies.p999_seconds * 1e3:.2f} ms; longest time without an"
        f" answer {loaded.longest_gap_seconds * 1e3:.0f} ms; last snapshots at slots"
        f" {', '.join(str(status['snapshot_slot']) for status in after)}"
    )
    ballots = {status["ballot"] for status in (*before, *after)}
    target = f"no leader change in {loaded.seconds / 60:.3g} minutes at full load"
    verdicts = [TargetCheck(target, len(ballots) == 1, f"ballots {', '.join(sorted(ballots))}")]
    data = {"loaded": attrs.asdict(loaded), "held": [attrs.asdict(one) for one in held]}
    return Report("steady", text, verdicts, data)
