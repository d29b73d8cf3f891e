"""Space-time diagrams as pictures (SVG), in light and dark, which need nothing from outside."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from txpaxos.drawing.space_time import Kind, SpaceTime, Step, plain_text

COLUMN = 90
ROW = 22
TOP = 64
SECONDS_WIDTH = 92
CHARACTER = 7.3
TEXT_CHARACTERS_MAX = 140

STYLE = """
.space-time { color-scheme: light dark; --ink: #1f2328; --faint: #8c959f; --paper: #ffffff; --message: #0550ae;
  --saved: #953800; --chosen: #116329; --broken: #a40e26; background: var(--paper); }
@media (prefers-color-scheme: dark) { .space-time { --ink: #e6edf3; --faint: #7d8590; --paper: #0d1117;
  --message: #79c0ff; --saved: #ffa657; --chosen: #7ee787; --broken: #ff7b72; } }
.space-time text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: var(--ink); }
.space-time .title, .space-time .node { font-weight: 600; }
.space-time .node { text-anchor: middle; }
.space-time .seconds { text-anchor: end; fill: var(--faint); }
.space-time .life { stroke: var(--faint); stroke-dasharray: 2 3; }
.space-time .guide { stroke: var(--faint); stroke-opacity: 0.35; }
.space-time .span { stroke: var(--message); stroke-width: 5; stroke-opacity: 0.35; stroke-linecap: round; }
.space-time .message { stroke: var(--message); stroke-width: 1.4; marker-end: url(#arrow); }
.space-time .head { fill: var(--message); }
.space-time .mark { fill: var(--paper); stroke: var(--ink); stroke-width: 1.6; }
.space-time .saved .mark { fill: var(--saved); stroke: var(--saved); }
.space-time .chosen .mark, .space-time .applied .mark { fill: var(--chosen); stroke: var(--chosen); }
.space-time .stopped .mark, .space-time .lost .mark, .space-time .broken .mark { stroke: var(--broken); }
.space-time .broken text { fill: var(--broken); font-weight: 600; }
"""


def as_svg(diagram: SpaceTime) -> str:
    """The diagram as an SVG document. It is as high as its steps need, and has their whole text also for readers of
    screens, who hear the steps one after the other."""
    has_seconds = any(step.seconds is not None for step in diagram.steps)
    left = (SECONDS_WIDTH if has_seconds else 10) + COLUMN // 2
    prose = left + COLUMN * (len(diagram.nodes) - 1) + COLUMN // 2
    texts = [len(_shortened(f"{step.node} {step.text}")) for step in diagram.steps]
    width = round(prose + CHARACTER * max([*texts, len(diagram.title), 12]) + 16)
    height = TOP + ROW * len(diagram.steps) + ROW
    columns = {node: left + COLUMN * index for index, node in enumerate(diagram.nodes)}
    title = _text(diagram.title or "Space-time diagram")
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="space-time" role="img" aria-labelledby="title"'
        f' viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f'<title id="title">{title}</title>',
        f"<style>{STYLE}</style>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="11" refY="4" markerWidth="8" markerHeight="8"'
        ' orient="auto"><path class="head" d="M0 0 8 4 0 8z"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="var(--paper)"/>',
        f'<text class="title" x="10" y="20">{_text(diagram.title)}</text>',
        *_life_lines(columns, height),
        *_connections(diagram, columns),
        *(_drawn(step, number, columns, prose) for number, step in enumerate(diagram.steps)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _life_lines(columns: dict[str, int], height: int) -> Iterator[str]:
    for node, x in columns.items():
        yield f'<text class="node" x="{x}" y="{TOP - 24}">{_text(_shortened(node, 12))}</text>'
        yield f'<line class="life" x1="{x}" y1="{TOP - 16}" x2="{x}" y2="{height - 6}"/>'


def _connections(diagram: SpaceTime, columns: dict[str, int]) -> Iterator[str]:
    """The messages, from the step that sent each to the step that received it, and what lasted for a while."""
    for number, step in enumerate(diagram.steps):
        x, y = columns[step.node], _height_of(number)
        if step.since is not None:
            yield f'<line class="span" x1="{x}" y1="{_height_of(step.since)}" x2="{x}" y2="{y}"/>'
        if step.cause is not None and (source := diagram.steps[step.cause].node) != step.node:
            yield f'<line class="message" x1="{columns[source]}" y1="{_height_of(step.cause)}" x2="{x}" y2="{y}"/>'


def _drawn(step: Step, number: int, columns: dict[str, int], prose: int) -> str:
    x, y = columns[step.node], _height_of(number)
    whole = f"{step.node} {step.text}"
    seconds = "" if step.seconds is None else f'<text class="seconds" x="84" y="{y + 4}">{step.seconds:.6f}</text>'
    return (
        f'<g class="{step.kind}"><title>{_text(whole)}</title>{seconds}'
        f'<line class="guide" x1="{x}" y1="{y}" x2="{prose - 6}" y2="{y}"/>{_mark(step.kind, x, y)}'
        f'<text x="{prose}" y="{y + 4}">{_text(_shortened(whole))}</text></g>'
    )


def _mark(kind: Kind, x: int, y: int) -> str:
    """The mark of a step: a square for what is on disk, a cross for what ends, a disc for the rest."""
    if kind == "saved":
        return f'<rect class="mark" x="{x - 4}" y="{y - 4}" width="8" height="8"/>'
    if kind in ("stopped", "lost", "broken"):
        return f'<path class="mark" d="M{x - 5} {y - 5} {x + 5} {y + 5}M{x + 5} {y - 5} {x - 5} {y + 5}"/>'
    return f'<circle class="mark" cx="{x}" cy="{y}" r="{5 if kind == "chosen" else 4}"/>'


def _height_of(number: int) -> int:
    return TOP + ROW * number


def _shortened(text: str, characters_max: int = TEXT_CHARACTERS_MAX) -> str:
    return text if len(text) <= characters_max else f"{text[: characters_max - 3]}..."


def _text(text: str) -> str:
    """``text`` as XML has it, which knows no control characters."""
    return escape(plain_text(text))
