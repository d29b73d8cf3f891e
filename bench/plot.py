"""Draws what bench/compare.py found. Needs matplotlib.

python -m bench.plot FILE.json FILE.png
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

COLUMNS = 4
COLOURS = {"txpaxos": "tab:blue", "etcd": "tab:orange", "PySyncObj": "tab:green"}


def rates(points: Sequence[Mapping[str, Any]], system: str) -> list[float]:
    """The median rate of a system at each point; not a number where it was not measured."""
    return [
        statistics.median(one["operations"] / one["seconds"] for one in samples) if samples else float("nan")
        for samples in (point["samples"].get(system) for point in points)
    ]


def milliseconds(points: Sequence[Mapping[str, Any]], system: str, which: str) -> list[float]:
    """The median of a percentile of a system at each point."""
    return [
        statistics.median(one["latencies"][which] * 1e3 for one in samples) if samples else float("nan")
        for samples in (point["samples"].get(system) for point in points)
    ]


def plot(found: Mapping[str, Any], file: Path) -> None:
    """Draw those of the experiments that were made and have something to draw. Says so if there is no matplotlib."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        click.echo("nothing is drawn, for there is no matplotlib here: python -m pip install matplotlib", err=True)
        return
    mpl.use("Agg")
    from matplotlib import pyplot

    drawn = [one for one in DRAWINGS if found.get(one[0])]
    columns = min(COLUMNS, max(1, len(drawn)))
    rows = max(1, -(-len(drawn) // columns))
    figure, axes = pyplot.subplots(rows, columns, figsize=(4.5 * columns, 3.5 * rows), squeeze=False)
    for axis in axes.flat[len(drawn) :]:
        axis.set_visible(False)
    for axis, (name, title, draw) in zip(axes.flat, drawn, strict=False):
        draw(axis, found[name])
        axis.set_title(title)
    figure.tight_layout()
    figure.savefig(file, dpi=80)


def _draw_rates(axis: Any, points: Sequence[Mapping[str, Any]]) -> None:
    systems = [system for system in COLOURS if any(point["samples"].get(system) for point in points)]
    width = 0.8 / max(1, len(systems))
    for number, system in enumerate(systems):
        places = [place + number * width for place in range(len(points))]
        axis.bar(places, rates(points, system), width, label=system, color=COLOURS[system])
    axis.set_xticks(range(len(points)), [point["label"] for point in points])
    axis.set_ylabel("puts/s")
    axis.legend()


def _draw_latencies(axis: Any, points: Sequence[Mapping[str, Any]]) -> None:
    labels = [point["label"] for point in points]
    for system, colour in COLOURS.items():
        if any(point["samples"].get(system) for point in points):
            axis.plot(labels, milliseconds(points, system, "p50_seconds"), "o-", color=colour, label=f"{system}, p50")
            axis.plot(labels, milliseconds(points, system, "p99_seconds"), "x--", color=colour, label=f"{system}, p99")
    axis.set_yscale("log")
    axis.set_ylabel("ms")
    axis.legend()


def _draw_in_process(axis: Any, data: Mapping[str, Any]) -> None:
    _draw_rates(axis, data["points"])


def _draw_fail_overs(axis: Any, seconds: Mapping[str, Sequence[float]]) -> None:
    for number, (system, all_) in enumerate(seconds.items()):
        axis.plot([number] * len(all_), all_, "o", label=system, color=COLOURS[system], alpha=0.5)
    axis.set_xticks(range(len(seconds)), list(seconds))
    axis.set_ylabel("s from the kill to the next answer")
    axis.set_ylim(bottom=0)


def _draw_growth(axis: Any, windows: Sequence[Mapping[str, Any]]) -> None:
    costs = [one["sample"]["cpu_seconds"]["leader"] + one["sample"]["cpu_seconds"]["followers"] for one in windows]
    axis.plot([one["commands"] / 1e6 for one in windows], [one * 1e6 for one in costs], color=COLOURS["txpaxos"])
    axis.set_xlabel("million commands")
    axis.set_ylabel("CPU us/put, all nodes")
    axis.set_ylim(bottom=0)


def _draw_steady(axis: Any, data: Mapping[str, Any]) -> None:
    axis.plot(data["loaded"]["answered"], color=COLOURS["txpaxos"])
    axis.set_xlabel("s")
    axis.set_ylabel("puts/s")
    axis.set_ylim(bottom=0)


DRAWINGS: tuple[tuple[str, str, Callable[[Any, Any], None]], ...] = (
    ("closed loop", "closed loop, by puts under way", _draw_rates),
    ("closed loop", "the same: half of them, 99 of a hundred", _draw_latencies),
    ("in process", "in process, by puts under way", _draw_in_process),
    ("values", "by size of the value", _draw_rates),
    ("nodes", "by nodes", _draw_rates),
    ("fail-over", "leader killed", _draw_fail_overs),
    ("growth", "growth", _draw_growth),
    ("steady", "steady", _draw_steady),
)
"""The experiment, the title, and who draws it."""


@click.command()
@click.argument("json_file", type=click.Path(exists=True, path_type=Path))
@click.argument("plot_file", type=click.Path(path_type=Path))
def main(json_file: Path, plot_file: Path) -> None:
    """See the top of this file."""
    plot(json.loads(json_file.read_text())["found"], plot_file)


if __name__ == "__main__":
    main()
