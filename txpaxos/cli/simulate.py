"""``txpaxos simulate``: a whole cluster under simulated faults, for many seeds."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from random import Random
from typing import Any, TextIO

import click
from twisted.logger import globalLogBeginner

from txpaxos.cli.drawings import drawing_options, write_drawings
from txpaxos.cli.options import CommandWithJson, NamedPath, check_number, json_option
from txpaxos.cli.running import CommandError
from txpaxos.drawing import as_text
from txpaxos.log_lines import described
from txpaxos.recording.options import RecordingOptions
from txpaxos.tap import load_application, load_attribute
from txpaxos.testing.simulator.schedule import Fault
from txpaxos.testing.simulator.simulation import SimulationResult, shrink, simulate

RECORD_BYTES_MAX = 2**28
"""The most bytes that the recording of one node has on disk."""


@click.command("simulate", cls=CommandWithJson)
@click.option("--seed", default=0, show_default=True, help="The first seed.")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1), help="How many seeds, one by one.")
@click.option(
    "--seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0.1, 1e6),
    callback=check_number,
    help="Simulated seconds with faults.",
)
@click.option("--nodes", default=3, show_default=True, type=click.IntRange(1, 26), help="Nodes in the cluster.")
@click.option("--changes", is_flag=True, help="Members join, leave, are replaced and move, too.")
@click.option("--keys", is_flag=True, help="Nodes have keys, which are replaced, revoked and stolen.")
@click.option("--timers", is_flag=True, help="Clients have kept-alive timers set, and keep them alive, too.")
@click.option(
    "--app", default="txpaxos.counter:Counter", show_default=True, help="Your service: MODULE:CLASS or FILE.py:CLASS."
)
@click.option("--workload", default=None, help="A function of a random.Random that returns a command, as --app.")
@click.option(
    "--query", default=None, help="A function that returns a query, as --workload. Without it they are empty."
)
@click.option("--prints", is_flag=True, help="Show what the service prints, which is hidden by default.")
@click.option("--shrink", "shrinks", is_flag=True, help="After a violation, look for fewer faults that still cause it.")
@click.option(
    "--record",
    default=None,
    metavar="DIR",
    type=NamedPath(),
    help="Record the cores of all nodes there, for txpaxos replay.",
)
@drawing_options("the last events before a violation")
@json_option("The outcome as JSON: a violation, or what was simulated.")
def command(
    seed: int,
    seeds: int,
    seconds: float,
    nodes: int,
    changes: bool,
    keys: bool,
    timers: bool,
    app: str,
    workload: str | None,
    query: str | None,
    prints: bool,
    shrinks: bool,
    record: str | None,
    svg: str | None,
    shiviz: str | None,
    wants_json: bool,
) -> None:
    """Simulate a cluster under faults.

    Runs your service on real nodes, in one process, on simulated time, network and disks. Each seed draws its own
    kinds of faults; a healed tail follows, in which every command must be answered. The rules of Paxos are checked
    after every event. The same seed gives the same run.

    Exits with 1 at the first violation, and prints its seed, the rule, the faults and the last events.
    """
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    run: Callable[..., SimulationResult] = partial(
        simulate, seconds=seconds, nodes=nodes, changes=changes, keys=keys, timers=timers, app=load_application(app)
    )
    if workload is not None:
        run = partial(run, workload=load_maker(workload, "--workload"))
    if query is not None:
        run = partial(run, query=load_maker(query, "--query"))
    if not prints:
        run = partial(_printing_to, StringIO(), run)
    elif wants_json:
        run = partial(_printing_to, sys.stderr, run)
    recorded = run if record is None else partial(run, record=recording_at(record, seeds))
    result = _run_seeds(recorded, range(seed, seed + seeds), wants_json)
    if result is None:
        return
    if shrinks:
        result = _shrunk(result, partial(_rerun, run, result.seed), wants_json)
    click.echo(json.dumps(_violation(result), indent=2) if wants_json else _explained(result))
    write_drawings(result.diagram, svg, shiviz)  # What was found is told also if it cannot be drawn.
    assert result.violation is not None
    raise SystemExit(1) if wants_json else CommandError(f"seed {result.seed} breaks a rule: {result.violation.rule}")


def _run_seeds(run: Callable[..., SimulationResult], seeds: Sequence[int], wants_json: bool) -> SimulationResult | None:
    """Run ``seeds``, up to the first that breaks a rule, whose result is returned. If there is none, say so."""
    began = time.perf_counter()
    events, simulated, answered = 0, 0.0, 0
    with click.progressbar(seeds, label="simulating", show_pos=True, hidden=wants_json) as progress:
        for seed in progress:
            result = run(seed)
            events += result.events
            simulated += result.simulated_seconds
            answered += result.answered
            if result.violation is not None:
                return result
    if wants_json:
        done = {"seeds": len(seeds), "events": events, "simulated_seconds": simulated, "answered": answered}
        click.echo(json.dumps({"violation": None, **done}, indent=2))
        return None
    rate = events / (time.perf_counter() - began)
    click.echo(
        f"{len(seeds)} seed{'s' * (len(seeds) > 1)} without a violation: {events:,} events ({rate:,.0f} a second),"
        f" {simulated / 3600:.2f} simulated hours, {answered:,} commands answered."
    )
    return None


def recording_at(directory: str, seeds: int) -> RecordingOptions:
    """Where a run is recorded.

    :raises CommandError: one line, if there are several runs, or something is there already.
    """
    if seeds > 1:
        raise CommandError("--record and --seeds: one run is recorded; give --seed alone")
    if os.path.isfile(directory) or (os.path.isdir(directory) and os.listdir(directory)):
        raise CommandError(f"--record {directory}: name a folder that is empty, or not there yet")
    return RecordingOptions(os.path.abspath(directory), RECORD_BYTES_MAX)


def load_maker(name: str, option: str) -> Callable[[Random], bytes]:
    """The function that ``name`` stands for, which makes commands or queries.

    :param option: the option that ``name`` is the value of, for the error.
    :raises ConfigError: one line, if it cannot be loaded.
    :raises CommandError: one line, if it does not return bytes for a random.Random.
    """
    wanted = f"{option} {name}: it must be a function of a random.Random that returns bytes"
    found: Callable[[Random], bytes] = load_attribute(name, option)
    if not callable(found):
        raise CommandError(wanted)
    try:
        made = found(Random(0))
    except BaseException as error:
        raise CommandError(f"{wanted}, and raises {described(error)}") from None
    if not isinstance(made, bytes):
        raise CommandError(f"{wanted}, and returns {type(made).__name__}")
    return found


def _printing_to(stream: TextIO, run: Callable[..., SimulationResult], *args: Any, **kwargs: Any) -> SimulationResult:
    """Call ``run``. What is printed meanwhile goes to ``stream``."""
    with redirect_stdout(stream):
        return run(*args, **kwargs)


def _rerun(run: Callable[..., SimulationResult], seed: int, faults: Sequence[Fault]) -> SimulationResult:
    return run(seed, faults=faults)


def _shrunk(
    result: SimulationResult, rerun: Callable[[Sequence[Fault]], SimulationResult], wants_json: bool
) -> SimulationResult:
    """The same violation with fewer faults, if that can be."""
    smaller = shrink(result, rerun)
    if not wants_json:
        click.echo(f"shrunk from {len(result.faults)} faults to {len(smaller.faults)}")
    return smaller


def _violation(result: SimulationResult) -> dict[str, Any]:
    """What is known of a violation, as JSON has it."""
    assert result.violation is not None
    return {
        "violation": str(result.violation),
        "rule": result.violation.rule,
        "seed": result.seed,
        "faults": [str(fault) for fault in result.faults],
        "last_events": "" if result.diagram is None else as_text(result.diagram),
    }


def _explained(result: SimulationResult) -> str:
    """The violation, its faults and the last events, as text."""
    assert result.diagram is not None
    faults = "".join(f"  {fault}\n" for fault in result.faults)
    return (
        f"\nseed       {result.seed}\nrule       {result.violation}\nfaults\n{faults}"
        f"\n(*: event at a node, o: datagram sent, o-->: datagram arrives)\n{as_text(result.diagram)}\n"
    )
