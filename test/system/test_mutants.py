"""The mutants fit the tree, some quick ones are caught, and the hunter neither invents a catch nor misses one.

All of them are let loose by ``make mutants``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest

from test.mutants import run
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


def test_a_file_that_cannot_be_collected_fails(small_tree: Path) -> None:
    (small_tree / "test" / "test_answer.py").write_text("import txpaxos.no_such_module\n")
    assert first_failure(small_tree, "test/test_answer.py", ()) == "test/test_answer.py"


def test_kinds() -> None:
    assert kind_of("test/core/test_agreement.py") == "model"
    assert kind_of("test/core/test_replica.py") == "unit"
    assert kind_of("test/core/test_subjects.py::test_one_value_whatever_happens[3]") == "model"
    assert kind_of("test/core/test_subjects.py::test_first_one_wins") == "unit"
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


def test_table_and_summary() -> None:
    mutants = [MUTANTS["lead-taken-for-a-lock"], MUTANTS["slot-used-twice"]]
    catches = [
        Catch("lead-taken-for-a-lock", "simulator", "chosen by a quorum", 3, 1.25),
        Catch("slot-used-twice", "", "", None, 60.0),
    ]
    assert run.table(catches, mutants).splitlines()[1:-1] == [
        "mutant                 trap  caught by  rule or test        seed  seconds",
        "=====================  ====  =========  ==================  ====  =======",
        "lead-taken-for-a-lock  12    simulator  chosen by a quorum  3     1.2",
        "slot-used-twice              NOTHING                              60.0",
    ]
    printed = run.summary(catches, mutants, 61.0)
    assert "1 of 2 mutants caught in 61 s: 1 by simulator." in printed
    assert "Traps put back in: 12; not: 1 (duplicate answered early), 2 " in printed


def test_table_goes_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.rst"
    page.write_text(f"above\n\n{run.BEGINS}\n\nold\n\n{run.ENDS}\n\nbelow\n")
    run.write_into(page, "new")
    assert page.read_text() == f"above\n\n{run.BEGINS}\n\nnew\n\n{run.ENDS}\n\nbelow\n"
    page.write_text("no marks\n")
    with pytest.raises(SystemExit, match="has no place for the table"):
        run.write_into(page, "new")


def test_unknown_mutant(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run.main(["no-such-mutant"])
    assert "no such mutant: no-such-mutant" in capsys.readouterr().err
