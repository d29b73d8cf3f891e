"""Runs: forwards, back, and along a lesson."""

from __future__ import annotations

import pytest

from txpaxos.play.actions import AnyAction, Crash, Deliver, Double, NotPossible, Prepare, Propose
from txpaxos.play.course import LESSONS
from txpaxos.play.lessons import Lesson
from txpaxos.play.runs import ACTIONS_MAX, RUNS_MAX, Act, Back, Begin, Catalogue, Go, Look, Next, Rewind, Run, Runs

ONE = LESSONS[0]


def begun(**what: str) -> tuple[Runs, str]:
    runs = Runs(LESSONS)
    return runs, runs.answer(Begin(**what))["run"]  # type: ignore[arg-type]


def test_rewinding_is_playing_less() -> None:
    runs, name = begun(kind="practical")
    actions: list[AnyAction] = [Propose("a", "x"), Prepare("a"), Deliver(0), Crash("b")]
    views = [runs.answer(Look(name))]
    views += [runs.answer(Act(name, action)) for action in actions]
    for place, view in enumerate(views):
        rewound = runs.answer(Rewind(name, place))
        assert {**rewound, "places": view["places"]} == view
        assert rewound["places"] == 4
    assert runs.answer(Rewind(name, 4)) == views[-1]
    runs.answer(Rewind(name, 1))
    assert runs.answer(Act(name, Prepare("a")))["places"] == 2, "what was rewound is forgotten"
    for to in (-1, 3):
        with pytest.raises(NotPossible, match="the run has the places 0 to 2"):
            runs.answer(Rewind(name, to))


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_lesson_goes_on_to_its_end_and_back_to_its_beginning(lesson: Lesson) -> None:
    runs, name = begun(lesson=lesson.name)
    view, seen = runs.answer(Look(name)), []
    while view["lesson"]["number"] < len(lesson.steps) or not view["lesson"]["done"]:
        view = runs.answer(Next(name))
        if view["lesson"]["done"]:
            seen.append(view["lesson"]["number"])
            assert view["lesson"]["checks"]
            assert all(check["holds"] for check in view["lesson"]["checks"]), view["lesson"]
    assert seen == [*range(1 if lesson.steps[0].by_user else 2, len(lesson.steps) + 1)]
    with pytest.raises(NotPossible, match="that was the last step"):
        runs.answer(Next(name))
    for number in range(len(lesson.steps) - 1, 0, -1):
        view = runs.answer(Back(name))
        assert (view["lesson"]["number"], view["lesson"]["done"]) == (number, True)
    with pytest.raises(NotPossible, match="this is the first step"):
        runs.answer(Back(name))


def test_a_user_does_what_a_lesson_asks() -> None:
    runs, name = begun(lesson="one-decree")
    lesson = runs.answer(Next(name))["lesson"]
    assert (lesson["done"], lesson["wanted"]) == (False, {"do": "propose", "node": "p", "value": "red"})
    assert lesson["wanted_words"] == "red is offered at p"
    lesson = runs.answer(Act(name, Propose("p", "red")))["lesson"]
    assert (lesson["done"], lesson["wanted"], lesson["number"]) == (True, None, 2)


def test_a_user_leaves_a_lesson_and_comes_back() -> None:
    runs, name = begun(lesson="one-decree")
    runs.answer(Next(name))
    assert runs.answer(Act(name, Propose("p", "blue")))["lesson"]["left"]
    view = runs.answer(Act(name, Prepare("q")))
    assert (view["lesson"]["left"], view["lesson"]["done"], view["lesson"]["wanted"]) == (True, False, None)
    view = runs.answer(Next(name))
    assert (view["place"], view["lesson"]["left"], view["lesson"]["number"]) == (0, False, 2)
    assert view["lesson"]["wanted"] is not None
    for action in (Propose("p", "red"), Prepare("p"), Deliver(0)):  # by hand, ahead of what is shown
        view = runs.answer(Act(name, action))
    assert (view["lesson"]["left"], view["lesson"]["number"], view["lesson"]["checks"]) == (False, 2, [])
    assert runs.answer(Next(name))["lesson"]["number"] == 3


def test_a_run_without_a_lesson_has_none() -> None:
    runs, name = begun(kind="replica")
    assert runs.answer(Go(name))["lesson"] is None
    for request in (Next(name), Back(name)):
        with pytest.raises(NotPossible, match="this run follows no lesson"):
            runs.answer(request)


def test_a_run_has_an_end() -> None:
    run = Run("practical", 3)
    run.act(Prepare("a"))
    while run.place < ACTIONS_MAX:
        run.act(Double(0))
    with pytest.raises(NotPossible, match="a run has at most 600 actions"):
        run.act(Double(0))
    run.rewind(ACTIONS_MAX - 1)
    run.act(Double(0))


def test_there_is_a_limit_to_the_runs() -> None:
    runs, first = begun()
    _, *others = [runs.answer(Begin())["run"] for _ in range(RUNS_MAX - 1)]
    runs.answer(Look(first))
    runs.answer(Begin())
    assert len(runs) == RUNS_MAX
    runs.answer(Look(first))
    with pytest.raises(NotPossible, match="this run is not kept any more: begin anew"):
        runs.answer(Look("nothing"))
    assert len({first, *others}) == RUNS_MAX - 1


def test_the_catalogue_has_all() -> None:
    known = Runs(LESSONS).answer(Catalogue())
    assert [one["name"] for one in known["lessons"]] == [lesson.name for lesson in LESSONS]
    assert [one["name"] for one in known["kinds"]] == ["essential", "practical", "functional", "replica"]
