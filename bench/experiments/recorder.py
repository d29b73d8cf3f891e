"""What it costs that each node records all that enters its core: the same load with it and without."""

from __future__ import annotations

from pathlib import Path

from bench.figures import ratio_of_pairs
from bench.ours import Nodes, Ours, OursRecorded
from bench.report import Report, TargetCheck, as_table, at_least, at_most
from bench.setting import Setting, alternate, as_data, running
from bench.system import Load

LOADS = {"1": (1, 100), "256": (256, 100), "1024": (1024, 100), "64 of 64 KiB": (64, 65_536)}
"""How many puts are under way, and the bytes of a value."""

RATE_TARGET = 0.95
CPU_TARGET = 1.05


async def recorder(setting: Setting) -> Report:
    """Puts to nodes that record and to nodes that do not, in turn."""
    plain = Ours(setting.reactor, Nodes(setting.reactor, setting.new_folder("ours")))
    folder = setting.new_folder("recorded")
    recording = folder.parent / f"{folder.name}.recording"
    recorded = OursRecorded(setting.reactor, Nodes(setting.reactor, folder, options=["--record", str(recording)]))
    loads = {label: Load(count, setting.seconds, value_bytes=size) for label, (count, size) in LOADS.items()}
    async with running([plain, recorded]):
        points = await alternate(setting, [recorded, plain], loads)
    verdicts: list[TargetCheck] = []
    for point in points:
        ratio = point.ratio(OursRecorded.name, Ours.name)
        verdicts.append(at_least(f"rate with a recording in that without at {point.label}", ratio, RATE_TARGET))
        pairs = [[one.cpu_seconds["leader"] for one in point.samples[name]] for name in (OursRecorded.name, Ours.name)]
        target = f"the leader's processor time for a put, in that without, at {point.label}"
        verdicts.append(at_most(target, ratio_of_pairs(*pairs), CPU_TARGET))
    text = f"{as_table(points, 'puts under way', OursRecorded.name)}\n\n{_size(recording)}"
    return Report("recorder", text, verdicts, as_data(points))


def _size(recording: Path) -> str:
    sizes = {node.name: sum(file.stat().st_size for file in node.iterdir()) for node in sorted(recording.iterdir())}
    return "on disk: " + ", ".join(f"{node} {size / 1e6:.0f} MB" for node, size in sizes.items())
