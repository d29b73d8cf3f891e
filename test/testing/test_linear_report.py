"""Reports of results, and errors about files that are not a history of the model."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from test.helpers.linear_histories import READ_1, READ_2, WRITE_1, WRITE_2, Queue, opaque, recorded
from txpaxos.errors import ConfigError
from txpaxos.testing.linearizability.check import check, check_file
from txpaxos.testing.linearizability.history import HistoryError, HistoryRecorder
from txpaxos.testing.linearizability.models import KeyValue, Register


def test_report_of_a_stale_read() -> None:
    lines = (
        'e: ["write", 9]',
        "e ?",
        *WRITE_1,
        'a: ["write", 3]',
        *WRITE_2,
        *READ_2,
        *READ_1,
        "a = null",
        *READ_2,
        'f: ["write", 8]',
        "f ?",
    )
    assert check(recorded(*lines).operations(), Register()).report().splitlines() == [
        "not linearizable: 8 operations in 1 part",
        "",
        "No order of these operations explains their outputs. Up to the last to end, there is one.",
        "The last to end: read -> 1, client c, lines 10 to 11, 0.000000 to 0.000000 s",
        "It makes no difference what the state was before.",
        "Not shown: 2 more that may have been applied meanwhile, which does not help.",
        "",
        "c              |read -> 1|",
        "d  |read -> 2|",
    ]


def test_report_names_the_part() -> None:
    lines = ('a: ["put", "a key", 1]', "a = null", 'b: ["get", "a key"]', "b = null", 'c: ["get", "x"]', "c = null")
    assert check(recorded(*lines).operations(), KeyValue()).report().splitlines() == [
        "not linearizable: 3 operations in 2 parts",
        "",
        'No order of these operations of "a key" explains their outputs. Up to the last to end, there is one.',
        'The last to end: get "a key" -> null, client b, lines 3 to 4, 0.000000 to 0.000000 s',
        "It makes no difference what the state was before.",
        "",
        'a  |put "a key" 1 -> null|',
        'b                          |get "a key" -> null|',
    ]


def test_report_shows_the_states_that_are_possible() -> None:
    writes = [line for number in range(7) for line in (f'{"abdefgh"[number]}: ["write", {number}]',)]
    ends = [f"{client} = null" for client in "abdefgh"]
    lines = [*writes, *ends, 'c: ["read"]', "c = 99"]
    report = check(recorded(*lines).operations(), opaque(Register)).report()
    assert "\nPossible states before: " in report
    (line,) = [line for line in report.splitlines() if line.startswith("Possible states before: ")]
    assert line.endswith(" and 2 more")


def test_report_of_states_that_are_no_json() -> None:
    result = check(recorded('a: ["push", 1]', "a = null", 'b: ["pop"]', "b = 2").operations(), Queue())
    assert result.report().splitlines()[4:] == ["Possible states before: (1,)", "", "b  |pop -> 2|"]


def test_giving_up() -> None:
    result = check(recorded(*WRITE_1, *READ_2).operations(), opaque(Register), configurations_max=1)
    assert (result.linearizable, result.window, result.configurations) == (None, None, 1)
    assert result.report().splitlines() == [
        "undecided: gave up on the operations after 1 configurations; 2 operations in 1 part",
        "Allow more configurations, or record a history with more values that differ.",
    ]


def test_giving_up_on_one_part_does_not_hide_what_is_wrong_with_another() -> None:
    """The first key would take more configurations than allowed. The second is not linearizable at first sight."""
    hard = [line for number in range(9) for line in (f'a: ["put", "x", {number}]', "a = null")]
    lines = [*hard, 'b: ["get", "y"]', "b = 1"]
    for order in (lines, lines[-2:] + lines[:-2]):
        result = check(recorded(*order).operations(), opaque(KeyValue), configurations_max=5)
        assert (result.linearizable, result.part) == (False, "y")
    result = check(recorded(*hard, 'b: ["get", "y"]', "b = null").operations(), opaque(KeyValue), configurations_max=5)
    assert (result.linearizable, result.part) == (None, "x")
    assert result.report().startswith("undecided: gave up on the operations of x after ")


# ------------------------------------------------------------------- files


def write(path: Path, recorder: HistoryRecorder) -> str:
    path.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in recorder.events))
    return str(path)


def test_check_file(tmp_path: Path) -> None:
    good = write(tmp_path / "good", recorded(*WRITE_1, *READ_1))
    bad = write(tmp_path / "bad", recorded(*WRITE_1, *READ_2))
    assert check_file(good, "register").linearizable is True
    assert check_file(bad, "register").linearizable is False
    assert check_file(bad, Register()).linearizable is False
    assert check_file(good, f"{__name__}.OwnModel").linearizable is True
    assert check_file(good, "register", configurations_max=1).linearizable is None


class OwnModel(Register):
    """A model that is found by its dotted name."""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("registre", "no model is called 'registre': use register, key-value, counter, or the dotted name of a class"),
        ("nowhere.to.be.Found", "cannot import the model nowhere.to.be.Found: "),
        ("json.JSONDecoder", "json.JSONDecoder is no subclass of txpaxos.testing.linearizability.models.Model"),
        ("json.decoder", "json.decoder is no subclass of txpaxos.testing.linearizability.models.Model"),
    ],
)
def test_name_of_no_model(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_file(write(tmp_path / "history", recorded()), name)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("model", "lines", "message"),
    [
        (
            "register",
            ('a: ["reed"]', "a = 1"),
            "line 1: ('reed',) is no input of this model, which knows read, write, cas",
        ),
        ("register", ('a: "read"', "a = 1"), "line 1: 'read' is no input of this model, which knows read, write, cas"),
        (
            "register",
            (*WRITE_1, 'a: ["cas", 1, 2]', "a = 1"),
            "line 3: the output of ('cas', 1, 2) is true or false, not 1",
        ),
        (
            "key-value",
            ('a: ["put", "x"]',),
            "line 1: ('put', 'x') is no input of this model, which knows get, put, delete, cas",
        ),
        ("key-value", ('a: ["delete", "x"]', "a = 1"), "line 1: the output of ('delete', 'x') is true or false, not 1"),
        (
            "counter",
            ('a: ["add", "x"]', "a = 1"),
            "line 1: ('add', 'x') is no input of this model, which knows add, read",
        ),
        ("counter", ('a: ["add", 1]', "a = 1.5"), "line 1: the output of ('add', 1) is a whole number, not 1.5"),
    ],
)
def test_history_of_another_model(tmp_path: Path, model: str, lines: tuple[str, ...], message: str) -> None:
    path = write(tmp_path / "history", recorded(*lines))
    with pytest.raises(HistoryError) as error:
        check_file(path, model)
    assert str(error.value) == f"{path}, {message}"


def test_file_that_is_no_history(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text("junk\n")
    with pytest.raises(HistoryError) as error:
        check_file(str(path), "register")
    assert str(error.value).startswith(f"{path}, line 1 is no event: ")
