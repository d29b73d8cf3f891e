"""The last events of a simulated cluster as a space-time diagram in text: one column for each node, time running
down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from txpaxos.errors import CodecError
from txpaxos.wire.codec import Codec

if TYPE_CHECKING:
    from txpaxos.testing.simulator.cluster import SimulatedCluster

WIDTH = 9
ROWS = 80
VALUE_CHARACTERS = 24


def space_time(cluster: SimulatedCluster, rows: int = ROWS) -> str:
    """Draw the last ``rows`` events: datagrams as they left (``o-->``) and events at nodes (``*``)."""
    codec = Codec(cluster.configuration.name, cluster.names[0], members=cluster.names)
    head = " " * 13 + "".join(name.center(WIDTH) for name in cluster.all_machines)
    lines = [head]
    for when, who, what in list(cluster.trace)[-rows:]:
        lines.append(f"{when:11.6f}  " + _row(cluster.all_machines, who, what, codec))
    return "\n".join(lines)


def _row(names: tuple[str, ...], who: str, what: Any, codec: Codec) -> str:
    cells = ["|".center(WIDTH) for _ in names]
    if isinstance(what, str):
        if who in names:
            cells[names.index(who)] = "*".center(WIDTH)
        return "".join(cells) + f"  {who} {what}"
    target, data = what
    if target not in names:
        return "".join(cells)
    return _arrow(names.index(who), names.index(target), "".join(cells)) + f"  {_describe(codec, data)}"


def _arrow(source: int, target: int, cells: str) -> str:
    """Draw an arrow over the columns from ``source`` to ``target``."""
    begin, end = (column * WIDTH + WIDTH // 2 for column in sorted((source, target)))
    line = list(cells)
    line[begin : end + 1] = "-" * (end - begin + 1)
    line[source * WIDTH + WIDTH // 2] = "o"
    line[target * WIDTH + WIDTH // 2] = ">" if source < target else "<"
    return "".join(line)


def _describe(codec: Codec, data: bytes) -> str:
    try:
        message = codec.decode(data).message
    except CodecError as error:
        return f"not a message: {error}"
    fields = []
    for field in attrs.fields(type(message)):
        value = getattr(message, field.name)
        text = str(value) if field.name in ("ballot", "promised") else repr(value)
        fields.append(f"{field.name}={text[:VALUE_CHARACTERS]}")
    return f"{type(message).__name__}({', '.join(fields)})"
