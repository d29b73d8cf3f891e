"""Space-time diagrams as logs for ShiViz, which draws them in a browser and lets a reader search and compare them.

The form is the one that ShiViz reads by default (https://bestchai.bitbucket.io/shiviz/): two lines for each step, the
first with the node and its vector clock (Fidge, *Timestamps in Message-Passing Systems That Preserve the Partial
Ordering*, 1988), the second with the text.
"""

from __future__ import annotations

import json

from txpaxos.drawing.space_time import SpaceTime, plain_text

PARSER = r"(?<host>\S*) (?<clock>{.*})\n(?<event>.*)"
"""The regular expression to give ShiViz. It is its default."""


def as_shiviz(diagram: SpaceTime) -> str:
    """The steps of ``diagram``, each with a vector clock: two lines each, to be read with :data:`PARSER`."""
    clocks: dict[str, dict[str, int]] = {node: {} for node in diagram.nodes}
    at_step: list[dict[str, int]] = []
    lines = []
    for step in diagram.steps:
        clock = clocks[step.node]
        if step.cause is not None:
            for node, count in at_step[step.cause].items():
                clock[node] = max(clock.get(node, 0), count)
        clock[step.node] = clock.get(step.node, 0) + 1
        at_step.append(dict(clock))
        lines += [f"{_host(step.node)} {json.dumps({_host(node): count for node, count in clock.items()})}"]
        lines += [plain_text(" ".join(step.text.split())) or step.kind]
    return "".join(f"{line}\n" for line in lines)


def _host(node: str) -> str:
    """The name of a node without spaces, which end a host's name there."""
    return plain_text("_".join(node.split()))
