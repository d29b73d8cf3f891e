"""What a space-time diagram shows: steps of nodes, and which step caused which.

A diagram has a column for each node, and time runs down (Lamport, *Time, Clocks, and the Ordering of Events in a
Distributed System*, 1978). It does not say what the steps are: a run of the simulator, a trace of the model, clients of
a history, and the story of a slot are all drawn from it, so that a reader who knows one picture knows them all.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

Kind: TypeAlias = Literal["step", "sent", "lost", "saved", "chosen", "applied", "stopped", "started", "broken"]
"""What a step is, which the picture shows by its mark. ``step`` is anything else; ``broken`` is the end of the story:
the rule that was broken."""


@attrs.frozen
class Step:
    """Something that happened at one node.

    :ivar node: where.
    :ivar text: what, in a few words.
    :ivar seconds: when; ``None`` if only the order is known.
    :ivar kind: what its mark looks like.
    :ivar cause: the number of an earlier step that this one follows from: the sending of the message that was received.
    :ivar since: the number of an earlier step at the same node, with which something began that ends here.
    """

    node: str
    text: str
    seconds: float | None = None
    kind: Kind = "step"
    cause: int | None = None
    since: int | None = None


@attrs.frozen
class SpaceTime:
    """A diagram.

    :ivar nodes: the columns, from left to right.
    :ivar steps: the steps, in the order of time. Each is at a node of ``nodes``.
    :ivar title: what the diagram shows, in a line.
    :raises ValueError: if a step is at no node of ``nodes``, or its cause or its beginning is not an earlier step.
    """

    nodes: tuple[str, ...]
    steps: tuple[Step, ...]
    title: str = ""

    def __attrs_post_init__(self) -> None:
        for number, step in enumerate(self.steps):
            if step.node not in self.nodes:
                raise ValueError(f"step {number} is at {step.node}, which is not among {', '.join(self.nodes)}")
            if step.cause is not None and not 0 <= step.cause < number:
                raise ValueError(f"step {number} is caused by step {step.cause}, which is not before it")
            if step.since is not None and not (0 <= step.since < number and self.steps[step.since].node == step.node):
                raise ValueError(f"step {number} begins with step {step.since}, which is not before it at {step.node}")


def plain_text(text: str) -> str:
    """``text`` in one line, without control characters: names come from nodes and from files."""
    shown = (one if one.isprintable() else " " if one.isspace() else "\N{REPLACEMENT CHARACTER}" for one in text)
    return "".join(shown)
