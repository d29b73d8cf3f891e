"""The mutants fit the tree, some quick ones are caught, and the hunter neither invents a catch nor misses one.

All of them are let loose by ``make mutants``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from test.mutants import hunt, run, table
from test.mutants.hunt import KINDS, ROOT, Catch, Hunter, copy_of, first_failure, kind_of, simulate
from test.mutants.patches import TRAPS, Hunk, Mutant, PatchError, apply, changed, load, read

MUTANTS = {mutant.name: mutant for mutant in load()}
QUICK = ("lead-taken-for-a-lock", "own-ballot-not-saved", "answer-differs-between-nodes")
"""Caught at one of the first seeds."""


def mutant_of(file: str, old: Sequence[str], new: Sequence[str], line: int = 1, simulated: bool = True) -> Mutant:
    return Mutant("made-here", "made here", None, simulated, (), {file: (Hunk(line, tuple(old), tuple(new)),)})


# ------------------------------------------------------------ the mutants


def test_every_mutant_fits_the_tree() -> None:
    unfit = []
    for mutant in MUTANTS.values():
        try:
            for name, text in changed(mutant, ROOT).items():
                compile(text, name, "exec")
        except (PatchError, SyntaxError) as error:
            unfit.append(f"{mutant.name}: {error}")
    assert not unfit, "\n".join(unfit)


def test_every_trap_is_put_back_in() -> None:
    assert set(TRAPS) <= {mutant.trap for mutant in MUTANTS.values()}
    assert {mutant.trap for mutant in MUTANTS.values()} <= {None, *TRAPS}
    assert len(MUTANTS) >= 40


def test_no_two_mutants_are_the_same() -> None:
    assert len({str(mutant.hunks) for mutant in MUTANTS.values()}) == len(MUTANTS)


def test_named_tests_exist() -> None:
    assert all(is_there(name) for mutant in MUTANTS.values() for name in mutant.tries)


def is_there(name: str) -> bool:
    """Whether there is that test file, or that test in it."""
    file, _, test = name.partition("::")
    return (ROOT / file).is_file() and f"def {test}" in (ROOT / file).read_text()


def test_each_mutant_has_a_row_that_says_what_caught_it() -> None:
    rows = table.read_from(run.PAGE)
    assert set(MUTANTS) == set(rows)
    tests = "".join(file.read_text() for file in (ROOT / "test").rglob("test_*.py"))
    for row in rows.values():
        assert row.kind, row
        if row.seed is None:
            file, _, name = row.what.partition("::")
            assert (ROOT / file).is_file(), row
            function = name.rpartition("::")[2].partition("[")[0]  # None if the whole file failed.
            assert not function or f"def {function}(" in tests, row


@pytest.mark.parametrize("name", QUICK)
def test_caught(name: str) -> None:
    catch = Hunter(ROOT, cpu_seconds=10.0, tests=False).hunt(MUTANTS[name])
    assert (catch.mutant, catch.kind) == (name, "simulator")
    assert catch.what, "the rule has a name"
    assert catch.seed is not None


# ------------------------------------------------------------- the hunter


def test_nothing_is_wrong_without_a_fault() -> None:
    with copy_of(ROOT) as clean:
        assert simulate(clean, 1.0)["rule"] is None


def test_a_change_of_no_consequence_survives() -> None:
    """What the nodes do is the same; only a counter has another name."""
    name = "            self.dropped[Drop.NOT_FROM_A_MEMBER] += 1"
    harmless = mutant_of("txpaxos/core/replica.py", [name], [name.replace("not from", "from no")])
    assert Hunter(ROOT, 0.5, tests=False).hunt(harmless).kind == ""


def test_a_mutant_that_cannot_even_be_imported_is_caught() -> None:
    broken = mutant_of("txpaxos/core/replica.py", ["from random import Random"], ["from random import Randomness"])
    catch = Hunter(ROOT, 0.0, tests=False).hunt(broken)
    assert catch.kind == "simulator"
    assert "ImportError" in catch.what


@pytest.fixture
def small_tree(tmp_path: Path) -> Path:
    """A tree with one module and two tests, of which one always fails."""
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    for folder in ("txpaxos", "test"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "txpaxos" / "answer.py").write_text("ANSWER = 42\nUNUSED = 1\n")
    (tmp_path / "test" / "test_answer.py").write_text(
        "from txpaxos.answer import ANSWER\n\n\n"
        "def test_broken_anyway():\n    assert False\n\n\n"
        "def test_answer():\n    assert ANSWER == 42\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new", "caught_by"),
    [("ANSWER = 42", "ANSWER = 43", "test/test_answer.py::test_answer"), ("UNUSED = 1", "UNUSED = 2", "")],
)
def test_only_what_the_fault_breaks_counts(small_tree: Path, old: str, new: str, caught_by: str) -> None:
    mutant = mutant_of("txpaxos/answer.py", [old], [new], simulated=False)
    catch = Hunter(small_tree).hunt(attrs.evolve(mutant, tries=("test/test_answer.py", "test/test_absent.py")))
    assert (catch.kind, catch.what) == ("unit" if caught_by else "", caught_by)
    assert (small_tree / "txpaxos" / "answer.py").read_text() == "ANSWER = 42\nUNUSED = 1\n", "the tree stays clean"


ANSWER_IS_TESTED = "test/test_answer.py::test_answer"


@pytest.fixture
def wrong_answer(small_tree: Path) -> Mutant:
    """A fault in the small tree. What catches it is in no file that a hunt tries first."""
    mutant = mutant_of("txpaxos/answer.py", ["ANSWER = 42"], ["ANSWER = 43"], simulated=False)
    (small_tree / "test" / "test_slow.py").write_text("def test_slow():\n    pass\n")
    return attrs.evolve(mutant, tries=("test/test_slow.py", "test/test_answer.py"))


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files and tests that are run on trees with a fault, in order."""
    tried = []

    def noted(place: Path, what: str, deselected: Sequence[str]) -> str | None:
        if "txpaxos-mutant-" in str(place) and not deselected:
            tried.append(what)
        return first_failure(place, what, deselected)

    monkeypatch.setattr(hunt, "first_failure", noted)
    return tried


def test_the_test_that_caught_a_mutant_last_is_tried_first(
    small_tree: Path, wrong_answer: Mutant, tried: list[str]
) -> None:
    last = Catch("made-here", "unit", ANSWER_IS_TESTED, None, 60.0)
    catch = Hunter(small_tree).hunt(wrong_answer, last)
    assert (catch.kind, catch.what, catch.again) == ("unit", ANSWER_IS_TESTED, True)
    assert tried == [ANSWER_IS_TESTED]


@pytest.mark.parametrize(
    "last",
    ["test/test_slow.py::test_slow", "test/test_answer.py::test_absent", "test/test_answer.py::test_broken_anyway"],
)
def test_a_mutant_that_gets_past_it_is_hunted_anew(
    small_tree: Path, wrong_answer: Mutant, tried: list[str], last: str
) -> None:
    """Its test passes now, or is gone, or fails without the fault, too."""
    catch = Hunter(small_tree).hunt(wrong_answer, Catch("made-here", "unit", last, None, 60.0))
    assert (catch.kind, catch.what, catch.again) == ("unit", ANSWER_IS_TESTED, False)
    assert tried == [last, "test/test_slow.py", "test/test_answer.py"]


def test_a_mutant_that_nothing_caught_last_is_hunted_anew(
    small_tree: Path, wrong_answer: Mutant, tried: list[str]
) -> None:
    catch = Hunter(small_tree).hunt(wrong_answer, Catch("made-here", "", "", None, 60.0))
    assert (catch.what, catch.again) == (ANSWER_IS_TESTED, False)
    assert tried == ["test/test_slow.py", "test/test_answer.py"]


def simulator(
    monkeypatch: pytest.MonkeyPatch, faulty: Collection[int], clean: Collection[int] = ()
) -> list[tuple[int, float]]:
    """A simulator of which those seeds go wrong: with a fault, and without any.

    :returns: the first seed and the processor time of each search in a tree with a fault.
    """
    searches: list[tuple[int, float]] = []

    def search(place: Path, cpu_seconds: float, first_seed: int = 0) -> dict[str, Any]:
        has_fault = "txpaxos-mutant-" in str(place)
        if has_fault:
            searches.append((first_seed, cpu_seconds))
        seeds = range(first_seed, first_seed + (10 if cpu_seconds else 1))
        seed = next((seed for seed in seeds if seed in (faulty if has_fault else clean)), None)
        return {"seed": seeds[-1] if seed is None else seed, "rule": None if seed is None else "a rule", "detail": ""}

    monkeypatch.setattr(hunt, "simulate", search)
    return searches


LAST_SEED = Catch("made-here", "simulator", "a rule", 7, 60.0)


def test_the_seed_that_caught_a_mutant_last_is_tried_first(
    small_tree: Path, wrong_answer: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = simulator(monkeypatch, faulty={3, 7})
    catch = Hunter(small_tree, cpu_seconds=20.0).hunt(attrs.evolve(wrong_answer, simulated=True), LAST_SEED)
    assert (catch.kind, catch.what, catch.seed, catch.again) == ("simulator", "a rule", 7, True)
    assert searches == [(7, 0.0)]


@pytest.mark.parametrize("clean", [set(), {7}])
def test_a_mutant_that_gets_past_that_seed_is_hunted_anew(
    small_tree: Path, wrong_answer: Mutant, monkeypatch: pytest.MonkeyPatch, clean: set[int]
) -> None:
    """The seed goes well now, or goes wrong without the fault, too."""
    searches = simulator(monkeypatch, faulty={3} | clean, clean=clean)
    catch = Hunter(small_tree, cpu_seconds=20.0).hunt(attrs.evolve(wrong_answer, simulated=True), LAST_SEED)
    assert (catch.kind, catch.seed, catch.again) == ("simulator", 3, False)
    assert searches[0] == (7, 0.0)
    assert searches[-1] == (0, 20.0)


def test_the_clean_tree_is_asked_once_about_each_test(
    small_tree: Path, wrong_answer: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[tuple[Path, str]] = []

    def noted(place: Path, what: str, deselected: Sequence[str]) -> str | None:
        runs.append((place, what))
        return first_failure(place, what, deselected)

    monkeypatch.setattr(hunt, "first_failure", noted)
    hunter, last = Hunter(small_tree), Catch("made-here", "unit", ANSWER_IS_TESTED, None, 60.0)
    assert hunter.hunt(wrong_answer, last).again
    assert hunter.hunt(wrong_answer, last).again
    assert [what for place, what in runs if place == small_tree] == [ANSWER_IS_TESTED]


def test_a_file_that_cannot_be_collected_fails(small_tree: Path) -> None:
    (small_tree / "test" / "test_answer.py").write_text("import txpaxos.no_such_module\n")
    assert first_failure(small_tree, "test/test_answer.py", ()) == "test/test_answer.py"


def test_kinds() -> None:
    assert kind_of("test/core/test_agreement.py") == "model"
    assert kind_of("test/core/test_replica.py") == "unit"
    assert kind_of("test/node/test_sealing.py::test_what_was_decided_stays_decided[3]") == "model"
    assert kind_of("test/node/test_sealing.py::test_a_minority_is_not_enough") == "unit"
    known = [name.partition("::") for names in KINDS.values() for name in names]
    assert all(is_there(f"test/{file.removesuffix('.py')}.py{mark}{test}") for file, mark, test in known)


# ------------------------------------------------------------ the patches


def write(folder: Path, head: str, body: str) -> Path:
    path = folder / "some-fault.patch"
    path.write_text(f"{head}--- a/code.py\n+++ b/code.py\n{body}")
    return path


HEAD = "# fault: wrong\n# trap: 7 value choice\n"


def test_read(tmp_path: Path) -> None:
    mutant = read(write(tmp_path, HEAD + "# try: test/test_x.py test/test_y.py\n", "@@ -3,2 +3,2 @@\n a\n-b\n+c\n"))
    hunks: dict[str, tuple[Hunk, ...]] = {"code.py": (Hunk(3, ("a", "b"), ("a", "c")),)}
    assert mutant == Mutant("some-fault", "wrong", 7, True, ("test/test_x.py", "test/test_y.py"), hunks)


@pytest.mark.parametrize(
    ("head", "body", "complaint"),
    [
        ("# fault: wrong\n", "@@ -1 +1 @@\n-b\n+c\n", "must begin with"),
        (HEAD + "no comment\n", "@@ -1 +1 @@\n-b\n+c\n", "must begin with"),
        ("# fault: wrong\n# trap: seven\n", "@@ -1 +1 @@\n-b\n+c\n", "the trap is a number, or none"),
        (HEAD, "@@ -1 +1 @@\n-b\n+b\n", "changes nothing"),
        (HEAD, "@@ -1 +1 @@\n-b\n+c\n*d\n", "begins with a space"),
    ],
)
def test_what_is_no_patch(tmp_path: Path, head: str, body: str, complaint: str) -> None:
    with pytest.raises(PatchError, match=complaint):
        read(write(tmp_path, head, body))


def test_of_several_places_the_nearest_is_changed(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("a\nb\na\nb\na\nb\n")
    apply(mutant_of("code.py", ["a", "b"], ["a", "c", "d"], line=4), tmp_path)
    assert (tmp_path / "code.py").read_text() == "a\nb\na\nc\nd\na\nb\n"


def test_lines_that_are_gone(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("a\n")
    with pytest.raises(PatchError, match=r"code.py has no such lines as about line 4"):
        apply(mutant_of("code.py", ["b"], ["c"], line=4), tmp_path)
    assert (tmp_path / "code.py").read_text() == "a\n"


def test_a_patch_that_does_not_fit_ends_the_run_before_it_begins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "load", lambda: [mutant_of("txpaxos/node/timer.py", ["no such line"], [""], line=4)])
    monkeypatch.setattr(run, "run", None)
    assert run.main([]) == 1
    assert capsys.readouterr().out == (
        "made-here: txpaxos/node/timer.py has no such lines as about line 4; correct the patch\n"
    )


# ------------------------------------------------------------- the report

SIMULATED = Catch("lead-taken-for-a-lock", "simulator", "chosen by a quorum", 3, 1.2)
SURVIVED = Catch("slot-used-twice", "", "", None, 60.0)
TESTED = Catch("vote-not-saved", "unit", "test/test_x.py::test_y[two  spaces]", None, 2.0)
REPORTED = [MUTANTS[catch.mutant] for catch in (SIMULATED, SURVIVED, TESTED)]


def test_table_and_summary() -> None:
    catches = [SIMULATED, SURVIVED]
    assert table.table(catches, REPORTED).splitlines()[1:-1] == [
        "mutant                 trap  caught by  rule or test        seed  seconds",
        "=====================  ====  =========  ==================  ====  =======",
        "lead-taken-for-a-lock  12    simulator  chosen by a quorum  3     1.2",
        "slot-used-twice              NOTHING                              60.0",
    ]
    printed = table.summary(catches, REPORTED[:2])
    assert "1 of 2 mutants caught: 1 by simulator." in printed
    assert "Traps put back in: 12; not: 1 (duplicate answered early), 2 " in printed


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A document with an empty table."""
    page = tmp_path / "page.rst"
    page.write_text(f"above\n\n{table.BEGINS}\n\nold\n\n{table.ENDS}\n\nbelow\n")
    return page


def test_table_goes_between_its_marks(page: Path) -> None:
    table.write_into(page, [SIMULATED], REPORTED)
    text = f"{table.table([SIMULATED], REPORTED)}\n\n{table.summary([SIMULATED], REPORTED)}"
    assert page.read_text() == f"above\n\n{table.BEGINS}\n\n{text}\n\n{table.ENDS}\n\nbelow\n"
    page.write_text("no marks\n")
    with pytest.raises(SystemExit, match="has no place for the table"):
        table.write_into(page, [], REPORTED)
    with pytest.raises(SystemExit, match="has no place for the table"):
        table.read_from(page)


def test_a_table_is_read_back(page: Path) -> None:
    assert table.read_from(page) == {}
    table.write_into(page, [TESTED, SIMULATED, SURVIVED], REPORTED)
    assert list(table.read_from(page).values()) == [SIMULATED, SURVIVED, TESTED]


def test_rows_of_other_mutants_stay_unless_there_is_no_such_mutant(page: Path) -> None:
    table.write_into(page, [SIMULATED, SURVIVED, TESTED], REPORTED)
    caught = attrs.evolve(SURVIVED, kind="unit", what="test/test_x.py::test_z")
    table.write_into(page, [caught], REPORTED)
    assert list(table.read_from(page).values()) == [SIMULATED, caught, TESTED]
    table.write_into(page, [], REPORTED[1:])
    assert list(table.read_from(page).values()) == [caught, TESTED]
    assert "2 of 2 mutants caught: 2 by unit." in page.read_text()


def test_the_table_of_the_documentation_is_read() -> None:
    rows = table.read_from(run.PAGE)
    assert len(rows) >= 40
    assert {row.kind for row in rows.values()} <= {"simulator", "unit", *KINDS}
    assert all((row.seed is None) is (row.kind != "simulator") for row in rows.values())


class RecordedHunter:
    """Catches what ``catches`` says, and keeps what it was told."""

    def __init__(self, *catches: Catch) -> None:
        self.told: list[tuple[str, Catch | None]] = []
        self._catches = {catch.mutant: catch for catch in catches}

    def hunt(self, mutant: Mutant, last: Catch | None) -> Catch:
        self.told.append((mutant.name, last))
        return self._catches[mutant.name]


@pytest.fixture
def hunter(monkeypatch: pytest.MonkeyPatch) -> RecordedHunter:
    """Stands in for the hunter of the command line."""
    hunter = RecordedHunter(attrs.evolve(SIMULATED, again=True), attrs.evolve(SURVIVED, kind="unit", what="x"), TESTED)
    monkeypatch.setattr(run, "load", lambda: REPORTED)
    monkeypatch.setattr(run, "simulate", lambda place, cpu_seconds: {"rule": None})
    monkeypatch.setattr(run, "Hunter", lambda clean, cpu_seconds: hunter)
    return hunter


def test_again(hunter: RecordedHunter, page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the table says is tried first. The run says which mutants had to be hunted anew, and corrects their rows."""
    table.write_into(page, [SIMULATED, SURVIVED], REPORTED)
    assert run.main(["--again", "--jobs", "1", "--rst", f"{page}"]) == 0
    last: list[Catch | None] = [SIMULATED, SURVIVED, None]
    assert hunter.told == [(mutant.name, catch) for mutant, catch in zip(REPORTED, last, strict=True)]
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == (
        "1 of 3 caught by what caught them last; hunted anew: slot-used-twice, vote-not-saved (not in the table)."
    )
    assert [line.endswith("  hunted anew") for line in printed.err.splitlines()] == [False, True, False]
    assert [row.kind for row in table.read_from(page).values()] == ["simulator", "unit", "unit"]


def test_without_again_everything_is_hunted_anew(hunter: RecordedHunter, page: Path) -> None:
    table.write_into(page, [SIMULATED, SURVIVED], REPORTED)
    assert run.main(["--jobs", "1", "--rst", f"{page}"]) == 0
    assert hunter.told == [(mutant.name, None) for mutant in REPORTED]


def test_files_are_written_after_each_mutant(
    hunter: RecordedHunter, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a run that is stopped loses nothing."""

    def stopped(mutant: Mutant, last: Catch | None) -> Catch:
        if mutant.name == TESTED.mutant:
            raise KeyboardInterrupt
        return RecordedHunter.hunt(hunter, mutant, last)

    monkeypatch.setattr(hunter, "hunt", stopped)
    with pytest.raises(KeyboardInterrupt):
        run.main(["--jobs", "1", "--rst", f"{page}", "--json", f"{tmp_path / 'rows'}"])
    found = [SIMULATED.mutant, SURVIVED.mutant]
    assert list(table.read_from(page)) == found
    assert [row["mutant"] for row in json.loads((tmp_path / "rows").read_text())] == found


def test_unknown_mutant(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run.main(["no-such-mutant"])
    assert "no such mutant: no-such-mutant" in capsys.readouterr().err
