"""Whether what a counter's callers were told fits together: each increment counted, and counted once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs


@attrs.frozen
class AcknowledgedIncrement:
    """An increment and its answer.

    :ivar amount: what was added; positive, and of no other increment.
    :ivar total: the answer, the total after it.
    :ivar sent_at: when it was sent, in seconds.
    :ivar acknowledged_at: when the answer came.
    """

    amount: int
    total: int
    sent_at: float
    acknowledged_at: float


def complaints(
    amounts: Iterable[int], acknowledged: Iterable[AcknowledgedIncrement], totals: Mapping[str, int]
) -> list[str]:
    """What is wrong with a run in which nothing but ``amounts`` was added to a counter that began with 0.

    In the order of their totals, each answer must be the one before plus its own amount: an increment that got lost,
    or counted twice, or that anybody saw in another order, leaves a step that does not fit.

    :param totals: node to the total it has at the end.
    """
    found = []
    by_total = sorted(acknowledged, key=lambda one: one.total)
    missing = sorted(set(amounts) - {one.amount for one in by_total})
    if missing:
        found.append(f"{len(missing)} increments were not acknowledged: {', '.join(f'+{one}' for one in missing)}")
    total = 0
    for one in by_total:
        if one.total != total + one.amount:
            found.append(f"+{one.amount} after {total} was acknowledged as {one.total}")
        total = one.total
    found += [f"node {node} has {its} and should have {total}" for node, its in totals.items() if its != total]
    return found
