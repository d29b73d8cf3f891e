"""Ours and PySyncObj in process: the program that puts is the leader itself. Ours syncs each put, PySyncObj none."""

from __future__ import annotations

from collections.abc import Sequence

from bench.ours import Nodes, OursInProcess
from bench.pysyncobj_cluster import SETTINGS, PySyncObj
from bench.report import Point, Report, TargetCheck, as_table, at_least
from bench.setting import Setting, alternate, as_data, running
from bench.system import Load, System

OUTSTANDING = (1, 64, 1024)
TRIAL_SECONDS = 1.0
RATE_TARGET = 1.5


async def in_process(setting: Setting, outstanding: Sequence[int] = OUTSTANDING) -> Report:
    """Each load on both, PySyncObj with those of its settings that are best for this load."""
    best = await best_settings(setting, outstanding) if setting.has(PySyncObj.name) else {}
    ours: list[System] = []
    if setting.has(OursInProcess.name):
        nodes = Nodes(setting.reactor, setting.new_folder("in-process"), asked=True)
        ours.append(OursInProcess(setting.reactor, nodes))
    points: list[Point] = []
    async with running(ours):
        for count in outstanding:
            theirs: list[System] = []
            if count in best:
                theirs.append(PySyncObj(setting.reactor, setting.new_folder("pysyncobj"), best[count]))
            async with running(theirs):
                points += await alternate(setting, [*ours, *theirs], {f"{count}": Load(count, setting.seconds)})
    text = as_table(points, "outstanding", OursInProcess.name)
    if best:
        chosen = ", ".join(f"{count}: {settings}" for count, settings in best.items())
        text += f"\n\nbest settings of PySyncObj, of {len(SETTINGS)} tried: {chosen}"
    return Report("in process", text, _verdicts(points), {"points": as_data(points), "settings": best})


async def best_settings(setting: Setting, outstanding: Sequence[int]) -> dict[int, str]:
    """For each load, the settings with which PySyncObj did most in a short trial."""
    rates: dict[int, dict[str, float]] = {count: {} for count in outstanding}
    for settings in SETTINGS:
        system = PySyncObj(setting.reactor, setting.new_folder("pysyncobj"), settings)
        async with running([system]):
            for count in outstanding:
                sample = await system.put(Load(count, TRIAL_SECONDS, 0.5))
                rates[count][settings] = sample.rate
                setting.say(f"{count}, PySyncObj, {settings}: {sample.rate:.0f} puts/s")
    return {count: max(tried, key=lambda one: tried[one]) for count, tried in rates.items()}


def _verdicts(points: Sequence[Point]) -> list[TargetCheck]:
    verdicts = []
    for point in points:
        ours, theirs = point.median(OursInProcess.name), point.median(PySyncObj.name)
        if point.label == "1024":
            ratio = point.ratio(OursInProcess.name, PySyncObj.name)
            verdicts.append(at_least("rate in PySyncObj's best at 1024 outstanding", ratio, RATE_TARGET))
        elif point.label == "1":
            target = "p50 of one write: at most PySyncObj's best"
            if ours is None or theirs is None:
                verdicts.append(TargetCheck(target, None, "not measured"))
            else:
                our, their = ours.latencies.p50_seconds, theirs.latencies.p50_seconds
                found = f"{our * 1e6:.0f} us to {their * 1e6:.0f} us"
                verdicts.append(TargetCheck(target, our <= their, found))
    return verdicts
