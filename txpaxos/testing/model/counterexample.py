"""A trace of the model as readable text, and as a space-time diagram."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from txpaxos.core.messages import Message, NodeId
from txpaxos.drawing.space_time import SpaceTime, Step
from txpaxos.testing.model.formatting import show
from txpaxos.testing.model.messages_in_flight import MessageInFlight
from txpaxos.testing.model.node import ModelEvent


def format_counterexample(trace: Iterable[tuple[ModelEvent, ...]], violation: str) -> str:
    """The events, one after another, and the violation at the end."""
    lines = []
    for number, event in enumerate(relevant_events(trace), 1):
        what = event.what
        if event.message is not None:
            what += f" {show(event.message)} from {event.sender}"
        lines.append(f"{number:3}  {event.node}  {what}")
        lines += [f"        saves      {show(record)}" for record in event.saves]
        lines += [f"        sends      {show(message)} to {' '.join(to)}" for message, to in _addressed(event)]
        lines += [f"        hands out  {show(item)}" for item in event.hands_out]
    return "\n".join((*lines, f"  =  {violation}"))


def space_time(trace: Iterable[tuple[ModelEvent, ...]], violation: str, title: str = "") -> SpaceTime:
    """The same as a diagram. The trace has no times, only an order."""
    steps: list[Step] = []
    sent: dict[MessageInFlight, int] = {}
    events = relevant_events(trace)
    for event in events:
        cause = None if event.message is None else sent.get((event.sender, event.node, event.message))
        what = event.what if event.message is None else f"{event.what} {show(event.message)} from {event.sender}"
        steps.append(Step(event.node, what, kind="stopped" if event.restarts else "step", cause=cause))
        steps += [Step(event.node, f"saves {show(record)}", kind="saved") for record in event.saves]
        for message, to in _addressed(event):
            sent |= dict.fromkeys(((event.node, receiver, message) for receiver in to), len(steps))
            steps.append(Step(event.node, f"sends {show(message)} to {' '.join(to)}", kind="sent"))
        steps += [Step(event.node, f"hands out {show(item)}", kind="chosen") for item in event.hands_out]
    if steps:
        steps.append(Step(steps[-1].node, violation, kind="broken"))
    nodes = sorted({event.node for event in events} | {to for event in events for to, _ in event.sends})
    return SpaceTime(tuple(nodes), tuple(steps), title)


def relevant_events(trace: Iterable[tuple[ModelEvent, ...]]) -> list[ModelEvent]:
    """All events, except those that only sent messages which never arrive in this trace or were sent before."""
    events = [event for step in trace for event in step]
    sent: set[MessageInFlight] = set()
    news: list[set[MessageInFlight]] = []
    for event in events:
        if event.restarts:
            sent -= {(node, to, message) for node, to, message in sent if node == to == event.node}
        news.append({(event.node, to, message) for to, message in event.sends} - sent)
        sent |= news[-1]
    kept: list[ModelEvent] = []
    wanted: set[MessageInFlight] = set()
    for event, new in zip(reversed(events), reversed(news), strict=True):
        if event.gift and not new & wanted:
            continue
        kept.append(event)
        wanted -= new
        if event.message is not None:
            wanted.add((event.sender, event.node, event.message))
    return kept[::-1]


def _addressed(event: ModelEvent) -> Sequence[tuple[Message, list[NodeId]]]:
    addressed: dict[Message, list[NodeId]] = {}
    for to, message in event.sends:
        addressed.setdefault(message, []).append(to)
    return list(addressed.items())
