"""Operations as a diagram in text (a row for each client, time going right, one column or more per event), and as a
space-time diagram."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import attrs
import msgspec

from txpaxos.drawing.space_time import SpaceTime, Step
from txpaxos.testing.linearizability.history import UNKNOWN, Operation

LABEL_MAX = 40
WIDTH = 100

Line: TypeAlias = list[str]


def label(operation: Operation) -> str:
    """What was asked and answered: ``write 5 -> null``, ``get "x y" failed``, ``add 3 -> ?``."""
    if operation.outcome == "fail":
        return _cut(f"{_asked(operation)} failed")
    return _cut(f"{_asked(operation)} {_answered(operation)}")


def _asked(operation: Operation) -> str:
    parts = operation.input if isinstance(operation.input, tuple) else (operation.input,)
    return " ".join(as_text(part) for part in parts)


def _answered(operation: Operation) -> str:
    return f"-> {'?' if operation.output is UNKNOWN else as_text(operation.output)}"


def as_text(value: Any) -> str:
    """JSON, without quotes around what needs none."""
    if isinstance(value, str) and value.isprintable() and value and not set(value) & set(' "'):
        return value
    return msgspec.json.encode(value).decode()


def diagram(operations: Sequence[Operation], until: int) -> list[str]:
    """The lines of a diagram of what happened up to line ``until`` of the history.

    What goes on after that ends in ``>``. A client with several operations at a time has several rows. A diagram that
    is too wide continues below.
    """
    spans = _spans(operations, until)
    rows = _rows(spans)
    margin = max((len(name) for name, _ in rows), default=0) + 2
    width = max((span.right for span in spans), default=0) + 1
    lines: list[str] = []
    for left, right in _bands(spans, width):
        lines += [""] if lines else []
        for name, row in rows:
            text = "".join(_drawn(row, width)[left:right])
            lines.append((name.ljust(margin) + text).rstrip())
    return lines


def space_time(operations: Sequence[Operation], until: int, title: str = "") -> SpaceTime:
    """The same as a space-time diagram: a column for each client, with the time from each question to its answer. What
    goes on after line ``until`` has no end in it."""
    events = [(each.invoked, each) for each in operations]
    events += [(each.returned, each) for each in operations if each.returned and each.returned <= until]
    steps: list[Step] = []
    asked: dict[int, int] = {}
    for line, one in sorted(events, key=lambda event: event[0]):
        if line == one.invoked:
            asked[line] = len(steps)
            steps.append(Step(one.client, f"asks: {_asked(one)}", one.invoked_seconds, "sent"))
        else:
            answered = "failed" if one.outcome == "fail" else _answered(one)
            text = f"{_asked(one)} {answered}"
            steps.append(Step(one.client, text, one.returned_seconds, since=asked[one.invoked]))
    return SpaceTime(tuple(sorted({one.client for one in operations})), tuple(steps), title)


@attrs.frozen
class _Span:
    """An operation and the columns of its two ends."""

    operation: Operation
    text: str
    left: int
    right: int
    is_open: bool


def _spans(operations: Sequence[Operation], until: int) -> list[_Span]:
    events = [(operation.invoked, False, operation) for operation in operations]
    events += [(each.returned, True, each) for each in operations if each.returned and each.returned <= until]
    events.sort(key=lambda event: event[0])
    left: dict[int, int] = {}
    right: dict[int, int] = {}
    column, gap = -1, 1
    for _, is_end, operation in events:
        if is_end:
            column = max(column + 1, left[operation.invoked] + len(label(operation)) + 1)
            right[operation.invoked] = column
            gap = 2
        else:
            column += gap
            left[operation.invoked] = column
            gap = 1
    edge = max([column, *[left[each.invoked] + len(label(each)) for each in operations]], default=0) + 1
    return [
        _Span(each, label(each), left[each.invoked], right.get(each.invoked, edge), each.invoked not in right)
        for each in operations
    ]


def _rows(spans: Iterable[_Span]) -> list[tuple[str, list[_Span]]]:
    """Rows with the names of their clients: as few rows for each client as keep its operations apart."""
    clients: dict[str, list[list[_Span]]] = {}
    for span in sorted(spans, key=lambda span: span.left):
        rows = clients.setdefault(span.operation.client, [])
        for row in rows:
            if row[-1].right < span.left:
                row.append(span)
                break
        else:
            rows.append([span])
    return [(client, row) for client in sorted(clients) for row in clients[client]]


def _drawn(row: Iterable[_Span], width: int) -> Line:
    line = [" "] * width
    for span in row:
        inside = span.text.ljust(span.right - span.left - 1, "-")
        line[span.left : span.right + 1] = f"|{inside}{'>' if span.is_open else '|'}"
    return line


def _bands(spans: Sequence[_Span], width: int) -> list[tuple[int, int]]:
    """Where to cut a wide diagram, if possible not within a text."""
    bands, left = [], 0
    while width - left > WIDTH:
        for right in range(left + WIDTH, left + WIDTH // 2, -1):
            if not any(span.left < right <= span.left + len(span.text) for span in spans):
                break
        else:
            right = left + WIDTH
        bands.append((left, right))
        left = right
    return [*bands, (left, width)]


def _cut(text: str) -> str:
    return text if len(text) <= LABEL_MAX else f"{text[: LABEL_MAX - 3]}..."
