"""Each lesson, run to its end on the stage: what its texts say is so in the run."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from txpaxos.core import essential
from txpaxos.play.actions import Crash, NotPossible, Prepare, Propose
from txpaxos.play.commands import perform
from txpaxos.play.course import LESSONS
from txpaxos.play.excerpt import LINES_MAX, excerpt
from txpaxos.play.lessons import Lesson, Step, complaints, found, lesson_named
from txpaxos.play.players import KINDS
from txpaxos.play.stage import Stage

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"(?<![Pp]hase )\b\d+(?:\.[a-z])?\b")
"""A ballot, or another number, but that of a phase."""

ONE = LESSONS[0]
EVERY_STEP = [
    pytest.param(lesson, step, id=f"{lesson.name}-{number}")
    for lesson in LESSONS
    for number, step in enumerate(lesson.steps, 1)
]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_all_is_as_the_lesson_says(lesson: Lesson) -> None:
    assert complaints(lesson) == []


@pytest.mark.parametrize(("lesson", "step"), EVERY_STEP)
def test_each_ballot_and_number_of_a_text_comes_from_the_run(lesson: Lesson, step: Step) -> None:
    told = " ".join([*step.expects, *step.expects.values(), *step.says])
    assert {*NUMBER.findall(f"{step.text} {step.look}")} <= {*NUMBER.findall(told)}, lesson.name


@pytest.mark.parametrize(("lesson", "step"), EVERY_STEP)
def test_each_step_has_its_lines_of_the_source(lesson: Lesson, step: Step) -> None:
    shown = step.excerpt()
    source = (ROOT / shown.file).read_text().splitlines()
    assert 2 <= len(shown.lines) <= LINES_MAX
    assert all(source[number - 1] == line for number, line in shown.lines)
    assert shown.file.startswith("txpaxos/core/")
    assert step.expects, lesson.name


@pytest.mark.parametrize(("lesson", "step"), EVERY_STEP)
def test_a_step_for_the_user_is_one_action(lesson: Lesson, step: Step) -> None:
    assert not step.by_user or len(lesson.script[lesson.steps.index(step)]) == 1
    assert len(step.text) <= 330
    assert len(step.look) <= 150
    assert not re.search(r"\w- \w|  ", f"{step.text} {step.look}")


def test_the_course_has_all_kinds_and_the_five_scenarios() -> None:
    assert {lesson.kind for lesson in LESSONS} == {*KINDS}
    names = [lesson.name for lesson in LESSONS]
    assert len({*names}) == len(names)
    assert names[-5:] == ["first-election", "leader-crash", "gap", "catching-up", "two-candidates"]
    assert len([*(ROOT / "test/scenarios").glob("*.txt")]) == 5
    assert {"duel", "lost-leader", "stale-vote", "save-first", "chosen-survives"} < {*names}


def test_a_wrong_expectation_is_seen() -> None:
    wrong = attrs.evolve(ONE.steps[2], expects={"p.ballot": "2.p"}, says=("all is well",))
    lesson = attrs.evolve(ONE, steps=(*ONE.steps[:2], wrong))
    first, second = complaints(lesson)
    assert first == "one-decree, step 3: p.ballot is '1.p', and not '2.p'"
    assert second.startswith("one-decree, step 3: not said: 'all is well', but [")


def test_a_run_is_in_a_lesson_as_far_as_its_actions_are_those_of_the_lesson() -> None:
    assert ONE.ends[:3] == (0, 1, 2)
    assert ONE.ends[-1] == len(ONE.actions)
    assert ONE.followed([]) == 0
    assert ONE.followed([Propose("p", "red"), Prepare("p")]) == 2
    assert ONE.followed([Propose("p", "red"), Prepare("q"), *ONE.actions[2:]]) == 1
    assert ONE.followed([*ONE.actions, Crash("p")]) == len(ONE.actions)


def test_what_can_be_found() -> None:
    stage = Stage("essential")
    perform(stage, "propose red at p")
    perform(stage, "prepare p")
    assert found(stage, "p.ballot") == "1.p"
    assert found(stage, "disk p.value") == "none"
    assert found(stage, "under way") == found(stage, "under way Prepare") == "3"
    assert found(stage, "chosen") == found(stage, "chosen 7") == "none"
    assert found(stage, "marks p") == "is offered red"
    assert found(stage, "marks p", since=2) == ""
    perform(stage, "crash p")
    assert (found(stage, "p"), found(stage, "q")) == ("down", "up")
    with pytest.raises(KeyError):
        found(stage, "q.mood")


@pytest.mark.parametrize("command", ["dance", "deliver p->a", "until p leads", "dance p"])
def test_commands_that_cannot_be(command: str) -> None:
    stage = Stage("replica" if "until" in command else "essential")
    if "until" in command:
        command = "until z leads"
    with pytest.raises((ValueError, KeyError)):
        perform(stage, command)


def test_all_commands_of_messages_and_links() -> None:
    stage = Stage("practical", 5)
    for command in ("prepare a", "hold a->b", "release a->b", "double a->c", "drop a->d", "cut a e", "join a e"):
        assert len(perform(stage, command)) == 1
    assert len(perform(stage, "deliver a->*")) == 2
    assert len(perform(stage, "step 1")) == 1
    perform(stage, "settle")
    assert stage.under_way() == []


def test_lessons_by_name() -> None:
    assert lesson_named(LESSONS, "gap").title == "A log: a gap is filled"
    with pytest.raises(NotPossible, match="there is no such lesson"):
        lesson_named(LESSONS, "gaps")


def test_an_excerpt_begins_where_it_is_told() -> None:
    shown = excerpt(essential.Proposer.receive_promise, at="accepted = promise.accepted")
    assert shown.lines[0][1].strip().startswith("def receive_promise(")
    assert shown.lines[1][1].strip() == "accepted = promise.accepted"
    assert '"""' not in "".join(line for _, line in shown.lines)
    with pytest.raises(ValueError, match="has no line with 'nothing of the kind'"):
        excerpt(essential.Proposer.receive_promise, at="nothing of the kind")
