"""The stage at Python's prompt: commands are typed, and what comes of them is printed.

>>> paxos = Session("practical")
>>> paxos.do("propose x at a", "prepare a", "deliver a->b Prepare")
x is offered at a
a starts a ballot; a promises 1.a
a to b: Prepare 1.a; b promises 1.a
>>> paxos.show("b")
b: promised 1.a, accepted nothing, ballot none, value none, promises none, told of nothing, refusals none, \
votes heard none, learned unknown
"""

from __future__ import annotations

from collections.abc import Iterator

from txpaxos.play.commands import perform
from txpaxos.play.stage import Row, Stage


class Session:
    """A stage for a person who types.

    :param kind: ``essential``, ``practical``, ``functional`` or ``replica``.
    :param count: how many nodes, where that can be chosen.
    """

    def __init__(self, kind: str, count: int = 3) -> None:
        self.stage = Stage(kind, count)

    def do(self, *commands: str) -> None:
        """Perform commands, as :mod:`txpaxos.play.commands` has them, and print what each action has caused."""
        for command in commands:
            since = len(self.stage.rows)
            perform(self.stage, command)
            for row in self.stage.rows[since:]:
                print(row_in_words(row))

    def show(self, *nodes: str) -> None:
        """Print what nodes hold: all of them, unless they are named."""
        for node in nodes or self.stage.members:
            facts = ", ".join(f"{label} {value}" for label, value in self.stage.facts_of(node).items())
            print(f"{node}: {facts or 'down'}")

    def why(self) -> None:
        """Print the argument: who voted, who promised, and what had to be proposed."""
        for line in self.argument():
            print(line)

    def argument(self) -> Iterator[str]:
        """The sentences of the argument."""
        return (point.text for point in self.stage.argument.points())


def row_in_words(row: Row) -> str:
    """What one action has caused, on one line."""
    marks = (f"{mark.node} {mark.text}" for mark in row.marks if mark.kind != "echo")
    return "; ".join([row.title, *marks])
