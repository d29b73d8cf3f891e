"""``txpaxos queue`` and ``txpaxos map``, with a node that runs the recipes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from twisted.internet.defer import Deferred

from test.helpers.cli_nodes import TXPAXOS, Nodes, txpaxos
from test.recipes.program import Program, result_of
from txpaxos.cli import main, map, printing, recipes
from txpaxos.cli.running import CommandError
from txpaxos.errors import CommandFailed, NoQuorum
from txpaxos.recipes import Recipes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("recipes")
    nodes = Nodes(folder, "a", options=("--app", "txpaxos.recipes:Coordinator"))
    try:
        nodes.start("a")
        nodes.wait_for_leader()
        yield folder
    finally:
        for node in list(nodes.processes):
            nodes.kill(node)


def outcome(folder: Path, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    done = txpaxos(*arguments, folder=folder, stdin=stdin)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def answer(folder: Path, *arguments: str, stdin: bytes = b"") -> Any:
    status, out, error = outcome(folder, *arguments, "--json", stdin=stdin)
    assert (status, error) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


def test_an_item_goes_through_a_queue_once(folder: Path) -> None:
    assert outcome(folder, "queue", "put", "jobs", "-", stdin=b"later") == (0, "1\n", "")
    (put,) = answer(folder, "queue", "put", "jobs", '{"name": "a"}', "--priority", "5")
    (taken,) = answer(folder, "queue", "take", "jobs")
    assert taken == {"token": 1, "priority": 5, "deliveries": 1, "value": {"name": "a"}}
    assert put.keys() == {"number"}
    assert outcome(folder, "queue", "take", "jobs") == (0, "later\n", "")
    status, out, error = outcome(folder, "queue", "take", "jobs", "--timeout", "0.1")
    assert (status, out, error) == (1, "", "txpaxos: an item of the queue jobs did not come within 0.1 s\n")


def test_the_values_of_a_map(folder: Path) -> None:
    (put,) = answer(folder, "map", "put", "config", "limit", "5")
    (entry,) = answer(folder, "map", "get", "config", "limit")
    assert entry == {"key": "limit", "version": put["version"], "value": 5}
    status, out, error = outcome(folder, "map", "put", "config", "limit", "6", "--if-version", "0")
    assert (status, out) == (1, "")
    assert error == f"txpaxos: limit in config has version {put['version']}, and not version 0\n"
    assert outcome(folder, "map", "put", "config", "name", "-5")[0] == 0
    assert outcome(folder, "map", "list", "config") == (0, "limit\nname\n", "")
    assert outcome(folder, "map", "get", "config", "name") == (0, "-5\n", "")
    (deleted,) = answer(folder, "map", "delete", "config", "name")
    changes = answer(folder, "map", "watch", "config", "--since", str(put["version"]), "--count", "2")
    assert [(change["key"], change["value"], change["deleted"]) for change in changes] == [
        ("name", "-5", False),
        ("name", None, True),
    ]
    assert changes[1]["version"] == changes[1]["since"] == deleted["version"]
    assert outcome(folder, "map", "get", "config", "name") == (1, "", "txpaxos: there is no name in the map config\n")


@pytest.mark.parametrize(("is_answered", "status"), [(True, 0), (False, 1)])
def test_a_watch_ends_with_its_time(is_answered: bool, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends well if it has watched at all."""
    program = Program()
    program.recipes.map("config", int).put("limit", 5)

    def ask(cluster: object, seconds: float, call: Any) -> None:
        if is_answered:
            Deferred.fromCoroutine(call(program.recipes))
        raise NoQuorum("none answered")

    monkeypatch.setattr(map, "ask", ask)
    result = CliRunner().invoke(main, ["map", "watch", "config"], prog_name="txpaxos")
    expected = "limit\n" if is_answered else "txpaxos: none answered\n"
    assert (result.exit_code, result.output) == (status, expected)


def called(call: Any) -> str:
    """The line of the error with which a call of the recipes ends."""
    program: Any = Program()
    error = result_of(Deferred.fromCoroutine(recipes._called(program, program.clock, call)))
    assert isinstance(error, CommandError)
    return error.message


def test_what_is_wrong_is_one_line() -> None:
    async def put(recipes: Recipes) -> None:
        await recipes.queue("", str).put("a")

    async def delete(recipes: Recipes) -> None:
        await recipes.map("config", str).delete("limit", expected_version=5)

    assert called(put) == "name must be a str of 1 to 256 characters, not ''"
    assert called(delete) == "limit in config is not there, and not version 5"
    result = CliRunner().invoke(main, ["queue", "put", "jobs", "{", "--json"], prog_name="txpaxos")
    assert (result.exit_code, result.stderr) == (1, "")
    assert json.loads(result.stdout)["error"].startswith("the value is no JSON: ")


def test_a_cluster_that_runs_no_recipes_is_one_line() -> None:
    async def refused(recipes: Recipes) -> None:
        raise CommandFailed("CallRefused: no call")

    hint = "does the cluster run the recipes (twistd paxos --app txpaxos.recipes:Coordinator)?"
    assert called(refused) == f"CallRefused: no call; {hint}"


@pytest.mark.parametrize("command", [("queue",), ("queue", "put"), ("queue", "take"), ("map",), ("map", "watch")])
def test_help(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*command, "--help"], prog_name="txpaxos")
    assert result.exit_code == 0
    assert "txpaxos" in result.output


@pytest.mark.parametrize(
    ("arguments", "argument", "text"),
    [
        (("map", "get", "", "k"), "NAME", "it is empty."),
        (("map", "put", "m", "", "v"), "KEY", "it is empty."),
        (("map", "watch", "m", "x" * 257), "[PREFIX]", "it has 257 characters: at most 256 are allowed."),
        (("map", "list", "m\udcff"), "NAME", "it is not UTF-8."),
        (("queue", "take", ""), "NAME", "it is empty."),
        (("lock", "", "--", "true"), "NAME", "it is empty."),
        (("elect", "e" * 300), "NAME", "it has 300 characters: at most 256 are allowed."),
    ],
)
def test_a_wrong_name_is_told_before_anything_is_sent(arguments: tuple[str, ...], argument: str, text: str) -> None:
    result = CliRunner().invoke(main, arguments, prog_name="txpaxos")
    assert (result.exit_code, result.output.splitlines()[-1]) == (2, f"Error: Invalid value for '{argument}': {text}")


@pytest.mark.parametrize("value", ["NaN", "[Infinity]", '{"a": -Infinity}', "1e400", "[" * 100_000])
def test_what_json_has_not_is_refused(value: str) -> None:
    for arguments in (("map", "put", "m", "k"), ("queue", "put", "q")):
        result = CliRunner().invoke(main, [*arguments, value, "--json"], prog_name="txpaxos")
        assert (result.exit_code, result.output.count("\n")) == (1, 1)
        assert isinstance(result.exception, SystemExit)


def test_a_value_nested_too_deep_for_the_wire_is_one_line() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]

    async def put(given: Recipes) -> None:
        await given.queue("jobs", recipes.ANYTHING).put(value)

    assert called(put) == "the value is nested too deep"


def test_numbers_that_json_has_not_are_printed_as_null(capsys: pytest.CaptureFixture[str]) -> None:
    printing.show({"a": [1.5, float("nan")], "b": float("inf")}, {"version": 1}, wants_json=True)
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "version": 1,
        "value": {"a": [1.5, None], "b": None},
    }


def test_a_key_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    map._show_key("a\nb\x1b[1m", 5, {"version": 1}, wants_json=False)
    map._show_key("a\nb", None, {"deleted": True}, wants_json=False)
    assert capsys.readouterr().out == "a\\nb\\x1b[1m\na\\nb (deleted)\n"


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_item_stays_in_the_queue_if_there_is_no_standard_output(folder: Path, options: tuple[str, ...]) -> None:
    assert outcome(folder, "queue", "put", "unseen", "item")[0] == 0
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", *TXPAXOS, "queue", "take", "unseen", *options]
    done = subprocess.run(shell, cwd=folder, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, b"txpaxos: standard output is closed\n")
    assert outcome(folder, "queue", "take", "unseen") == (0, "item\n", "")


@pytest.mark.parametrize(
    "arguments", [("map", "get", "m", "k"), ("map", "delete", "m", "k"), ("clock", "accept"), ("elect", "e")]
)
def test_with_json_an_error_is_json(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise NoQuorum("none\nanswered")

    monkeypatch.setattr("txpaxos.cli.recipes.run", fail)
    monkeypatch.setattr("txpaxos.cli.clock.run", fail)
    result = CliRunner().invoke(main, [*arguments, "--json"], prog_name="txpaxos")
    assert (result.exit_code, result.stderr) == (1, "")
    assert json.loads(result.stdout) == {"error": "none answered"}


def test_with_json_an_error_of_lock_is_json_beside_what_the_command_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise CommandError("nightly was lost")

    monkeypatch.setattr("txpaxos.cli.lock.run", fail)
    result = CliRunner().invoke(main, ["lock", "nightly", "--json", "--", "ls"], prog_name="txpaxos")
    assert (result.exit_code, result.stdout) == (1, "")
    assert json.loads(result.stderr) == {"name": "nightly", "error": "nightly was lost"}
