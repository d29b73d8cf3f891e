"""What an experiment found: figures for people and for programs, and whether its targets are met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from bench.figures import Sample, median_sample, ratio_of_pairs
from txpaxos.cli.printing import table


@attrs.frozen
class TargetCheck:
    """A target.

    :ivar met: ``None`` if what it takes was not measured.
    :ivar found: what was measured, in words.
    """

    target: str
    met: bool | None
    found: str

    def __str__(self) -> str:
        word = {True: "met", False: "MISSED", None: "open"}[self.met]
        return f"{word:<7} {self.target}: {self.found}"


@attrs.frozen
class Report:
    """What one experiment found.

    :ivar text: its tables.
    :ivar data: what JSON can carry, and a plot needs.
    """

    name: str
    text: str
    verdicts: list[TargetCheck]
    data: Any

    def __str__(self) -> str:
        parts = [f"== {self.name}", self.text, "\n".join(map(str, self.verdicts))]
        return "\n\n".join(part for part in parts if part)


@attrs.frozen
class Point:
    """One load, and what was measured under it: system to its samples, in the order of the runs."""

    label: str
    samples: dict[str, list[Sample]]

    def median(self, system: str) -> Sample | None:
        """The median of a system's samples, if it has any."""
        return median_sample(self.samples[system]) if self.samples.get(system) else None

    def ratio(self, ours: str, theirs: str) -> float | None:
        """Our rate in theirs, pair by pair: the median."""
        if not self.samples.get(ours) or not self.samples.get(theirs):
            return None
        return ratio_of_pairs([one.rate for one in self.samples[ours]], [one.rate for one in self.samples[theirs]])


HEAD = (
    "puts/s",
    "ours/theirs",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "CPU us/put: leader",
    "followers",
    "client",
    "datagrams/put",
)


def as_table(points: Sequence[Point], what: str, ours: str) -> str:
    """A row for each load and system: medians, and how often their rate goes into ours."""
    rows = []
    for point in points:
        for system in point.samples:
            middle = point.median(system)
            if middle is None:
                continue
            ratio = None if system == ours else point.ratio(ours, system)
            rows.append([point.label, system, *_cells(middle, ratio)])
    return table((what, "system", *HEAD), rows)


def _cells(sample: Sample, ratio: float | None) -> list[str]:
    latencies = sample.latencies
    seconds = (latencies.p50_seconds, latencies.p99_seconds, latencies.p999_seconds)
    cpu = [sample.cpu_seconds.get(role) for role in ("leader", "followers", "client")]
    return [
        f"{sample.rate:.0f}",
        "" if ratio is None else f"{ratio:.2f}",
        *(f"{one * 1e3:.3f}" for one in seconds),
        *("" if one is None else f"{one * 1e6:.1f}" for one in cpu),
        f"{sample.datagrams:.2f}",
    ]


def at_least(target: str, found: float | None, least: float, unit: str = "times") -> TargetCheck:
    """A target that is met if ``found`` is at least ``least``."""
    return _verdict(f"{target}: at least {least:g} {unit}", found, unit, found is not None and found >= least)


def at_most(target: str, found: float | None, most: float, unit: str = "times") -> TargetCheck:
    """A target that is met if ``found`` is at most ``most``."""
    return _verdict(f"{target}: at most {most:g} {unit}", found, unit, found is not None and found <= most)


def _verdict(target: str, found: float | None, unit: str, met: bool) -> TargetCheck:
    return TargetCheck(
        target, None if found is None else met, "not measured" if found is None else f"{found:.3g} {unit}"
    )
