"""``txpaxos simulate``: whose commands and queries it makes, and what it prints."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from test.cli.test_commands import invoke
from txpaxos.node.snapshots.taking import Policy
from txpaxos.testing.checkers.checker import Checker, Violation

EXAMPLES = Path(__file__).parents[2] / "examples"
KEY_VALUE = ("--app", f"{EXAMPLES}/kv.py:KeyValue", "--workload", f"{EXAMPLES}/kv.py:some_command")


def run(*arguments: str) -> Result:
    return invoke("simulate", "--seconds", "1", *arguments)


@pytest.mark.parametrize("query", [(), ("--query", f"{EXAMPLES}/kv.py:some_query")])
def test_a_service_that_decodes_its_queries_is_not_blamed(
    query: tuple[str, ...], logged_errors: list[dict[str, Any]]
) -> None:
    """An empty query, which it refuses, is the simulator's invention."""
    result = run(*KEY_VALUE, *query)
    assert result.exit_code == 0, result.output
    gc.collect()
    logged_errors.clear()  # Nodes were made to die.


def test_what_the_service_prints_is_held_back_unless_asked_for(logged_errors: list[dict[str, Any]]) -> None:
    app = ("--app", f"{EXAMPLES}/counter.py:Counter")
    assert len(run(*app).stdout.splitlines()) < 5
    assert len(run(*app, "--prints").stdout.splitlines()) > 50
    logged_errors.clear()  # Some commands are no number.


@pytest.mark.parametrize("option", ["--workload", "--query"])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("txpaxos.counter:Counter", "and raises TypeError: "),
        ("txpaxos:__version__", ""),
        ("builtins:repr", "and returns str"),
    ],
)
def test_a_wrong_maker_is_one_line(option: str, name: str, why: str) -> None:
    result = run(option, name)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert f"{option} {name}: it must be a function of a random.Random that returns bytes" in line
    assert why in line


def test_every_answer_is_compared_with_those_to_the_same_query() -> None:
    checker = Checker(("a", "b", "c"), Policy(), 5)
    checker.read(b"id", 1, 7, None)
    checker.read(b"total", 2, 7, None)
    checker.read(b"id", 2, 8, None)
    with pytest.raises(Violation, match="equal states"):
        checker.read(b"id", 2, 7, None)
