"""``txpaxos replay``: run the core again over what ``--record`` has written, and compare."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

import attrs
import click

from txpaxos.cli.options import NamedPath
from txpaxos.cli.progress import Progress
from txpaxos.core.ready import Ready
from txpaxos.errors import RecordingError
from txpaxos.log_lines import printable
from txpaxos.recording.calls import ready_of, shown
from txpaxos.recording.events import CoreCalled, SegmentBegun
from txpaxos.recording.reading import located, read_recording, recorded_nodes
from txpaxos.recording.replaying import MADE, STATE, Difference, Replayer, Step

DIFFERS = 1
"""The exit status if a core does something else, or the recording cannot be read."""
TEXT_CHARACTERS_MAX = 600


@attrs.define
class Outcome:
    """What came of the replay of one node.

    :ivar inputs: how many calls returned what was recorded.
    :ivar readys: how many of them returned something to do.
    :ivar runs: how many starts of the node there are.
    :ivar segments: how many files.
    :ivar chosen_through: the last slot up to which all are chosen, at the end.
    :ivar difference: the first call that returned something else.
    :ivar stopped_at: the call at which all slots up to the one that was asked for were chosen.
    :ivar error: why the recording could not be read to its end.
    """

    node: str
    inputs: int = 0
    readys: int = 0
    runs: int = 0
    segments: int = 0
    chosen_through: int = 0
    difference: Difference | None = None
    stopped_at: Step | None = None
    error: str = ""


@click.command("replay", short_help="Run the core again over a recording, and compare.")
@click.argument("directory", metavar="DIR", type=NamedPath())
@click.option("--node", default=None, help="The node. [default: each node that is recorded there]")
@click.option("--until", type=click.IntRange(1), default=None, help="Stop when all slots up to this one are chosen.")
@click.option("--json", "wants_json", is_flag=True, help="The outcome, as JSON.")
def command(directory: str, node: str | None, until: int | None, wants_json: bool) -> None:
    """Run the core of each node again over the recording in DIR, and compare what it does with what it did.

    DIR is the folder that was given to a node with --record, or to txpaxos simulate. The node may run meanwhile; what
    it has written by now is read.

    \b
    txpaxos replay /var/lib/counter/recording

    Exit status: 0 if all is the same; 1 at the first difference, or if the recording cannot be read.
    """
    directory, own = located(directory)
    nodes = recorded_nodes(directory)
    chosen = node or own
    if chosen is not None and chosen not in nodes:
        raise RecordingError(f"{directory} has no recording of node {chosen}; it has {', '.join(nodes)}")
    outcomes = [replay(directory, one, until) for one in nodes if chosen in (None, one)]
    if wants_json:
        click.echo(json.dumps([as_json(one) for one in outcomes], indent=2))
    else:
        click.echo("\n".join(as_text(one) for one in outcomes))
    raise SystemExit(DIFFERS if any(one.difference or one.error for one in outcomes) else 0)


def replay(directory: str, node: str, until: int | None = None) -> Outcome:
    """Replay the recording of one node.

    :param until: stop when all slots up to this one are chosen.
    """
    replayer, outcome, run = Replayer(), Outcome(node), 0
    progress = Progress(f"replaying {node}")
    try:
        for step in replayer.steps(read_recording(directory, node)):
            if isinstance(step.event, SegmentBegun):
                outcome.segments += 1
                with suppress(OSError):  # The node may just have removed it.
                    progress.add(os.path.getsize(step.event.path))
                outcome.runs += step.event.run != run
                run = step.event.run
            outcome.difference = step.difference
            if step.core is not None:
                outcome.chosen_through = step.core.log.chosen_through
            if until is not None and outcome.chosen_through >= until and isinstance(step.event, CoreCalled):
                outcome.stopped_at = step
                break
    except RecordingError as error:
        outcome.error = str(error)
    finally:
        progress.end()
    outcome.inputs, outcome.readys = replayer.inputs, replayer.readys
    return outcome


# ---------------------------------------------------------------------- as JSON


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The outcome, of types that JSON has."""
    found = attrs.asdict(outcome, filter=lambda field, _: field.name != "stopped_at")
    if (step := outcome.stopped_at) is not None and isinstance(step.event, CoreCalled):
        event = step.event
        found["stopped_at"] = {
            "number": event.number,
            "call": event.call.method,
            "now": event.now,
            "arguments": shown(event.arguments),
            "returned": shown(step.result),
        }
    return {"same": not outcome.difference and not outcome.error, **found}


# ---------------------------------------------------------------------- as text


def as_text(outcome: Outcome) -> str:
    """The outcome for people."""
    difference = outcome.difference
    node = printable(outcome.node)
    so_far = f"{outcome.inputs} inputs, {outcome.readys} Readys equal"
    if outcome.error:
        return f"{node}: {so_far}, then: {printable(outcome.error, TEXT_CHARACTERS_MAX)}"
    if difference is not None:
        return _difference(node, difference)
    lines = [f"{node}: same: {so_far}; all slots up to {outcome.chosen_through} are chosen"]
    if (step := outcome.stopped_at) is not None and isinstance(step.event, CoreCalled):
        lines += _call(step, step.event)
    return "\n".join(lines)


def _difference(node: str, difference: Difference) -> str:
    at = f"run {difference.run}, input {difference.number}"
    if difference.call == MADE:
        what = f"{node}: another core is made from what was saved (run {difference.run})"
    elif difference.call == STATE:
        what = f"{node}: differs after {at}: the state of the core"
    else:
        what = f"{node}: differs at {at}: {difference.call}{printable(difference.arguments, TEXT_CHARACTERS_MAX)}"
    returned, recorded = (printable(one, TEXT_CHARACTERS_MAX) for one in (difference.returned, difference.recorded))
    return f"{what}\n  at        {difference.now:.6f} s\n  returned  {returned}\n  recorded  {recorded}"


def _call(step: Step, event: CoreCalled) -> list[str]:
    ready: Ready = ready_of(step.result)
    lines = [f"  input {event.number} at {event.now:.6f} s: {event.call.method}{shown(event.arguments)}"]
    for name, items in (("saves", ready.save), ("sends", ready.send), ("hands out", ready.chosen)):
        lines += [f"    {name} {shown(one)}" for one in items]
    return [printable(line, TEXT_CHARACTERS_MAX) for line in lines]
