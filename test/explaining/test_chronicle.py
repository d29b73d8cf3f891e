"""What a node remembers: told against what the checker of the simulator knows, and never more than its bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import attrs
import pytest

from test.helpers.chronicles import Chronicles
from txpaxos.core.messages import AcceptedSlot, AcceptSlot, Ballot, PrepareLog, PromiseLog, Vote
from txpaxos.core.ready import Checkpoint, Chosen, Envelope, Learned, Promised, Ready, Voted
from txpaxos.explaining import Chronicle, Story, ValueMark, What
from txpaxos.explaining.chronicle import BALLOTS_MAX, FACTS_MAX
from txpaxos.explaining.story import AGAINST_THE_RULES
from txpaxos.testing.simulator.cluster import SimulatedCluster
from txpaxos.testing.simulator.schedule import draw, plan

A1, B2 = Ballot(1, "a"), Ballot(2, "b")


@attrs.define
class Clock:
    now: float = 5.0

    def __call__(self) -> float:
        return self.now


def chronicle(slots_max: int = 10) -> tuple[Chronicle, Clock]:
    clock = Clock()
    return Chronicle("a", clock, lambda: 1_000_000.0 + clock.now, slots_max), clock


def told(one: Chronicle, slot: int) -> list[tuple[What, str, str]]:
    return [(fact.what, str(fact.ballot), fact.peer) for fact in one.recall(slot)]


def test_a_slot_from_the_promises_to_the_application() -> None:
    one, clock = chronicle()
    ballot_used = Ready(save=(Promised(A1),), send=(Envelope(("a", "b"), PrepareLog(A1, 1)),))
    one.ready_released(ballot_used, clock.now)
    one.promise_counted("b", PromiseLog(A1, 1, (b"v",), (Vote(3, Ballot(0, "c"), b"old"),)), 5.1)
    one.ready_released(Ready(send=(Envelope(("a", "b"), AcceptSlot(A1, 3, b"old")),)), 5.2)
    one.ready_released(Ready(save=(Voted(A1, 3, b"old", 0),)), 5.3)
    one.message_received("b", AcceptedSlot(A1, 3), 5.4)
    one.ready_released(Ready(chosen=(Chosen(3, b"old"),)), 5.5)
    one.slot_applied(3, 5.6)
    assert told(one, 3) == [
        (What.PROMISED, "1.a", ""),
        (What.PREPARED, "1.a", ""),
        (What.HEARD_PROMISE, "1.a", "b"),
        (What.PROPOSED, "1.a", ""),
        (What.VOTED, "1.a", ""),
        (What.HEARD_VOTE, "1.a", "b"),
        (What.CHOSEN, "none", ""),
        (What.APPLIED, "none", ""),
    ]
    assert [fact.asked for fact in one.recall(3) if fact.asked] == [("a", "b")]
    heard = one.recall(3)[2]
    assert (heard.vote, heard.value, heard.is_known) == (Ballot(0, "c"), ValueMark.of(b"old"), False)
    assert [fact.is_known for fact in one.recall(1)] == []
    assert [fact.utc_seconds for fact in one.recall(3)][-1] == pytest.approx(1_000_005.6)
    assert [fact.what for fact in one.recall_ballot(A1)] == [What.PROMISED, What.PREPARED, What.HEARD_PROMISE]
    assert one.recall_ballot(B2) == ()


def test_what_it_was_told() -> None:
    one, _ = chronicle()
    one.ready_released(Ready(save=(Learned(4, (b"x", b"y")),)), 1.0)
    assert told(one, 4) == told(one, 5) == [(What.TOLD, "none", "")]
    assert one.slots == range(4, 6)


def test_what_a_checkpoint_saves_again_is_no_news() -> None:
    one, _ = chronicle()
    one.ready_released(Ready(save=(Checkpoint(3), Promised(A1), Learned(4, (b"x",)), Voted(A1, 5, b"y", 4))), 1.0)
    assert not one.slots
    assert one.recall_ballot(A1) == ()


def test_the_oldest_slots_and_ballots_are_forgotten() -> None:
    one, _ = chronicle(slots_max=10)
    for slot in range(1, 31):
        one.ready_released(Ready(save=(Voted(A1, slot, b"v", 0),)), float(slot))
    assert one.slots == range(21, 31)
    for round_ in range(1, BALLOTS_MAX + 10):
        one.ready_released(Ready(save=(Promised(Ballot(round_, "b")),)), float(round_))
    assert one.recall_ballot(Ballot(1, "b")) == ()
    assert len(one.recall_ballot(Ballot(BALLOTS_MAX + 9, "b"))) == 1


def test_what_peers_send_takes_no_room() -> None:
    """Votes for slots that this node has not proposed, promises of ballots that it has not used, again and again."""
    one, _ = chronicle()
    for number in range(1000):
        one.message_received("b", AcceptedSlot(A1, number + 1), 1.0)
        one.promise_counted("b", PromiseLog(Ballot(number + 1, "a"), 1), 1.0)
    assert not one.slots
    one.ready_released(Ready(send=(Envelope(("a",), AcceptSlot(A1, 1, b"v")),)), 1.0)
    for number in range(1000):
        one.message_received(f"node {number}", AcceptedSlot(A1, 1), 1.0)
        one.message_received("b", AcceptedSlot(A1, 1), 1.0)
        one.message_received("b", AcceptedSlot(B2, 1), 1.0)
    assert len(one.recall(1)) == FACTS_MAX


def test_what_is_done_again_leaves_room_for_what_is_new() -> None:
    one, _ = chronicle()
    for _ in range(3 * FACTS_MAX):
        one.ready_released(Ready(save=(Voted(B2, 1, b"v", 0),)), 1.0)
    one.slot_applied(1, 2.0)
    assert [fact.what for fact in one.recall(1)] == [What.VOTED, What.APPLIED]


# -------------------------------------------------------- against the simulator


def stories(
    seed: int, monkeypatch: pytest.MonkeyPatch, seconds: float = 3.0
) -> Iterator[tuple[SimulatedCluster, Story]]:
    chronicles = Chronicles(monkeypatch)
    cluster = SimulatedCluster(seed)
    plan(cluster, draw(seed, cluster.all_machines, seconds, False, False))
    cluster.run(seconds)
    cluster.heal()
    cluster.wait_until_converged()
    for slot in sorted({slot for one in chronicles.of_nodes.values() for slot in one.slots}):
        yield cluster, chronicles.story(slot, cluster.names)


@pytest.mark.usefixtures("expected_errors")
def test_stories_are_what_the_checker_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is proposed from the ballot on in which a value was chosen is that value: what Paxos is about."""
    seen: Counter[str] = Counter()
    for seed in range(8):
        for cluster, story in stories(seed, monkeypatch):
            if story.slot not in cluster.checker.chosen:
                continue
            mark = ValueMark.of(cluster.checker.chosen[story.slot])
            assert {fact.value for fact in story.facts if fact.what is What.TOLD} <= {mark}
            proposed = [(fact.ballot, fact.value) for fact in story.facts if fact.what is What.PROPOSED]
            if story.chosen_in is not None:
                seen["chosen"] += 1
                assert all(value == mark for ballot, value in proposed if ballot >= story.chosen_in)
            told = " ".join(story.reasons)
            assert "against the rules" not in told
            seen.update(why for why in ("It was free to", "since it had to", "to fill the slot") if why in told)
    assert seen["chosen"] > 100
    assert min(seen["It was free to"], seen["since it had to"], seen["to fill the slot"]) > 0, seen


@pytest.mark.usefixtures("expected_errors")
def test_a_promise_that_comes_after_those_of_a_quorum_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this run a leader goes by the promises of a quorum, and is promised its ballot by a third node later, which
    had voted for another value. The leader was free all the same."""
    told = [story for _, story in stories(149, monkeypatch, 4.0)]
    assert len(told) > 10
    assert not [story.reasons for story in told if any(AGAINST_THE_RULES in reason for reason in story.reasons)]
