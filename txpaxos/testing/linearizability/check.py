"""Whether a service behaved as if it did one operation after another.

A history is linearizable if its operations can be put into an order in which a model
(:class:`~txpaxos.testing.linearizability.models.Model`) gives the same answers, and in which no operation comes before
one that had ended when it was invoked::

    recorder = HistoryRecorder(reactor, "history.jsonl")
    recorder.record("alice", ["write", 5], lambda: client.submit(b"write 5"))
    ...
    print(check_file("history.jsonl", "register").report())

Operations that failed are left out. An operation with an unknown outcome may have been applied at any time since its
invocation, or not at all.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import attrs

from txpaxos.drawing.space_time import SpaceTime
from txpaxos.testing.linearizability.diagram import as_text, diagram, label, space_time
from txpaxos.testing.linearizability.history import HistoryError, Operation, pair, read_history
from txpaxos.testing.linearizability.models import Model, model_named
from txpaxos.testing.linearizability.problem import Problem
from txpaxos.testing.linearizability.search import LinearizationSearch
from txpaxos.testing.linearizability.window import OperationWindow, Windows

CONFIGURATIONS_PER_OPERATION_MAX = 30
"""The search gives up on a part of the history after this many configurations per operation, but not before
``CONFIGURATIONS_MIN``."""

CONFIGURATIONS_MIN = 1_000_000

PATIENCE = 10_000
"""After this many configurations without progress, look for a short proof that there is no order."""

STATES_SHOWN_MAX = 5


@attrs.frozen
class LinearizabilityResult:
    """The result of a check.

    :ivar linearizable: ``None`` if the search was given up.
    :ivar operations: how many operations were checked, with those that failed.
    :ivar parts: how many independent parts they form.
    :ivar configurations: how many configurations the search visited, a measure of its work.
    :ivar part: the part that is not linearizable, or that the search gave up on.
    :ivar window: the operations that prove it, if it is not linearizable.
    """

    linearizable: bool | None
    operations: int
    parts: int
    configurations: int
    part: Hashable = None
    window: OperationWindow | None = None

    def report(self) -> str:
        """The result as text: one line; if there is a window, also that with a diagram."""
        checked = f"{self.operations} operations in {self.parts} {'part' if self.parts == 1 else 'parts'}"
        if self.linearizable:
            return f"linearizable: {checked}"
        name = "" if self.part is None else f" of {as_text(self.part)}"
        if self.window is None:
            gave_up = f"undecided: gave up on the operations{name} after {self.configurations} configurations;"
            return f"{gave_up} {checked}\nAllow more configurations, or record a history with more values that differ."
        return "\n".join([f"not linearizable: {checked}", "", *_explained(self.window, name)])

    def picture(self) -> SpaceTime | None:
        """The window as a space-time diagram; ``None`` if there is no window."""
        if self.window is None:
            return None
        name = "" if self.part is None else f" of {as_text(self.part)}"
        title = f"No order of these operations{name} explains their outputs"
        return space_time(self.window.operations, self.window.ending.returned or 0, title)


def _explained(window: OperationWindow, name: str) -> list[str]:
    ending = window.ending
    seconds = f"{ending.invoked_seconds:.6f} to {ending.returned_seconds:.6f} s"
    when = f"lines {ending.invoked} to {ending.returned}, {seconds}"
    lines = [
        f"No order of these operations{name} explains their outputs. Up to the last to end, there is one.",
        f"The last to end: {label(ending)}, client {ending.client}, {when}",
    ]
    if window.states is None:
        lines.append("It makes no difference what the state was before.")
    else:
        states = [as_text(state) if _is_plain(state) else repr(state) for state in window.states[:STATES_SHOWN_MAX]]
        more = f" and {len(window.states) - len(states)} more" if len(window.states) > len(states) else ""
        lines.append(f"Possible states before: {', '.join(states)}{more}")
    if window.beside:
        lines.append(f"Not shown: {len(window.beside)} more that may have been applied meanwhile, which does not help.")
    return [*lines, "", *diagram(window.operations, ending.returned or 0)]


def _is_plain(state: Hashable) -> bool:
    return state is None or isinstance(state, str | int | float)


def check(
    operations: Iterable[Operation], model: Model, *, configurations_max: int | None = None
) -> LinearizabilityResult:
    """Check a history against ``model``, part by part. It ends with the first part that is not linearizable.

    :param configurations_max: give up on a part after this many configurations; 30 per operation unless given, but at
        least a million. (One takes about 400 bytes.)
    :raises HistoryError: if the model does not know an input or output.
    """
    parts: dict[Hashable, list[Operation]] = {}
    for operation in operations:
        try:
            parts.setdefault(model.partition(operation.input), []).append(operation)
        except ValueError as error:
            raise HistoryError(f"line {operation.invoked}: {error}") from None
    count = sum(map(len, parts.values()))
    result = LinearizabilityResult(True, count, len(parts), 0)
    for part, its_operations in parts.items():
        explained, configurations, window = _check_part(its_operations, model, configurations_max)
        result = attrs.evolve(result, configurations=result.configurations + configurations)
        if explained is False or (explained is None and result.linearizable):
            result = attrs.evolve(result, linearizable=explained, part=part, window=window)
        if explained is False:
            break
    return result


def check_file(path: str, model: str | Model, *, configurations_max: int | None = None) -> LinearizabilityResult:
    """Check the history in a file.

    :param model: a model, or its name: see :func:`~txpaxos.testing.linearizability.models.model_named`.
    :param configurations_max: as for :func:`check`.
    :raises HistoryError: if the file is not a history of the model.
    :raises ConfigError: if there is no model with that name.
    """
    known = model_named(model) if isinstance(model, str) else model
    try:
        return check(pair(read_history(path)), known, configurations_max=configurations_max)
    except HistoryError as error:
        raise error if path in str(error) else HistoryError(f"{path}, {error}") from None


def _check_part(
    operations: list[Operation], model: Model, configurations_max: int | None
) -> tuple[bool | None, int, OperationWindow | None]:
    problem = Problem(model, [each for each in operations if each.outcome != "fail"])
    if configurations_max is None:
        configurations_max = max(CONFIGURATIONS_MIN, CONFIGURATIONS_PER_OPERATION_MAX * len(operations))
    search = LinearizationSearch(problem, len(problem.levels), [model.initial()])
    window: OperationWindow | None = None
    patience = PATIENCE
    while True:
        explained = search.run(configurations_max, patience)
        if explained is None:
            window = Windows(model, problem, search.deepest).shortest_from_anywhere()
        elif explained is False:
            windows = Windows(model, problem, search.deepest)
            window = windows.shortest_from_anywhere() or windows.shortest_from(search)
        if window is not None:
            return False, search.configurations, window
        if explained or search.configurations >= configurations_max:
            return explained, search.configurations, None
        patience *= 4
