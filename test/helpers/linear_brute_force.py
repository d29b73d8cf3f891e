"""Linearizability by its definition: try every order. The real checker is compared with it on small histories."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from txpaxos.testing.linearizability.history import Operation
from txpaxos.testing.linearizability.models import Model


def is_linearizable(
    model: Model, required: Iterable[Operation], optional: Iterable[Operation], state: Hashable
) -> bool:
    """Whether all of ``required`` and some of ``optional`` can be put into an order that the model accepts from
    ``state`` on, in which no operation comes before one that had ended when it was invoked."""
    must = frozenset(required)
    everything = [*must, *optional]
    failed: set[tuple[frozenset[Operation], Hashable]] = set()

    def may_be_next(operation: Operation, applied: frozenset[Operation]) -> bool:
        too_soon = any(each.returned and each.returned < operation.invoked for each in must - applied)
        too_late = any(operation.returned and operation.returned < each.invoked for each in applied)
        return not (too_soon or too_late)

    def works(applied: frozenset[Operation], state: Hashable) -> bool:
        if must <= applied:
            return True
        if (applied, state) in failed:
            return False
        for operation in everything:
            if operation not in applied and may_be_next(operation, applied):
                accepted, after = model.step(state, operation.input, operation.output)
                if accepted and works(applied | {operation}, after):
                    return True
        failed.add((applied, state))
        return False

    return works(frozenset(), state)
