"""Space-time diagrams as text: one column for each node, one line for each step."""

from __future__ import annotations

from txpaxos.drawing.space_time import Kind, SpaceTime, Step

WIDTH_MIN = 9
SECONDS_WIDTH = 11

MARKS: dict[Kind, str] = {
    "step": "*",
    "sent": "o",
    "lost": "x",
    "saved": "#",
    "chosen": "@",
    "applied": "=",
    "stopped": "X",
    "started": "^",
    "broken": "!",
}
"""The mark of a step that no message caused."""


def as_text(diagram: SpaceTime) -> str:
    """The diagram as lines of text. A message that arrives is an arrow (``o-->``) in the line of its arrival; other
    steps are marks."""
    width = max([WIDTH_MIN, *(len(node) + 2 for node in diagram.nodes)])
    has_seconds = any(step.seconds is not None for step in diagram.steps)
    margin = " " * (SECONDS_WIDTH + 2 if has_seconds else 0)
    head = margin + "".join(node.center(width) for node in diagram.nodes)
    lines = [*([diagram.title, ""] if diagram.title else []), head.rstrip()]
    for step in diagram.steps:
        seconds = "" if step.seconds is None else f"{step.seconds:{SECONDS_WIDTH}.6f}"
        row = _row(diagram, step, width)
        lines.append(f"{seconds.ljust(len(margin))}{row}  {step.node} {step.text}")
    return "\n".join(lines)


def _row(diagram: SpaceTime, step: Step, width: int) -> str:
    cells = list("|".center(width) * len(diagram.nodes))
    column = diagram.nodes.index(step.node)
    at = column * width + (width - 1) // 2
    source = None if step.cause is None else diagram.nodes.index(diagram.steps[step.cause].node)
    if source is None or source == column:
        cells[at] = MARKS[step.kind]
        return "".join(cells)
    begin = source * width + (width - 1) // 2
    low, high = sorted((begin, at))
    cells[low : high + 1] = "-" * (high - low + 1)
    cells[begin], cells[at] = "o", ">" if begin < at else "<"
    return "".join(cells)
