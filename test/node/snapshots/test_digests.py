"""What nodes say of their states, and who of them stops."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any

import pytest
from twisted.logger import LogLevel

from test.helpers.fakes import logged
from test.helpers.fixed_voters import FixedVoters
from txpaxos.core.messages import NodeId, Slot
from txpaxos.node.counts import Count, Counts
from txpaxos.node.snapshots.digests import REPEATS_MAX, SLOTS_KEPT, Comparison, Diverged, StateDigests
from txpaxos.wire.peer_messages import AskStateDigest, StateDigest, StateDigestsHeard


def digest(slot: Slot = 10, state: bytes = b"good", log: bytes = b"log") -> StateDigest:
    return StateDigest(slot, log, state)


class Inspector:
    """One node of a cluster, "a" unless another is named.

    :ivar told: what it told, and whom. ``diverged``: that it is wrong.
    """

    def __init__(self, members: str = "abc", name: NodeId = "a") -> None:
        self.told: list[tuple[tuple[NodeId, ...], StateDigest | StateDigestsHeard | AskStateDigest]] = []
        self.logs: dict[Slot, bytes] = {}
        self.counters: Counts = Counter()
        self.diverged: list[str] = []
        self.digests = StateDigests(
            name,
            FixedVoters(tuple(member for member in members if member != name), len(members) // 2 + 1),
            lambda to, message: self.told.append((to, message)),
            lambda error: self.diverged.append(str(error)),
            lambda slot: self.logs.get(slot, b""),
            counters=self.counters,
        )

    def hear(self, *said: tuple[NodeId, StateDigest]) -> list[dict[str, Any]]:
        """What is logged as critical meanwhile."""

        def receive() -> None:
            for one in said:
                self.digests.receive(*one)

        return logged(receive)


def test_all_agree() -> None:
    one = Inspector()
    one.digests.announce(digest())
    assert one.told == [(("b", "c"), digest())]
    assert one.hear(("b", digest()), ("c", digest())) == []
    assert one.diverged == []
    assert one.counters == {}


@pytest.mark.parametrize("own_first", [True, False])
def test_the_minority_stops(own_first: bool) -> None:
    one = Inspector()
    if own_first:
        one.digests.announce(digest(state=b"bad"))
    one.hear(("b", digest()), ("c", digest()))
    if not own_first:
        assert one.diverged == []
        one.digests.announce(digest(state=b"bad"))
    (line,) = one.diverged
    told, _, advice = line.partition("; ")
    assert told == "the state differs at slot 10: a against b, c"
    assert advice == "node a stops, see docs/operations.rst on diverged nodes"


def test_the_majority_goes_on_and_says_so() -> None:
    one = Inspector()
    one.digests.announce(digest())
    (event,) = one.hear(("b", digest()), ("c", digest(state=b"bad")))
    assert event["log_level"] is LogLevel.critical
    assert event["line"] == "the state differs at slot 10: a, b against c"
    assert one.hear(("c", digest(state=b"bad")), ("b", digest())) == [], "once is enough"
    assert one.diverged == []
    assert one.counters == {Count.STATES_DIFFER: 1}


def test_two_that_differ_wait_for_the_third() -> None:
    """And say so meanwhile, to the log and to each other."""
    one = Inspector()
    one.digests.announce(digest())
    (event,) = one.hear(("b", digest(state=b"bad")))
    assert event["log_level"] is LogLevel.critical
    assert event["line"] == "the state differs at slot 10: a against b"
    assert "which nodes are right is not known" in event["log_format"]
    assert one.diverged == []
    assert one.told[-1] == (("b", "c"), StateDigestsHeard(10, (("b", b"log", b"bad"),)))
    assert one.hear(("b", digest(state=b"bad"))) == [], "once is enough"
    one.hear(("c", digest(state=b"bad")))
    assert len(one.diverged) == 1


@pytest.mark.parametrize(("members", "states"), [("abc", "xyz"), ("ab", "xy"), ("abcd", "xxyy"), ("abcde", "xxyyz")])
def test_where_no_state_can_have_a_majority_any_more_all_stop(members: str, states: str) -> None:
    """No node can tell which is right; the disks are as they were."""
    one = Inspector(members)
    one.digests.announce(digest(state=states[0].encode()))
    said = [(node, digest(state=state.encode())) for node, state in zip(members, states, strict=True)]
    one.hear(*said[1:-1])
    assert one.diverged == []
    one.hear(said[-1])
    assert len(one.diverged) == 1


def test_five_of_which_two_are_wrong_in_the_same_way() -> None:
    one = Inspector("abcde")
    one.digests.announce(digest())
    assert len(one.hear(("b", digest(state=b"bad")), ("c", digest(state=b"bad")), ("d", digest()))) == 3
    (event,) = one.hear(("e", digest()))
    assert event["line"] == "the state differs at slot 10: a, d, e against b, c"
    assert one.diverged == []


def test_another_log_is_told_as_such() -> None:
    one = Inspector()
    one.digests.announce(digest(log=b"other"))
    one.hear(("b", digest()), ("c", digest()))
    assert one.diverged[0].startswith("the log differs at slot 10: a against b, c; ")


def test_slots_are_apart() -> None:
    one = Inspector()
    for slot, state in ((10, b"x"), (20, b"y")):
        one.digests.announce(digest(slot, state))
    assert one.hear(("b", digest(10, b"x")), ("b", digest(20, b"y")), ("c", digest(30, b"z"))) == []
    assert one.diverged == []


def test_a_late_digest_is_answered_again_since_the_first_may_have_been_lost() -> None:
    one = Inspector()
    one.digests.announce(digest())
    one.hear(("c", digest()))
    assert one.told[1:] == [(("c",), digest())]
    one.hear(("c", digest()))
    assert len(one.told) == 2, "or two nodes would tell each other for ever"


def test_of_those_who_are_ahead_it_is_remembered() -> None:
    one = Inspector()
    one.hear(("b", digest()), ("c", digest()))
    assert one.told == []
    one.digests.announce(digest(state=b"bad"))
    assert len(one.diverged) == 1


def test_of_each_node_the_newest_words_are_remembered() -> None:
    """So no node can make others forget what a third one said."""
    one = Inspector()
    one.hear(("c", digest(190)))
    for slot in range(1000, 1000 + 10 * SLOTS_KEPT):
        one.hear(("b", digest(slot)), ("b", digest(slot, b"")))
        assert len(one.digests._sent_by["b"]) <= 2 * SLOTS_KEPT
    one.hear(("b", digest(190)))
    one.digests.announce(digest(190, b"bad"))
    assert len(one.diverged) == 1


def test_hashes_of_logs_alone_do_not_take_the_place_of_those_of_states() -> None:
    one = Inspector()
    one.digests.announce(digest(5))
    for slot in range(10, 10 + 10 * SLOTS_KEPT):
        one.digests.slot_reached(slot, b"log")
    one.digests.answer("b", 5)
    assert one.told[-1] == (("b",), digest(5))


def test_a_node_that_took_it_again_counts_with_what_it_said_last() -> None:
    """It was restarted before its snapshot was complete."""
    one = Inspector()
    one.digests.announce(digest())
    one.hear(("b", digest(state=b"bad")))
    assert one.hear(("b", digest()), ("c", digest())) == []
    assert one.diverged == []


class TestToldFirst:
    """A node that finds something out says so before it stops for that, and tells what it heard from others."""

    def test_all_know_that_all_differ(self) -> None:
        """Or the one that finds out would stop, and the two others, of which neither can be right, would go on."""
        one, two, three = (Inspector("abc"), Inspector("bac", "b"), Inspector("cab", "c"))
        inspectors = {"a": one, "b": two, "c": three}
        two.digests.announce(digest(state=b"b"))
        three.digests.announce(digest(state=b"c"))
        for inspector, sender in ((two, "c"), (three, "b")):
            inspector.hear((sender, digest(state=sender.encode())))
            assert inspector.diverged == []
        one.hear(("b", digest(state=b"b")), ("c", digest(state=b"c")))
        logged(lambda: one.digests.announce(digest(state=b"a")))
        assert len(one.diverged) == 1
        for to, message in one.told:
            for name in to:
                logged(partial(deliver, inspectors[name], "a", message))
        assert [len(inspector.diverged) for inspector in inspectors.values()] == [1, 1, 1]

    def test_one_that_differs_from_a_majority_of_which_one_is_down(self) -> None:
        one = Inspector()
        one.digests.announce(digest(state=b"bad"))
        logged(lambda: deliver(one, "b", digest()))
        assert one.diverged == []
        logged(lambda: deliver(one, "b", StateDigestsHeard(10, (("c", b"log", b"good"), ("a", b"log", b"bad")))))
        assert one.diverged[0].startswith("the state differs at slot 10: a against b, c;")

    def test_a_node_speaks_for_itself_first(self) -> None:
        """What another says that it has said counts only until then."""
        one = Inspector()
        one.digests.announce(digest())
        one.hear(("c", digest()))
        lie = StateDigestsHeard(
            10, (("c", b"log", b"bad"), ("a", b"log", b"bad"), ("b", b"log", b"bad"), ("z", b"", b""))
        )
        assert logged(lambda: deliver(one, "b", lie)) == []
        assert one.diverged == []

    def test_it_does_not_go_on_for_ever(self) -> None:
        one = Inspector()
        one.digests.announce(digest())

        def speak() -> None:
            for number in range(1000):
                one.digests.receive("b", digest(state=b"%d" % number))

        logged(speak)
        assert len(one.told) <= 3 + 2 * REPEATS_MAX

    def test_what_is_no_hash_is_not_remembered(self) -> None:
        one = Inspector()
        one.digests.announce(digest())
        assert one.hear(("b", digest(state=bytes(10**6))), ("b", digest(log=b""))) == []
        deliver(one, "b", StateDigestsHeard(10, (("c", bytes(10**6), b""),)))
        assert len(one.told) == 1


class TestLogs:
    """They are compared where others take snapshots, too."""

    def test_at_a_slot_that_this_node_has_passed(self) -> None:
        one = Inspector()
        one.logs[7] = b"mine"
        one.hear(("b", digest(7, log=b"theirs")))
        assert one.diverged == []
        one.hear(("c", digest(7, log=b"theirs")))
        assert one.diverged[0].startswith("the log differs at slot 7: a against b, c; ")

    def test_at_a_slot_that_it_has_not_reached(self) -> None:
        one = Inspector()
        one.hear(("b", digest(7, log=b"theirs")), ("c", digest(7, log=b"theirs")))
        assert one.digests.watched == {7}
        logged(lambda: one.digests.slot_reached(7, b"mine"))
        assert one.diverged[0].startswith("the log differs at slot 7: a against b, c; ")
        assert one.digests.watched == set()

    def test_a_state_that_this_node_does_not_know_stops_no_node(self) -> None:
        one = Inspector()
        one.logs[7] = b"log"
        (event,) = one.hear(("b", digest(7)), ("c", digest(7, b"other")))
        assert event["line"] == "the state differs at slot 7: b against c"
        assert one.diverged == []

    def test_what_was_lost_is_told_again_where_the_next_interval_ends(self) -> None:
        one = Inspector()
        one.digests.announce(digest())
        one.hear(("b", digest(state=b"bad")))
        before = len(one.told)
        one.digests.slot_reached(20, b"log")
        assert [message.slot for _, message in one.told[before:]] == [20, 10, 10]
        for slot in range(30, 1000, 10):
            one.digests.slot_reached(slot, b"log")
        assert [message.slot for _, message in one.told].count(10) <= 2 + 2 * REPEATS_MAX


class TestFind:
    """What the others say of a snapshot that came from one of them."""

    @pytest.mark.parametrize(
        ("members", "said", "finding", "same"),
        [
            ("abc", {"b": digest(), "c": digest()}, Comparison.CONFIRMED, "bc"),
            ("abc", {"b": digest()}, Comparison.UNDECIDED, "b"),
            ("abc", {"b": digest(), "c": digest(state=b"bad")}, Comparison.CONTRADICTED, "b"),
            ("abc", {"b": digest(state=b"bad"), "c": digest(state=b"bad")}, Comparison.CONTRADICTED, ""),
            ("abc", {"b": digest(), "c": digest(log=b"", state=b"")}, Comparison.UNKNOWN, "b"),
            ("abc", {"b": digest(), "c": digest(state=b"")}, Comparison.UNKNOWN, "b"),
            ("abc", {"b": digest(), "c": digest(log=b"other", state=b"")}, Comparison.CONTRADICTED, "b"),
            ("ab", {"b": digest()}, Comparison.UNKNOWN, "b"),
            ("ab", {}, Comparison.UNDECIDED, ""),
            (
                "abcde",
                {"b": digest(), "c": digest(), "d": digest(), "e": digest(state=b"bad")},
                Comparison.CONFIRMED,
                "bcd",
            ),
            ("abcde", {one: digest(state=b"bad") for one in "bcd"}, Comparison.CONTRADICTED, ""),
            ("abcde", {one: digest(state=one.encode()) for one in "bcd"}, Comparison.UNDECIDED, ""),
        ],
        ids=str,
    )
    def test_it(self, members: str, said: dict[NodeId, StateDigest], finding: Comparison, same: str) -> None:
        one = Inspector(members)
        one.hear(*said.items())
        assert one.digests.compare(digest()) == (finding, tuple(same))

    def test_what_others_say_that_a_third_one_said_does_not_count(self) -> None:
        one = Inspector()
        deliver(one, "b", StateDigestsHeard(10, (("c", b"log", b"good"),)))
        one.hear(("b", digest()))
        assert one.digests.compare(digest()) == (Comparison.UNDECIDED, ("b",))

    def test_who_did_not_know_is_asked_anew(self) -> None:
        one = Inspector()
        one.hear(("b", digest()), ("c", digest(log=b"", state=b"")))
        one.digests.forget_unknown(10)
        one.digests.ask_others(10)
        assert one.digests.compare(digest())[0] is Comparison.UNDECIDED
        assert one.told[-1] == (("b", "c"), AskStateDigest(10))

    def test_a_question_is_always_answered(self) -> None:
        one = Inspector()
        one.logs[7] = b"log"
        one.digests.announce(digest())
        for slot, answer in ((10, digest()), (7, digest(7, b"")), (8, digest(8, b"", b""))):
            one.digests.answer("b", slot)
            assert one.told[-1] == (("b",), answer)
        one.hear(("c", digest(state=b"bad")))
        one.digests.answer("b", 10)
        assert one.told[-1] == (("b",), StateDigestsHeard(10, (("c", b"log", b"bad"),)))


class TestTalkEnds:
    """Of more slots at once than are remembered, everything is said, and then nothing more."""

    SLOTS = range(10, 10 * (3 * SLOTS_KEPT + 1), 10)

    def talk(self, members: str, states: dict[NodeId, bytes], starts: Iterable[NodeId]) -> list[tuple[NodeId, Any]]:
        """Nodes that have been at all slots. Those of ``starts`` tell all others that are up; what they say to that."""
        nodes = {name: Inspector(members, name) for name in states}
        for (name, node), slot in itertools.product(nodes.items(), self.SLOTS):
            node.logs[slot] = b"log"
            node.digests.remember(digest(slot, states[name]))
        for name, slot in itertools.product(starts, self.SLOTS):
            nodes[name].digests.announce(digest(slot, states[name]))
        said: list[tuple[NodeId, Any]] = []

        def deliver_all() -> None:
            while any(node.told for node in nodes.values()):
                for name, node in nodes.items():
                    told, node.told = node.told, []
                    for to, message in told:
                        said.append((name, message))
                        for listener in to:
                            if listener in nodes:
                                deliver(nodes[listener], name, message)
                assert len(said) < 100 * len(self.SLOTS), "they talk for ever"

        logged(deliver_all)
        return said

    @pytest.mark.parametrize("starts", ["a", "ab", "abc"])
    @pytest.mark.parametrize("state", [b"good", b""])
    def test_where_all_agree(self, state: bytes, starts: str) -> None:
        """Each answers each other once for the log at a slot, and once for the state there, at most."""
        said = self.talk("abc", dict.fromkeys("abc", state), starts)
        assert len(said) <= (len(starts) + 3 * 2 * 2) * len(self.SLOTS)

    @pytest.mark.parametrize("starts", ["a", "ab"])
    def test_where_two_differ_and_the_third_is_down(self, starts: str) -> None:
        said = self.talk("abc", {"a": b"x", "b": b"y"}, starts)
        heard = {(name, message.slot) for name, message in said if isinstance(message, StateDigestsHeard)}
        assert heard >= set(itertools.product("ab", self.SLOTS[-SLOTS_KEPT:])), "of the last ones each has told"


def test_what_is_long_past_is_not_answered_again() -> None:
    one = Inspector()
    for slot in range(1, 3 * SLOTS_KEPT):
        one.digests.remember(digest(slot))
        one.hear(("b", digest(slot)))
        assert one.told[-1] == (("b",), digest(slot))
    before = len(one.told)
    one.logs[1] = b"log"
    one.hear(("b", digest(1)), ("b", digest(1, b"")))
    assert one.told[before:] == []
    one.digests.answer("b", 1)
    assert one.told[before:] == [(("b",), digest(1, b""))], "unless it is asked for"


def deliver(inspector: Inspector, sender: NodeId, message: Any) -> None:
    if isinstance(message, StateDigestsHeard):
        inspector.digests.receive_digests_heard(sender, message)
    else:
        inspector.digests.receive(sender, message)


def test_alone() -> None:
    one = Inspector("a")
    one.digests.announce(digest())
    assert one.told == [((), digest())]


def test_the_error_is_one_line() -> None:
    assert issubclass(Diverged, Exception)
    one = Inspector()
    one.digests.announce(digest(state=b"bad"))
    one.hear(("b", digest()), ("c", digest()))
    assert "\n" not in one.diverged[0]
