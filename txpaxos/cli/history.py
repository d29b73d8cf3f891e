"""Checks the results of a counter's increments: each must be counted, and counted once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs


@attrs.frozen
class AcknowledgedIncrement:
    """An increment and its result.

    :ivar amount: what was added: a positive number that no other increment has.
    :ivar total: the result: the total after the increment.
    :ivar sent_at: when the increment was sent, in seconds.
    :ivar acknowledged_at: when its result came, in seconds.
    """

    amount: int
    total: int
    sent_at: float
    acknowledged_at: float


def complaints(
    amounts: Iterable[int], acknowledged: Iterable[AcknowledgedIncrement], totals: Mapping[str, int]
) -> list[str]:
    """The faults of a run in which only ``amounts`` were added to a counter that began with 0, a line each.

    In the order of the totals, each total must be the one before plus its own amount. An increment that was lost,
    counted twice, or seen in different orders leaves a step that does not fit.

    :param acknowledged: the increments with their results, in any order.
    :param totals: the total of each node at the end.
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
