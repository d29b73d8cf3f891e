"""What ``twistd paxos`` writes to its log, as lines and as objects, and that every line has a name."""

from __future__ import annotations

import ast
import json
import re
import syslog
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import Application
from twisted.logger import FileLogObserver, ILogObserver, Logger, LogLevel, LogPublisher
from twisted.python import log as legacy
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.scripts._twistd_unix import ServerOptions

from txpaxos.core.messages import Ballot
from txpaxos.errors import ConfigError
from txpaxos.log_lines import REASON_CHARACTERS_MAX, for_log
from txpaxos.server.log_output import (
    FIELDS_MAX,
    ITEMS_MAX,
    LEVELS,
    OWN_KEYS,
    TEXT_OF_EVENT_CHARACTERS_MAX,
    TRACEBACK_CHARACTERS_MAX,
    as_object,
    check_log_output,
    filtered,
    json_line,
    set_log_output,
)

ROOT = Path(__file__).parents[2]


def events(*acts: Callable[[Logger], object]) -> list[dict[str, Any]]:
    """What ``acts`` log."""
    found: list[dict[str, Any]] = []
    for act in acts:
        act(Logger(namespace="a.b", observer=found.append))  # type: ignore[arg-type]
    return found


def shown(act: Callable[[Logger], object]) -> dict[str, Any]:
    """The object that ``act`` brings into the log, read from its line."""
    (event,) = events(act)
    line = json_line(event)
    assert line.count("\n") == 1
    assert line.isascii()
    found: dict[str, Any] = json.loads(line)
    return found


def test_an_object_has_what_was_said_and_nothing_of_twisteds_own() -> None:
    found = shown(
        lambda log: log.warn(
            "node {node} said {ballot}{more}", node="a", ballot=Ballot(3, "b"), slot=7, more=" (x)", event="said"
        )
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert list(found.items()) == [
        ("level", "warn"),
        ("namespace", "a.b"),
        ("event", "said"),
        ("text", f"node a said {Ballot(3, 'b')} (x)"),
        ("node", "a"),
        ("ballot", str(Ballot(3, "b"))),
        ("slot", 7),
    ]


def test_the_time_is_that_of_the_event() -> None:
    (event,) = events(lambda log: log.info("x"))
    assert as_object(event | {"log_time": 0.0625})["time"] == "1970-01-01T00:00:00.062Z"


def fail(depth: int) -> None:
    if depth:
        fail(depth - 1)
    raise ValueError("no\nmore\x1b[2J" + "x" * 5000)


@pytest.mark.parametrize("depth", [0, 500])
def test_a_failure_is_its_error_and_the_end_of_its_traceback(depth: int) -> None:
    try:
        fail(depth)
    except ValueError:
        found = shown(lambda log: log.failure("apply raised", Failure(), slot=3, event="apply_raised"))
    assert (found["text"], found["level"], found["slot"]) == ("apply raised", "critical", 3)
    assert found["error"].startswith(r"ValueError: no\nmore\x1b[2Jxxx")
    assert len(found["error"]) < REASON_CHARACTERS_MAX + 60
    assert len(found["traceback"]) < TRACEBACK_CHARACTERS_MAX + 10


def test_a_failure_that_is_prepared_for_the_log_has_the_class_that_it_had() -> None:
    try:
        raise KeyError("a")
    except KeyError:
        found = shown(lambda log: log.failure("oh", for_log()))
    assert found["error"] == "KeyError: 'a'"
    assert "in test_a_failure_that" in found["traceback"] or "test_log_output.py" in found["traceback"]


class Unsayable:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, True),
        (1.5, 1.5),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
        (None, None),
        ("a\r\nb\x7f", "a\\r\\nb\\x7f"),
        ("\ud800", "\\ud800"),
        ("x" * 5000, "x" * REASON_CHARACTERS_MAX + "... (5000 characters)"),
        (b"\x00", "b'\\x00'"),
        ((1, "b", (2,)), [1, "b"]),
        (list(range(1000)), list(range(ITEMS_MAX))),
        ({"a": 1}, "{'a': 1}"),
        (ValueError("bad\n"), "ValueError: bad\\n"),
    ],
)
def test_values(value: object, written: object) -> None:
    assert shown(lambda log: log.info("x", value=value))["value"] == written


def test_an_error_that_is_no_failure() -> None:
    assert shown(lambda log: log.warn("{error}", error=OSError(2, "gone")))["error"].endswith("gone")


def test_a_field_does_not_displace_what_an_object_always_has() -> None:
    found = shown(lambda log: log.info("x", time="never", namespace="z", text="y", traceback="t"))
    assert found["time"] != "never"
    assert (found["level"], found["namespace"], found["text"]) == ("info", "a.b", "x")
    assert "traceback" not in found


def test_what_is_too_long_or_too_much_is_bounded() -> None:
    found = shown(lambda log: log.info("y" * 9000, **{f"f{number}": number for number in range(1000)}))
    assert len(found["text"]) < TEXT_OF_EVENT_CHARACTERS_MAX + 30
    assert len(found) == len(("time", "level", "namespace", "text")) + FIELDS_MAX


@pytest.mark.parametrize("value", [Unsayable(), 10**5000], ids=["raises", "too-long"])
def test_an_event_that_cannot_be_written_becomes_a_line_that_says_so(value: object) -> None:
    (event,) = events(lambda log: log.info("x", value=value))
    found = json.loads(json_line(event))
    assert found["event"] == "event_not_written"


def test_lines_of_twisteds_older_api_and_lone_surrogates() -> None:
    found: list[dict[str, Any]] = []
    older = legacy.LogPublisher(publishPublisher=LogPublisher(found.append))  # type: ignore[arg-type]
    older.msg("hello \ud800\nthere", answer=42)
    written = json.loads(json_line(found[0]))
    assert (written["text"], written["answer"], written["level"]) == ("hello \\ud800\nthere", 42, "info")
    assert set(written) == {"time", "level", "namespace", "text", "answer"}


@pytest.mark.parametrize("level", LEVELS)
def test_levels(level: str) -> None:
    write = filtered(lambda event: str(event["log_level"].name), level)
    said = events(*(lambda log, one=one: log.emit(one, "x") for one in LogLevel.iterconstants()))
    written = [write(event) for event in said]
    assert [one for one in written if one] == list(LEVELS[LEVELS.index(level) :])


def test_what_says_nothing_to_an_operator_is_debug() -> None:
    found: list[dict[str, Any]] = []
    older = legacy.LogPublisher(publishPublisher=LogPublisher(found.append))  # type: ignore[arg-type]
    for text in ("node a, clients: starting on 5010", "(TCP Port 5010 Closed)", "the shop closed: starting on Monday."):
        older.msg(text)
    assert [as_object(one)["level"] for one in found] == ["debug", "debug", "info"]


def test_a_program_other_than_twistd_and_a_logger_of_the_users_are_left_alone() -> None:
    application = Application("x")
    set_log_output(application, {"nodaemon": True}, "json", "info")
    options = ServerOptions()
    options["logger"] = "a.b"
    set_log_output(application, options, None, None)
    assert application.getComponent(ILogObserver, None) is None


def observer_of(**given: object) -> Any:
    options = ServerOptions()
    options.update(given)
    application: Componentized = Application("x")
    set_log_output(application, options, "json", "warn")
    return application.getComponent(ILogObserver)


def test_a_log_file_is_where_twistd_would_have_it(tmp_path: Path) -> None:
    observer = observer_of(logfile=str(tmp_path / "a.log"), nodaemon=True)
    assert isinstance(observer, FileLogObserver)
    for event in events(lambda log: log.info("a"), lambda log: log.error("b", event="c")):
        observer(event)
    (line,) = (tmp_path / "a.log").read_text().splitlines()
    assert json.loads(line)["event"] == "c"


def test_the_log_of_the_system_gets_an_object_a_message_with_its_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, str]] = []
    monkeypatch.setattr(syslog, "syslog", lambda priority, line: told.append((priority, line)))
    monkeypatch.setattr(syslog, "openlog", lambda *_: None)
    observer = observer_of(syslog=True)
    for event in events(lambda log: log.info("a"), lambda log: log.warn("b\nc"), lambda log: log.critical("d")):
        observer(event)
    assert [priority for priority, _ in told] == [syslog.LOG_WARNING, syslog.LOG_CRIT]
    assert [json.loads(line)["text"] for _, line in told] == ["b\nc", "d"]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (({}, "xml", None), "--log-format 'xml': must be text or json"),
        (({}, None, "loud"), "--log-level 'loud': must be debug, info, warn, error or critical"),
        (({"logger": "a.b"}, "json", None), "--log-format and --logger: twistd's --logger decides"),
        (({"logger": "a.b"}, None, "warn"), "--log-level and --logger: twistd's --logger decides"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(given: tuple[dict[str, str], Any, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_log_output(*given)
    assert str(caught.value).startswith(line)


# The names of events

METHODS = {*LEVELS, "failure"}


def is_log_call(call: ast.Call) -> bool:
    function = call.func
    return (
        isinstance(function, ast.Attribute)
        and function.attr in METHODS
        and ast.unparse(function.value).split(".")[-1] in ("log", "_log")
    )


def event_of(call: ast.Call) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == "event"), None)


def functions_and_calls(tree: ast.AST, inside: ast.FunctionDef | None = None) -> Iterator[tuple[Any, ast.Call]]:
    """Every call, with the innermost function around it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call):
            yield inside, node
        yield from functions_and_calls(node, node if isinstance(node, ast.FunctionDef) else inside)


def names_in(path: Path) -> tuple[set[str], list[str]]:
    """The names of the events of a module, and the places of calls that have none."""
    calls = list(functions_and_calls(ast.parse(path.read_text())))
    names: set[str] = set()
    faults: list[str] = []
    for function, call in calls:
        if not is_log_call(call):
            continue
        place = f"{path.relative_to(ROOT)}:{call.lineno}"
        told = [event_of(call)]
        if isinstance(told[0], ast.Name) and told[0].id == "event":  # A method that is told the name by its callers.
            assert function is not None, place
            told = [
                event_of(other)
                for _, other in calls
                if isinstance(other.func, ast.Attribute) and other.func.attr == function.name
            ]
        for name in told or [None]:
            if isinstance(name, ast.Constant) and re.fullmatch("[a-z]+(_[a-z]+)*", str(name.value)):
                names.add(str(name.value))
            else:
                faults.append(place)
        faults += [f"{place} {keyword.arg}" for keyword in call.keywords if keyword.arg in OWN_KEYS_OF_OTHERS]
    return names, faults


OWN_KEYS_OF_OTHERS = {*OWN_KEYS} - {"event", "error"}
IN_TABLE = set(re.findall(r"(?m)^   \* - ``(\w+)``$", (ROOT / "docs/logs.rst").read_text()))


def test_every_line_of_the_log_has_a_name_which_the_page_explains() -> None:
    names, faults = {"event_not_written"}, []
    for path in sorted((ROOT / "txpaxos").rglob("*.py")):
        found, wrong = names_in(path)
        names |= found
        faults += wrong
    assert faults == []
    assert len(names) > 70
    assert names == IN_TABLE


def test_every_row_of_the_page_says_what_it_means_and_what_to_do() -> None:
    text = (ROOT / "docs/logs.rst").read_text()
    rows = re.findall(r"(?m)^   \* - ``\w+``\n     - (.+)\n     - (.+)$", text)
    assert len(rows) == len(IN_TABLE)
    assert all(f"``{key}``" in text for key in OWN_KEYS)
    assert all(f"``{level}``" in text for level in LEVELS)


def test_a_call_without_a_name_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "a.py").write_text(
        'log.info("x")\nself.log.warn("y", event="Bad Name")\nlog.error("z", event="good")\n'
    )
    assert names_in(tmp_path / "a.py") == ({"good"}, ["a.py:1", "a.py:2"])
