"""What a user may do on the stage: one class for each action, as the page sends it."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

VALUE_CHARACTERS_MAX = 12
"""The most characters of a value. More would not fit beside an arrow."""


class NotPossible(Exception):
    """An action that cannot be done now. The message is one line that says why."""


class Action(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag=str.lower):
    """The base class of all actions. Equal actions on equal stages have equal results."""


class Deliver(Action, frozen=True):
    """The message with this number arrives."""

    message: int


class Drop(Action, frozen=True):
    """The message with this number is lost."""

    message: int


class Double(Action, frozen=True):
    """The network makes a copy of a message that is under way."""

    message: int


class Hold(Action, frozen=True):
    """Hold a message back: a step passes it over until it is released."""

    message: int


class Release(Action, frozen=True):
    """End that."""

    message: int


class Propose(Action, frozen=True):
    """The user of a node offers a value there."""

    node: str
    value: str


class Prepare(Action, frozen=True):
    """The owner of a proposer has it start a ballot. Nodes with elections start their ballots themselves."""

    node: str


class Resend(Action, frozen=True):
    """The owner of a node has it send again what is unanswered."""

    node: str


class Crash(Action, frozen=True):
    """A node stops, and forgets all but what is on its disk."""

    node: str


class Restart(Action, frozen=True):
    """A node starts from its disk."""

    node: str


class Hang(Action, frozen=True):
    """The disk of a node hangs: what the node has to save waits, and so does each message that rests on it."""

    node: str


class Save(Action, frozen=True):
    """The disk of a node goes on, and saves what waits."""

    node: str


class Cut(Action, frozen=True):
    """The link between two nodes is cut: what is under way there is lost, and so is what is sent later."""

    node: str
    other: str


class Join(Action, frozen=True):
    """The link between two nodes works again."""

    node: str
    other: str


class Time(Action, frozen=True):
    """Time passes until the next timer of any node is over."""


class Timer(Action, frozen=True):
    """The clock of one node runs ahead, until the next timer of that node is over. No clock can be trusted."""

    node: str


AnyAction: TypeAlias = (
    Deliver
    | Drop
    | Double
    | Hold
    | Release
    | Propose
    | Prepare
    | Resend
    | Crash
    | Restart
    | Hang
    | Save
    | Cut
    | Join
    | Time
    | Timer
)
