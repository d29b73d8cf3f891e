"""Results and tables as text."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from txpaxos.cli.printing import print_value, table


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (5, b"5\n"),
        (-(2**63), b"-9223372036854775808\n"),
        ("text\x1b[2J", b"text\x1b[2J\n"),
        ("ä", "ä\n".encode()),
        (b"\x00\xff", b"\x00\xff\n"),
        (b"", b"\n"),
        (None, b"null\n"),
        (True, b"true\n"),
        ([1, "two", None], b'[1,"two",null]\n'),
        ({"a": {"b": 1.5}}, b'{"a":{"b":1.5}}\n'),
        ({1: 2}, b'{"1":2}\n'),
        ({(1, 2): 3}, b"{(1, 2): 3}\n"),
    ],
)
def test_value(value: Any, printed: bytes, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    print_value(value)
    assert capfdbinary.readouterr().out == printed


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ("ä\tb\nc", "ä\tb\nc\n"),
        ("wipe\x1b[2J", "wipe\\x1b[2J\n"),
        (b"\x1b]0;title\x07\xff", "\\x1b]0;title\\x07\\xff\n"),
        ("\u202e", "\\u202e\n"),
    ],
)
def test_value_on_a_terminal_is_harmless(
    value: Any, printed: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_value(value)
    assert capsys.readouterr().out == printed


def test_table() -> None:
    assert table(("node", "role", "slots"), [("a", "leader", 7), ("long-name", "x", 1234), ("b", "", "-")]) == (
        "node       role    slots\na          leader      7\nlong-name  x        1234\nb                      -"
    )
