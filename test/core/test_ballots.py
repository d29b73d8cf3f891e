"""Ballots as text, as a user writes them and every message shows them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txpaxos.core.messages import LOWEST, Ballot


@given(st.integers(1, 10**19 - 1), st.text(min_size=1))
def test_what_a_ballot_is_written_as_is_that_ballot(number: int, node: str) -> None:
    assert Ballot.parse(str(Ballot(number, node))) == (number, node)


def test_the_name_of_a_node_may_hold_a_dot() -> None:
    assert Ballot.parse("3.a.example") == Ballot(3, "a.example")


@pytest.mark.parametrize(
    "text", ["", "3", "3.", ".a", "a.3", "0.a", "-3.a", "+3.a", "3 .a", "\u0663.a", "1" * 20 + ".a", str(LOWEST)]
)
def test_what_is_no_ballot_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no ballot: write its round, a dot and its node, as 3\.a"):
        Ballot.parse(text)


def test_a_refusal_shows_the_beginning_of_the_text() -> None:
    with pytest.raises(ValueError, match=r"^'x{59} is no ballot") as raised:
        Ballot.parse("x" * 1000 + "\n")
    assert len(str(raised.value)) < 120
