"""Guided lessons: what a lesson is, and how it runs on a stage.

A lesson is a list of actions with words in between. Where a run is in a lesson follows from its actions alone: as long
as they are those of the lesson, in order, the run is in it. A user who does something else has left it, and can come
back by rewinding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs

from txpaxos.play.actions import AnyAction, NotPossible
from txpaxos.play.commands import perform
from txpaxos.play.excerpt import Excerpt, excerpt
from txpaxos.play.stage import Stage
from txpaxos.play.words import message_in_words, value_in_words


@attrs.frozen
class Step:
    """One step of a lesson.

    :ivar text: a sentence or two. Every ballot and every number in it is among what the step expects.
    :ivar look: what to look at once it is done.
    :ivar source: the function of the shipped source that does it. ``at``: a part of the line where to begin.
    :ivar do: the commands of the step, as :mod:`txpaxos.play.commands` has them. None in a step that only tells.
    :ivar by_user: whether the user is asked to do it by hand.
    :ivar expects: what must be so after it, as :func:`found` finds it.
    :ivar says: sentences that the argument must contain after it.
    """

    text: str
    look: str
    source: Callable[..., Any]
    do: tuple[str, ...] = ()
    expects: Mapping[str, str] = attrs.field(factory=dict)
    says: tuple[str, ...] = ()
    at: str = ""
    by_user: bool = False

    def excerpt(self) -> Excerpt:
        """The lines of the source that do it."""
        return excerpt(self.source, self.at)


@attrs.frozen(slots=False)
class Lesson:
    """A guided run.

    :ivar name: its name in addresses and tests.
    :ivar kind: what is played, as in :class:`~txpaxos.play.stage.Stage`; ``count``: with how many nodes.
    """

    name: str
    title: str
    about: str
    kind: str
    steps: tuple[Step, ...]
    count: int = 3

    @cached_property
    def script(self) -> tuple[tuple[AnyAction, ...], ...]:
        """The actions of each step, found by playing the lesson once."""
        stage = Stage(self.kind, self.count)
        return tuple(tuple(action for command in step.do for action in perform(stage, command)) for step in self.steps)

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """How many actions of the lesson each step has behind it."""
        lengths = [len(actions) for actions in self.script]
        return tuple(sum(lengths[: place + 1]) for place in range(len(lengths)))

    @cached_property
    def actions(self) -> tuple[AnyAction, ...]:
        """All actions of the lesson, in order."""
        return tuple(action for actions in self.script for action in actions)

    def followed(self, actions: Sequence[AnyAction]) -> int:
        """How many of ``actions``, from the first one on, are those of the lesson."""
        pairs = enumerate(zip(actions, self.actions, strict=False))
        return next((place for place, (one, other) in pairs if one != other), min(len(actions), len(self.actions)))


def found(stage: Stage, name: str, since: int = 0) -> str:
    """What is so on the stage.

    ``p.promised``: what a node holds; ``disk p.promised``: what it would hold after a restart; ``p``: up or down;
    ``under way``, ``under way Prepare`` or ``under way Prepare 1.p``: the number of messages; ``chosen``, or
    ``chosen 3`` for a slot of the log: the value that a quorum of disks has accepted; ``quorum``: its size;
    ``marks p``: what has happened at a node since the row ``since``.

    :raises KeyError: if there is no such thing.
    """
    match name.split(maxsplit=1):
        case ["under", rest]:
            wanted = rest.split()[1:]
            told = (message_in_words(one.message).split() for one in stage.under_way())
            return str(sum(words[: len(wanted)] == wanted for words in told))
        case ["chosen", *slot]:
            value = stage.argument.chosen(int(slot[0]) if slot else 0)
            return "none" if value is None else value_in_words(value)
        case ["quorum"]:
            return str(stage.argument.quorum)
        case ["marks", node]:
            marks = (mark for row in stage.rows[since:] for mark in row.marks)
            return "; ".join(mark.text for mark in marks if mark.node == node)
        case ["disk", what]:
            node, _, fact = what.partition(".")
            return stage.disk_of(node)[fact]
    node, _, fact = name.partition(".")
    if not fact:
        return "up" if stage.is_up(node) else "down"
    return stage.facts_of(node)[fact]


def complaints(lesson: Lesson) -> list[str]:
    """What in a lesson is not as its steps expect it. Empty if all is."""
    stage, wrong = Stage(lesson.kind, lesson.count), []
    for number, (step, actions) in enumerate(zip(lesson.steps, lesson.script, strict=True), 1):
        since = len(stage.rows)
        for action in actions:
            stage.perform(action)
        for name, wanted in step.expects.items():
            if (is_so := found(stage, name, since)) != wanted:
                wrong.append(f"{lesson.name}, step {number}: {name} is {is_so!r}, and not {wanted!r}")
        told = [point.text for point in stage.argument.points()]
        wrong += [
            f"{lesson.name}, step {number}: not said: {text!r}, but {told}" for text in step.says if text not in told
        ]
    return wrong


def lesson_named(lessons: Sequence[Lesson], name: str) -> Lesson:
    """The lesson with that name.

    :raises NotPossible: if there is none.
    """
    for lesson in lessons:
        if lesson.name == name:
            return lesson
    raise NotPossible("there is no such lesson")


def in_words(name: str) -> str:
    """What :func:`found` finds under ``name``, for people."""
    match name.split(maxsplit=1):
        case ["under", rest]:
            return f"{rest.removeprefix('way').strip()} under way".strip()
        case ["chosen", slot]:
            return f"chosen at slot {slot}"
        case ["chosen"] | ["quorum"]:
            return name
        case ["marks", node]:
            return f"what {node} did"
        case ["disk", what]:
            node, _, fact = what.partition(".")
            return f"{node}, on its disk: {fact}"
    node, _, fact = name.partition(".")
    return f"{node}: {fact}" if fact else f"{node} is"
