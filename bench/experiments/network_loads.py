"""Loads of network clients on ours and on etcd: closed loops, open loops, big values, many nodes, syncs."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from bench import syncs
from bench.etcd import Etcd, EtcdSecured
from bench.ours import Nodes, Ours, OursSecured
from bench.report import Point, Report, TargetCheck, as_table, at_least
from bench.setting import Setting, alternate, as_data, running
from bench.system import Load, System
from txpaxos.cli.printing import table

OUTSTANDING = (1, 64, 256, 1024)
RATE_TARGETS = {1: 1.0, 64: 2.0, 256: 2.0, 1024: 2.0}
KEYS_TARGETS = {1: 0.9, 64: 0.85, 256: 0.85, 1024: 0.85}
OPEN_OUTSTANDING_MAX = 4096
"""A system that is so far behind is overloaded, and waited for. (etcd refuses what comes when 5,000 are under way.)"""

OPEN_SHARES = (0.5, 0.8)
VALUES = {"100 B": (100, 64), "4 KiB": (4096, 64), "64 KiB": (65_536, 64), "1 MiB": (2**20, 16)}
"""Bytes of a value, and how many are under way."""

NODE_COUNTS = (3, 5, 7, 9)
MEGABYTES_TARGET = 100.0
NINE_NODES_TARGET = 0.5


def systems_of(setting: Setting, node_count: int = 3, *, counts_syncs: bool = False) -> list[System]:
    """Those that are compared, not started yet."""
    systems: list[System] = []
    if setting.has(Ours.name):
        nodes = Nodes(setting.reactor, setting.new_folder("ours"), node_count, counts_syncs=counts_syncs)
        systems.append(Ours(setting.reactor, nodes))
    if setting.has(Etcd.name):
        folder = setting.new_folder("etcd")
        systems.append(Etcd(setting.reactor, folder, node_count, counts_syncs=counts_syncs))
    return systems


async def closed(setting: Setting, outstanding: Sequence[int] = OUTSTANDING) -> Report:
    """A fixed number of puts of 100 bytes under way at any time, over 16 connections of one client process."""
    systems = systems_of(setting)
    async with running(systems):
        points = await alternate(setting, systems, {f"{one}": Load(one, setting.seconds) for one in outstanding})
    verdicts = []
    for point in points:
        least, where = RATE_TARGETS.get(int(point.label), 1.0), f"at {point.label} outstanding"
        verdicts.append(at_least(f"rate in etcd's {where}", point.ratio(Ours.name, Etcd.name), least))
        verdicts.append(_p99_verdict(point, where))
    return Report("closed loop", as_table(points, "outstanding", Ours.name), verdicts, as_data(points))


def _p99_verdict(point: Point, where: str) -> TargetCheck:
    ours, theirs = point.median(Ours.name), point.median(Etcd.name)
    target = f"p99 {where}: no worse than etcd's"
    if ours is None or theirs is None:
        return TargetCheck(target, None, "not measured")
    our, their = ours.latencies.p99_seconds, theirs.latencies.p99_seconds
    return TargetCheck(target, our <= their, f"{our * 1e3:.2f} ms to {their * 1e3:.2f} ms")


async def secured(setting: Setting, outstanding: Sequence[int] = OUTSTANDING) -> Report:
    """The closed loop with keys and without, ours and etcd's: what keys cost."""
    systems = systems_of(setting)
    if setting.has(OursSecured.name):
        systems.append(OursSecured(setting.reactor, Nodes(setting.reactor, setting.new_folder("ours"))))
    if setting.has(EtcdSecured.name):
        systems.append(EtcdSecured(setting.reactor, setting.new_folder("etcd")))
    async with running(systems):
        points = await alternate(setting, systems, {f"{one}": Load(one, setting.seconds) for one in outstanding})
    pairs = [(OursSecured.name, Ours.name), (EtcdSecured.name, Etcd.name), (OursSecured.name, EtcdSecured.name)]
    rows, verdicts = [], []
    for point in points:
        ratios = [point.ratio(*pair) for pair in pairs]
        rows.append([point.label, *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios)])
        target = f"rate with keys in that without at {point.label} outstanding"
        verdicts.append(at_least(target, ratios[0], KEYS_TARGETS.get(int(point.label), 0.85)))
    head = ("outstanding", *(f"{one} / {other}" for one, other in pairs))
    text = f"{as_table(points, 'outstanding', Ours.name)}\n\n{table(head, rows)}"
    return Report("keys", text, verdicts, as_data(points))


async def open_loop(setting: Setting) -> Report:
    """Puts sent at half and at four fifths of each system's own peak, whether those before were answered or not."""
    systems, points = systems_of(setting), []
    async with running(systems):
        for system in systems:
            peak = (await system.put(Load(1024, setting.seconds))).rate
            loads = {}
            for share in OPEN_SHARES:
                load = Load(OPEN_OUTSTANDING_MAX, setting.seconds, rate=share * peak)
                loads[f"{share:.0%} of {peak:.0f}/s"] = load
            points += await alternate(setting, [system], loads)
    return Report("open loop", as_table(points, "rate", Ours.name), [], as_data(points))


async def values(setting: Setting) -> Report:
    """Values of 100 bytes to 1 MiB."""
    systems, points = systems_of(setting), []
    loads = {label: Load(count, setting.seconds, value_bytes=size) for label, (size, count) in VALUES.items()}
    async with running(systems):
        points = await alternate(setting, systems, loads)
    rows, megabytes = [], {}
    for point in points:
        for system in point.samples:
            middle = point.median(system)
            assert middle is not None
            megabytes[point.label, system] = middle.rate * loads[point.label].value_bytes / 1e6
            rows.append((point.label, system, f"{megabytes[point.label, system]:.1f}"))
    text = f"{as_table(points, 'value', Ours.name)}\n\n{table(('value', 'system', 'MB/s of values'), rows)}"
    big = megabytes.get(("64 KiB", Ours.name))
    verdicts = [at_least("values of 64 KiB, committed", big, MEGABYTES_TARGET, "MB/s")]
    return Report("values", text, verdicts, as_data(points))


async def nodes(setting: Setting, counts: Sequence[int] = NODE_COUNTS) -> Report:
    """Clusters of more nodes, all on this machine, at 1,024 outstanding."""
    points = []
    for count in counts:
        systems = systems_of(setting, count)
        async with running(systems):
            points += await alternate(setting, systems, {f"{count}": Load(1024, setting.seconds)})
    medians = {point.label: point.median(Ours.name) for point in points}
    three, nine = medians.get("3"), medians.get("9")
    share = None if three is None or nine is None else nine.rate / three.rate
    verdicts = [at_least("rate of 9 nodes in that of 3", share, NINE_NODES_TARGET)]
    return Report("nodes", as_table(points, "nodes", Ours.name), verdicts, as_data(points))


async def count_syncs(setting: Setting, outstanding: Sequence[int] = OUTSTANDING) -> Report:
    """Syncs for each put, of all nodes together, as ``strace`` counts them; what they save is slower then."""
    missing = syncs.absent()
    if missing:
        setting.say(f"syncs are not counted: {missing}")
        return Report("syncs", f"not counted: {missing}", [], [])
    systems = systems_of(setting, counts_syncs=True)
    rows, data = [], []
    async with running(systems):
        for count in outstanding:
            for system in systems:
                before = syncs.syncs_seen(system.folder)
                sample = await system.put(Load(count, min(setting.seconds, 2.0)))
                each = (syncs.syncs_seen(system.folder) - before) / sample.operations_total
                rows.append((count, system.name, f"{each:.3f}", f"{sample.rate:.0f}"))
                data.append({"outstanding": count, "system": system.name, "syncs": each, **attrs.asdict(sample)})
    head = ("outstanding", "system", "syncs/put, all nodes", "puts/s meanwhile")
    return Report("syncs", table(head, rows), [], data)
