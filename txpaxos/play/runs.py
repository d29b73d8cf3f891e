"""The runs of the page: what a user plays, step by step, forwards and back.

A run is a list of actions and a place in it. To go back is to play the first of them on a new stage.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from secrets import token_urlsafe
from typing import Any, TypeAlias

import attrs
import msgspec

from txpaxos.play.actions import AnyAction, NotPossible
from txpaxos.play.lessons import Lesson, Step, found, in_words, lesson_named
from txpaxos.play.players import KINDS
from txpaxos.play.stage import Stage

ACTIONS_MAX = 600
"""The most actions of one run. To go back replays them, which must not take long."""
RUNS_MAX = 32
"""The most runs that are kept. With more, the one that was used longest ago is forgotten."""

# ---------------------------------------------------------------- requests


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="ask", tag=str.lower):
    """The base class of what the page may ask."""


class Catalogue(Request, frozen=True):
    """Which lessons and kinds there are."""


class Begin(Request, frozen=True):
    """Begin a run: a lesson, or a kind without one."""

    lesson: str = ""
    kind: str = "essential"
    count: int = 3


class Act(Request, frozen=True):
    """Do what the user wants."""

    run: str
    action: AnyAction


class Go(Request, frozen=True):
    """Do what happens next if the user only looks on."""

    run: str


class Rewind(Request, frozen=True):
    """Go to a place in the run: back, or forward to where it has been."""

    run: str
    to: int


class Next(Request, frozen=True):
    """Go on in the lesson: back to it if it was left, to the end of the shown step, or to the next one."""

    run: str


class Back(Request, frozen=True):
    """Go back in the lesson, by one step."""

    run: str


class Look(Request, frozen=True):
    """Only show the run."""

    run: str


AnyRequest: TypeAlias = Catalogue | Begin | Act | Go | Rewind | Next | Back | Look

# -------------------------------------------------------------------- runs


class Run:
    """One run.

    :param lesson: the lesson that it follows, if any.
    :ivar actions: all that were done, in order.
    :ivar place: how many of them the stage has behind it.
    :ivar shown: the place of the step of the lesson that is shown.
    """

    def __init__(self, kind: str, count: int, lesson: Lesson | None = None) -> None:
        self.stage = Stage(kind, count)
        self.lesson = lesson
        self.actions: list[AnyAction] = []
        self.place = 0
        self.shown = 0
        self._count = count
        if lesson is not None and not lesson.steps[0].by_user:
            self._perform_all(lesson.script[0])

    def act(self, action: AnyAction) -> None:
        """Perform an action. What was rewound is forgotten.

        :raises NotPossible: if that cannot be done now, or the run is too long. Then nothing has changed.
        """
        if self.place >= ACTIONS_MAX:
            raise NotPossible(f"a run has at most {ACTIONS_MAX} actions: rewind, or begin anew")
        self.stage.perform(action)
        self.actions[self.place :] = [action]
        self.place += 1

    def rewind(self, to: int) -> None:
        """Go to a place in the run.

        :raises NotPossible: if the run has no such place.
        """
        if not 0 <= to <= len(self.actions):
            raise NotPossible(f"the run has the places 0 to {len(self.actions)}")
        stage = Stage(self.stage.kind, self._count)
        for action in self.actions[:to]:
            stage.perform(action)
        self.stage, self.place = stage, to

    def go_on(self) -> None:
        """Go on in the lesson.

        :raises NotPossible: if there is no lesson, or it is at its end.
        """
        lesson = self._followed_lesson()
        if self._has_left(lesson):
            self._return_to(lesson)
            return
        if self.place >= lesson.ends[self.shown]:
            if self.shown + 1 == len(lesson.steps):
                raise NotPossible("that was the last step of the lesson")
            self.shown += 1
            if lesson.steps[self.shown].by_user:
                return
        self._perform_all(lesson.actions[self.place : lesson.ends[self.shown]])

    def go_back(self) -> None:
        """Show the step before, as it was when it was done.

        :raises NotPossible: if there is no lesson, or it is at its beginning.
        """
        lesson = self._followed_lesson()
        if self.shown == 0:
            raise NotPossible("this is the first step of the lesson")
        self.shown -= 1
        self._return_to(lesson)

    def _perform_all(self, actions: Sequence[AnyAction]) -> None:
        for action in actions:
            self.act(action)

    def _followed_lesson(self) -> Lesson:
        if self.lesson is None:
            raise NotPossible("this run follows no lesson")
        return self.lesson

    def _has_left(self, lesson: Lesson) -> bool:
        """Whether the user did something else than the lesson does."""
        return lesson.followed(self.actions[: self.place]) < self.place

    def _return_to(self, lesson: Lesson) -> None:
        """Go back to where the lesson was followed, at the end of a step: of the shown one, or of one before."""
        followed = lesson.followed(self.actions[: self.place])
        reached = [end for end in lesson.ends[: self.shown + 1] if end <= followed]
        self.rewind(reached[-1] if reached else 0)

    # for the page

    def view(self) -> dict[str, Any]:
        """All that the page draws, as JSON has it."""
        lesson = None if self.lesson is None else self._lesson_view(self.lesson)
        return {**self.stage.view(), "place": self.place, "places": len(self.actions), "lesson": lesson}

    def _lesson_view(self, lesson: Lesson) -> dict[str, Any]:
        step = lesson.steps[self.shown]
        has_left = self._has_left(lesson)
        is_done = not has_left and self.place >= lesson.ends[self.shown]
        is_waiting = not has_left and not is_done and step.by_user
        wanted = lesson.script[self.shown][0] if is_waiting else None
        return {
            "name": lesson.name,
            "title": lesson.title,
            "about": lesson.about,
            "number": self.shown + 1,
            "steps": len(lesson.steps),
            "text": step.text,
            "look": step.look,
            "done": is_done,
            "left": has_left,
            "wanted": wanted and msgspec.to_builtins(wanted),
            "wanted_words": wanted and self.stage.describe(wanted),
            "checks": [*self._checks(lesson, step)] if is_done and self.place == lesson.ends[self.shown] else [],
            "says": step.says if is_done else [],
            "excerpt": attrs.asdict(step.excerpt()),
        }

    def _checks(self, lesson: Lesson, step: Step) -> Iterator[dict[str, Any]]:
        """What the step expects, and what is so in this run."""
        since = (lesson.ends[self.shown - 1] if self.shown else 0) + 1
        for name, wanted in step.expects.items():
            is_so = found(self.stage, name, since)
            yield {"what": in_words(name), "is": is_so or "nothing", "holds": is_so == wanted}


class Runs:
    """The runs of all tabs of the browser.

    :param lessons: those that can be taken.
    """

    def __init__(self, lessons: Sequence[Lesson]) -> None:
        self._lessons = tuple(lessons)
        self._runs: OrderedDict[str, Run] = OrderedDict()

    def __len__(self) -> int:
        return len(self._runs)

    def answer(self, request: AnyRequest) -> dict[str, Any]:
        """Do what the page asks.

        :returns: what it draws.
        :raises NotPossible: if that cannot be done. Then nothing has changed.
        """
        match request:
            case Catalogue():
                return self._catalogue()
            case Begin():
                name = self._begin(request)
            case _:
                name = request.run
                self._perform(self._run(name), request)
        return {"run": name, **self._runs[name].view()}

    def _catalogue(self) -> dict[str, Any]:
        lessons = [{"name": one.name, "title": one.title, "about": one.about} for one in self._lessons]
        return {"lessons": lessons, "kinds": [{"name": name, "title": title} for name, title in KINDS.items()]}

    def _begin(self, request: Begin) -> str:
        if request.lesson:
            lesson = lesson_named(self._lessons, request.lesson)
            run = Run(lesson.kind, lesson.count, lesson)
        else:
            run = Run(request.kind, request.count)
        name = token_urlsafe(12)
        self._runs[name] = run
        while len(self._runs) > RUNS_MAX:
            self._runs.popitem(last=False)
        return name

    def _run(self, name: str) -> Run:
        if name not in self._runs:
            raise NotPossible("this run is not kept any more: begin anew")
        self._runs.move_to_end(name)
        return self._runs[name]

    @staticmethod
    def _perform(run: Run, request: Act | Go | Rewind | Next | Back | Look) -> None:
        match request:
            case Act(_, action):
                run.act(action)
            case Go():
                run.act(run.stage.next_step())
            case Rewind(_, to):
                run.rewind(to)
            case Next():
                run.go_on()
            case Back():
                run.go_back()
