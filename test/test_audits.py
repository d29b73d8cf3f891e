"""What nodes say of their states, and who of them stops."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import LogLevel

from test.fakes import logged
from txpaxos.audits import KEPT, Audits, Diverged
from txpaxos.core.messages import NodeId, Slot
from txpaxos.wire.peer_messages import Audit


def audit(slot: Slot = 10, state: bytes = b"good", log: bytes = b"log") -> Audit:
    return Audit(slot, log, state)


class Inspector:
    """Node "a" of a cluster.

    :ivar told: what it told, and whom. ``diverged``: that it is wrong.
    """

    def __init__(self, members: str = "abc") -> None:
        self.told: list[tuple[tuple[NodeId, ...], Audit]] = []
        self.diverged: list[str] = []
        self.audits = Audits(
            "a",
            tuple(members[1:]),
            len(members) // 2 + 1,
            lambda to, message: self.told.append((to, message)),
            lambda error: self.diverged.append(str(error)),
        )

    def hear(self, *said: tuple[NodeId, Audit]) -> list[dict[str, Any]]:
        """What is logged as critical meanwhile."""

        def receive() -> None:
            for one in said:
                self.audits.receive(*one)

        return logged(receive)


def test_all_agree() -> None:
    one = Inspector()
    one.audits.add(audit())
    assert one.told == [(("b", "c"), audit())]
    assert one.hear(("b", audit()), ("c", audit())) == []
    assert one.diverged == []


def test_one_that_is_asked_for_is_told_again() -> None:
    one = Inspector()
    one.audits.tell_again("c", 10)
    one.audits.add(audit())
    one.told.clear()
    one.audits.tell_again("c", 9)
    one.audits.tell_again("c", 10)
    assert one.told == [(("c",), audit())]


@pytest.mark.parametrize("own_first", [True, False])
def test_the_minority_stops(own_first: bool) -> None:
    one = Inspector()
    if own_first:
        one.audits.add(audit(state=b"bad"))
    one.hear(("b", audit()), ("c", audit()))
    if not own_first:
        assert one.diverged == []
        one.audits.add(audit(state=b"bad"))
    (line,) = one.diverged
    told, _, advice = line.partition("; ")
    assert told == "the state differs at slot 10: a against b, c"
    assert advice == "node a stops, see docs/operations.rst on diverged nodes"


def test_the_majority_goes_on_and_says_so() -> None:
    one = Inspector()
    one.audits.add(audit())
    (event,) = one.hear(("b", audit()), ("c", audit(state=b"bad")))
    assert event["log_level"] is LogLevel.critical
    assert event["line"] == "the state differs at slot 10: a, b against c"
    assert one.hear(("c", audit(state=b"bad")), ("b", audit())) == [], "once is enough"
    assert one.diverged == []


def test_two_that_differ_wait_for_the_third() -> None:
    one = Inspector()
    one.audits.add(audit())
    assert one.hear(("b", audit(state=b"bad"))) == []
    assert one.diverged == []
    one.hear(("c", audit(state=b"bad")))
    assert len(one.diverged) == 1


@pytest.mark.parametrize(("members", "states"), [("abc", "xyz"), ("ab", "xy"), ("abcd", "xxyy"), ("abcde", "xxyyz")])
def test_where_nobody_can_have_a_majority_any_more_all_stop(members: str, states: str) -> None:
    """Nobody knows who is right; the disks are as they were."""
    one = Inspector(members)
    one.audits.add(audit(state=states[0].encode()))
    said = [(node, audit(state=state.encode())) for node, state in zip(members, states, strict=True)]
    one.hear(*said[1:-1])
    assert one.diverged == []
    one.hear(said[-1])
    assert len(one.diverged) == 1


def test_five_of_which_two_are_wrong_in_the_same_way() -> None:
    one = Inspector("abcde")
    one.audits.add(audit())
    assert one.hear(("b", audit(state=b"bad")), ("c", audit(state=b"bad")), ("d", audit())) == []
    (event,) = one.hear(("e", audit()))
    assert event["line"] == "the state differs at slot 10: a, d, e against b, c"
    assert one.diverged == []


def test_another_log_is_told_as_such() -> None:
    one = Inspector()
    one.audits.add(audit(log=b"other"))
    one.hear(("b", audit()), ("c", audit()))
    assert one.diverged[0].startswith("the log differs at slot 10: a against b, c; ")


def test_slots_are_apart() -> None:
    one = Inspector()
    for slot, state in ((10, b"x"), (20, b"y")):
        one.audits.add(audit(slot, state))
    assert one.hear(("b", audit(10, b"x")), ("b", audit(20, b"y")), ("c", audit(30, b"z"))) == []
    assert one.diverged == []


def test_whoever_comes_late_is_told_again_what_may_have_been_lost() -> None:
    one = Inspector()
    one.audits.add(audit())
    one.hear(("c", audit()))
    assert one.told[1:] == [(("c",), audit())]
    one.hear(("c", audit()))
    assert len(one.told) == 2, "or two nodes would tell each other for ever"


def test_of_those_who_are_ahead_it_is_remembered() -> None:
    one = Inspector()
    one.hear(("b", audit()), ("c", audit()))
    assert one.told == []
    one.audits.add(audit(state=b"bad"))
    assert len(one.diverged) == 1


def test_the_newest_slots_are_remembered() -> None:
    one = Inspector()
    for slot in range(10, 200, 10):
        one.hear(("b", audit(slot)))
        assert len(one.audits._heard) <= KEPT
    one.audits.add(audit(10, b"bad"))
    one.hear(("b", audit(10)), ("c", audit(10)))
    assert one.diverged == [], "too long ago"
    one.audits.add(audit(190, b"bad"))
    one.hear(("c", audit(190)))
    assert len(one.diverged) == 1


def test_a_node_that_took_it_again_counts_with_what_it_said_last() -> None:
    """It was restarted before its snapshot was complete."""
    one = Inspector()
    one.audits.add(audit())
    one.hear(("b", audit(state=b"bad")))
    assert one.hear(("b", audit()), ("c", audit())) == []
    assert one.diverged == []


def test_alone() -> None:
    one = Inspector("a")
    one.audits.add(audit())
    assert one.told == [((), audit())]


def test_the_error_is_one_line() -> None:
    assert issubclass(Diverged, Exception)
    one = Inspector()
    one.audits.add(audit(state=b"bad"))
    one.hear(("b", audit()), ("c", audit()))
    assert "\n" not in one.diverged[0]
