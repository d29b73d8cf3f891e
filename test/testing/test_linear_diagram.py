"""What the diagrams look like."""

from __future__ import annotations

import pytest

from txpaxos.testing.linearizability.diagram import WIDTH, as_text, diagram, label
from txpaxos.testing.linearizability.history import UNKNOWN, EventType, Operation, freeze


def operation(
    client: str, input: object, output: object, invoked: int, returned: int | None, outcome: EventType = "ok"
) -> Operation:
    return Operation(client, invoked, freeze(input), freeze(output), outcome, invoked, returned)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        ("", '""'),
        ("two words", '"two words"'),
        ('a"b', '"a\\"b"'),
        ("line\n", '"line\\n"'),
        (5, "5"),
        (None, "null"),
        (freeze({"a": [1]}), '{"a":[1]}'),
    ],
)
def test_values(value: object, text: str) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (operation("a", ["write", 5], None, 1, 2), "write 5 -> null"),
        (operation("a", ["write", 5], UNKNOWN, 1, None, "unknown"), "write 5 -> ?"),
        (operation("a", ["write", 5], UNKNOWN, 1, 2, "fail"), "write 5 failed"),
        (operation("a", "get", {"b": 1}, 1, 2), 'get -> {"b":1}'),
        (operation("a", ["write", "x" * 100], None, 1, 2), f"write {'x' * 31}..."),
    ],
)
def test_labels(shown: Operation, text: str) -> None:
    assert label(shown) == text


def test_nothing() -> None:
    assert diagram([], 9) == []


def test_one_row_for_each_client() -> None:
    operations = [
        operation("anna", ["write", 1], None, 1, 4),
        operation("b", ["read"], None, 2, 3),
        operation("b", ["read"], 1, 5, 6),
        operation("c", ["write", 2], UNKNOWN, 7, None, "unknown"),
        operation("b", ["read"], 2, 8, 9),
    ]
    assert diagram(operations, 9) == [
        "anna  |write 1 -> null|",
        "b      |read -> null|   |read -> 1|  |read -> 2|",
        "c                                   |write 2 -> ?>",
    ]


def test_what_ends_later_is_open() -> None:
    operations = [operation("a", ["write", 1], None, 1, 99), operation("b", ["read"], 1, 2, 3)]
    assert diagram(operations, 3) == [
        "a  |write 1 -> null>",
        "b   |read -> 1|",
    ]


def test_client_with_several_operations_at_a_time_has_several_rows() -> None:
    operations = [
        operation("a", ["read"], 1, 1, 3),
        operation("a", ["read"], 2, 2, 5),
        operation("a", ["read"], 3, 4, 6),
    ]
    assert diagram(operations, 6) == [
        "a  |read -> 1| |read -> 3|",
        "a   |read -> 2--|",
    ]


def test_wide_diagram_continues_below() -> None:
    operations = [operation("a", ["write", n], n, 2 * n + 1, 2 * n + 2) for n in range(100, 110)]
    lines = diagram(operations, 999)
    assert all(len(line) <= WIDTH + 3 for line in lines)
    assert lines == [
        "a  " + " ".join(f"|write {n} -> {n}|" for n in range(100, 105)),
        "",
        "a  " + " ".join(f"|write {n} -> {n}|" for n in range(105, 110)),
    ]


def test_diagram_without_a_gap_is_cut_anyhow() -> None:
    """Texts one above the other, so that every column is within one."""
    operations = [operation(str(n), ["write", "x" * 30], None, n + 1, n + 100) for n in range(95)]
    lines = diagram(operations, 95)
    assert max(map(len, lines)) == WIDTH + 4
    assert lines.count("") == 1
