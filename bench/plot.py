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

    drawn = [(name, draw) for name, draw in DRAWINGS.items() if found.get(name)]
    figure, axes = pyplot.subplots(1, max(1, len(drawn)), figsize=(4.5 * max(1, len(drawn)), 4), squeeze=False)
    for axis, (name, draw) in zip(axes[0], drawn, strict=False):
        draw(axis, found[name])
        axis.set_title(name)
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


DRAWINGS: dict[str, Callable[[Any, Any], None]] = {
    "closed loop": _draw_rates,
    "in process": _draw_in_process,
    "values": _draw_rates,
    "nodes": _draw_rates,
    "fail-over": _draw_fail_overs,
    "growth": _draw_growth,
    "steady": _draw_steady,
}


@click.command()
@click.argument("json_file", type=click.Path(exists=True, path_type=Path))
@click.argument("plot_file", type=click.Path(path_type=Path))
def main(json_file: Path, plot_file: Path) -> None:
    """See the top of this file."""
    plot(json.loads(json_file.read_text())["found"], plot_file)


if __name__ == "__main__":
    main()
