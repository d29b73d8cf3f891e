"""Parties, barriers and double barriers in the state: they wait for none who is lost, and leave nothing behind."""

from __future__ import annotations

from random import Random

import pytest

from test.recipes.nodes import Nodes
from txpaxos.recipes.replicated import gatherings, ordered
from txpaxos.recipes.replicated.bounds import LimitReached, SessionOver
from txpaxos.recipes.replicated.gatherings import Gatherings, Member
from txpaxos.recipes.replicated.permits import CapacityMismatch

SESSIONS = ("s1", "s2", "s3", "s4")


@pytest.fixture
def nodes() -> Nodes:
    nodes = Nodes(Gatherings)
    for session in SESSIONS:
        nodes.open(session)
    return nodes


def assert_nothing_is_left(service: Gatherings) -> None:
    kept = [service.members, service.barriers, service.rounds, service.places, service.party_rows]
    kept += [service.party_blocks, service.line_rows, service.line_blocks, service.round_rows, service.round_blocks]
    kept += [service.session_rows, service.session_blocks]
    assert kept == [{}] * len(kept)


def test_a_party_has_those_who_are_there(nodes: Nodes) -> None:
    service = nodes.of(Gatherings)
    service.join("a", "s2", "two")
    service.join("a", "s1", "one")
    service.join("ab", "s3", "three")
    service.join("a", "s1", "uno")
    assert service.members_of("a") == (Member("s1", "uno"), Member("s2", "two"))
    assert service.members_of("a", 1) == (Member("s1", "uno"),)
    nodes.close("s1")
    assert service.members_of("a") == (Member("s2", "two"),)
    assert service.leave_party("a", "s2")
    assert not service.leave_party("a", "s2")
    assert service.leave_party("ab", "s3")
    assert_nothing_is_left(service)


def test_a_barrier_is_closed_until_it_is_removed_or_its_session_is_over(nodes: Nodes) -> None:
    service = nodes.of(Gatherings)
    assert service.create("a")
    assert not service.create("a", "s1")
    assert service.create("b", "s1")
    assert service.create("c", "s1")
    assert service.remove("c")
    assert not service.remove("c")
    nodes.close("s1")
    assert (service.is_closed("a"), service.is_closed("b")) == (True, False)
    nodes.restart()
    assert nodes.of(Gatherings).remove("a")
    assert_nothing_is_left(nodes.of(Gatherings))


def test_a_double_barrier_opens_for_all_and_ends_when_all_have_left(nodes: Nodes) -> None:
    service = nodes.of(Gatherings)
    assert [service.enter("a", session, "r", 3) for session in SESSIONS] == [None, None, 1, None]
    assert [service.standing(session, "r") for session in SESSIONS] == [1, 1, 1, 0]
    assert [service.leave(session, "r") for session in ("s1", "s2")] == [1, 1]
    assert service.open_round("a") == 1
    assert service.leave("s3", "r") is None
    assert (service.open_round("a"), service.standing("s4", "r"), service.standing("s1", "r")) == (0, 0, None)
    assert service.leave("s4", "r") is None
    assert service.leave("s4", "r") is None
    assert_nothing_is_left(service)


def test_curator_233_those_who_are_lost_are_waited_for_at_neither_side(nodes: Nodes) -> None:
    service = nodes.of(Gatherings)
    service.enter("a", "s1", "r", 2)
    nodes.close("s1")
    assert service.enter("a", "s2", "r", 2) is None, "one that is lost does not count"
    assert service.enter("a", "s3", "r", 2) == 1
    assert service.leave("s2", "r") == 1
    nodes.close("s3")
    assert service.open_round("a") == 0
    assert_nothing_is_left(service)


def test_zookeeper_1011_one_that_enters_tells_none_until_all_are_there(nodes: Nodes) -> None:
    service = nodes.of(Gatherings)
    nodes.told.clear()
    for session in SESSIONS[:3]:
        service.enter("a", session, "r", 4)
    assert nodes.told == [f"round {session} r" for session in SESSIONS[:3]], "each is told of itself alone"
    nodes.told.clear()
    service.enter("a", "s4", "r", 4)
    assert nodes.told[1:] == [*(f"round {session} r" for session in SESSIONS), "rounds a"]


def test_those_who_come_to_an_open_round_have_the_next_one(nodes: Nodes) -> None:
    service = nodes.of(Gatherings)
    for session in SESSIONS:
        service.enter("a", session, "r", 2)
    assert [service.standing(session, "r") for session in SESSIONS] == [1, 1, 0, 0]
    assert (service.leave("s1", "r"), service.enter("a", "s1", "r", 2)) == (1, None)
    assert service.leave("s2", "r") is None
    assert [service.standing(session, "r") for session in SESSIONS] == [0, None, 2, 2]
    assert service.enter("a", "s3", "r", 2) == 2


@pytest.mark.parametrize("seed", range(4))
def test_rounds_have_as_many_as_they_need_and_begin_when_they_can(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered, "BLOCK_KEYS_MAX", 3)
    rng, nodes = Random(seed), Nodes(Gatherings)
    sessions = [f"s{number}" for number in range(8)]
    opened: set[str] = set()
    began: dict[int, set[str]] = {}
    for _ in range(400):
        service, session = nodes.of(Gatherings), rng.choice(sessions)
        if session not in opened:
            opened.add(session)
            nodes.open(session)
        elif rng.random() < 0.05:
            opened.remove(session)
            nodes.close(session)
        elif rng.random() < 0.6:
            service.enter("a", session, "r", 3)
        else:
            service.leave(session, "r")
        if rng.random() < 0.05:
            nodes.restart()
        service = nodes.of(Gatherings)
        within = {one for one in sessions if service.standing(one, "r")}
        waiting = [one for one in sessions if service.standing(one, "r") == 0]
        number = service.open_round("a")
        assert within <= began.setdefault(number, within) <= opened | began[number]
        assert len(began[number]) == (3 if number else 0)
        assert (number > 0) == bool(within)
        assert number or len(waiting) < 3, "a round that could begin does"
    assert len(began) > 8
    for session in opened:
        nodes.close(session)
    assert_nothing_is_left(nodes.of(Gatherings))


def test_what_is_too_much_is_refused_in_one_line(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    service = nodes.of(Gatherings)
    service.enter("a", "s1", "r", 3)
    with pytest.raises(CapacityMismatch, match=r"^a is for 3 at this time, and not for 2$"):
        service.enter("a", "s2", "r", 2)
    for refused in (service.join, service.create):
        with pytest.raises(SessionOver, match=r"^the session s9 is not open$"):
            refused("a", "s9")
    with pytest.raises(SessionOver):
        service.enter("b", "s9", "r", 2)
    monkeypatch.setattr(gatherings, "PLACES_MAX", 1)
    for refused in (service.join, service.create):
        with pytest.raises(LimitReached, match=r"^parties and barriers have 1 members already$"):
            refused("b", "s2")
    with pytest.raises(LimitReached):
        service.enter("b", "s2", "r", 2)
    service.leave("s1", "r")
    assert_nothing_is_left(service)


def test_what_one_session_and_one_round_may_have(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    service = nodes.of(Gatherings)
    monkeypatch.setattr(gatherings, "PLACES_OF_SESSION_MAX", 3)
    service.join("party", "s1")
    service.create("gate", "s1")
    service.enter("race", "s1", "r", 2)
    line = r"^this session is in 3 parties and barriers: leave some first$"
    with pytest.raises(LimitReached, match=line):
        service.join("other", "s1")
    with pytest.raises(LimitReached, match=line):
        service.create("other", "s1")
    with pytest.raises(LimitReached, match=line):
        service.enter("other", "s1", "r2", 2)
    service.join("party", "s1", "something else of oneself")
    service.create("of no session")
    with pytest.raises(TypeError, match="int"):
        nodes.harness.service(Gatherings).enter("other", "s2", "r", gatherings.ROUND_MAX + 1)


def test_a_list_of_members_has_a_bounded_size(nodes: Nodes) -> None:
    for number in range(300):
        nodes.open(f"member {number}")
        nodes.of(Gatherings).join("party", f"member {number}", "v" * 4096)
    assert len(nodes.of(Gatherings).members_of("party", 10_000)) == 257
