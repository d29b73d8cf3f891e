"""Permits in the state: they do what the model does, and what other systems' users have missed."""

from __future__ import annotations

from random import Random

import pytest

from test.recipes.nodes import Nodes
from test.recipes.permit_model import ModelRequest, PermitModel
from txpaxos.recipes.replicated import ordered, permits
from txpaxos.recipes.replicated.bounds import LimitReached, RequestMismatch, SessionOver
from txpaxos.recipes.replicated.permits import (
    CAPACITY_MAX,
    CapacityMismatch,
    Contender,
    Fenced,
    Permits,
    Standing,
)
from txpaxos.recipes.replicated.sessions import Sessions
from txpaxos.service.declaration import Service, command, state
from txpaxos.service.definition import definition_of
from txpaxos.service.remote import watch
from txpaxos.testing.services_harness import ServicesHarness

WAITS = Standing(True, 0)
GONE = Standing(False, 0)


@pytest.fixture
def nodes() -> Nodes:
    nodes = Nodes(Permits)
    for session in ("s1", "s2", "s3"):
        nodes.open(session)
    return nodes


def held(token: int) -> Standing:
    return Standing(False, token)


def assert_nothing_is_left(service: Permits) -> None:
    """Neither requests nor what stands for any."""
    kept = [service.permits, service.requests, service.holders, service.line_rows, service.line_blocks]
    kept += [service.hold_rows, service.hold_blocks, service.session_rows, service.session_blocks]
    assert kept == [{}] * len(kept)


class Run:
    """The state machine and the model, which get the same."""

    NAMES = {"lock": 1, "semaphore": 3, "books": CAPACITY_MAX}

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.nodes = Nodes(Permits)
        self.model = PermitModel()
        self.sessions = {"s1", "s2"}
        for session in self.sessions:
            self.nodes.open(session)

    @property
    def service(self) -> Permits:
        return self.nodes.of(Permits)

    def step(self) -> None:
        (name,) = self.rng.choices(["acquire", "withdraw", "release", "session", "restart"], [12, 4, 6, 1, 1])
        getattr(self, f"step_{name}")()
        self.compare()

    def step_acquire(self) -> None:
        name, holder = self.rng.choice([*self.NAMES]), (self.rng.choice(["s1", "s2"]), str(self.rng.randrange(12)))
        capacity, waits = self.NAMES[name], self.rng.random() < 0.7
        units = self.rng.choice([1, 1, capacity])
        known = self.model.of(holder)
        arguments = name, *holder, units, capacity, holder[1], waits
        if known is not None and known.name != name:
            with pytest.raises(RequestMismatch):
                self.service.acquire(*arguments)
        elif known is not None:
            assert self.service.acquire(*arguments) == (known.token or None)
        elif holder[0] not in self.sessions:
            with pytest.raises(SessionOver):
                self.service.acquire(*arguments)
        else:
            request = ModelRequest(holder, name, units, capacity, holder[1])
            assert self.service.acquire(*arguments) == self.model.acquire(request, waits)

    def step_withdraw(self) -> None:
        holder = self.rng.choice(["s1", "s2"]), str(self.rng.randrange(12))
        known = self.model.of(holder)
        assert self.service.withdraw(*holder) == (known is not None)
        if known is not None:
            self.model.end(known)

    def step_release(self) -> None:
        token = max(1, self.model.tokens - self.rng.randrange(6))
        known = next((one for one in self.model.requests if one.token == token), None)
        name, session = self.rng.choice([*self.NAMES]), self.rng.choice(["s1", "s2"])
        if known is not None and (known.name, known.holder[0]) == (name, session):
            self.service.release(name, token, session)
            self.model.end(known)
        else:
            with pytest.raises(Fenced):
                self.service.release(name, token, session)

    def step_session(self) -> None:
        session = self.rng.choice(["s1", "s2"])
        if session in self.sessions:
            self.sessions.remove(session)
            self.nodes.close(session)
            own = [one for one in self.model.requests if one.holder[0] == session]
            self.model.end(*sorted(own, key=lambda one: one.holder))
        else:
            self.sessions.add(session)
            self.nodes.open(session)

    def step_restart(self) -> None:
        self.nodes.restart()

    def compare(self) -> None:
        service = self.service
        for name in self.NAMES:
            listed = [(one.token, one.units, one.session_id, one.value) for one in service.contenders(name)]
            assert listed == self.model.listed(name)
            first = next((one for one in service.contenders(name) if one.token), None)
            assert service.holder(name) == first
            assert (name in service.permits) == bool(listed)
        for holder in [(session, str(number)) for session in ("s1", "s2") for number in range(12)]:
            known = self.model.of(holder)
            standing = GONE if known is None else Standing(not known.token, known.token)
            assert service.standing(*holder) == standing
        assert service.last_token == self.model.tokens

    def finish(self) -> None:
        for session in sorted(self.sessions):
            self.nodes.close(session)
        assert_nothing_is_left(self.service)


@pytest.mark.parametrize("seed", range(6))
def test_it_does_what_the_model_does(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered, "BLOCK_KEYS_MAX", 3)
    run = Run(seed)
    for _ in range(300):
        run.step()
    run.finish()


# what users of other systems have met


def test_two_grants_in_one_slot_have_two_tokens(nodes: Nodes) -> None:
    """A slot is no token: here both requests, and the release between them, may be in one slot."""
    service = nodes.of(Permits)
    first = service.acquire("a", "s1", "r")
    assert service.withdraw("s1", "r")
    second = service.acquire("a", "s2", "r")
    assert (first, second) == (1, 2)


def test_tokens_rise_over_all_permits_and_over_a_restart(nodes: Nodes) -> None:
    assert nodes.of(Permits).acquire("a", "s1", "r1") == 1
    assert nodes.of(Permits).acquire("b", "s1", "r2") == 2
    nodes.of(Permits).withdraw("s1", "r1")
    nodes.of(Permits).withdraw("s1", "r2")
    assert_nothing_is_left(nodes.of(Permits))
    nodes.restart()
    assert nodes.of(Permits).acquire("a", "s1", "r3") == 3


def test_etcd_19597_a_waiter_whose_session_is_over_waits_no_longer(nodes: Nodes) -> None:
    service = nodes.of(Permits)
    for session in ("s1", "s2", "s3"):
        service.acquire("a", session, "r")
    nodes.close("s2")
    assert service.standing("s2", "r") == GONE
    nodes.close("s1")
    assert service.standing("s3", "r") == held(2)


def test_what_a_session_held_is_granted_to_none_of_its_own_waiters(nodes: Nodes) -> None:
    service = nodes.of(Permits)
    for request in "abc":
        service.acquire("a", "s1", request)
    service.acquire("a", "s2", "r")
    nodes.close("s1")
    assert (service.standing("s2", "r"), service.last_token) == (held(2), 2)


def test_the_grant_is_in_the_slot_in_which_the_session_is_over() -> None:
    harness = ServicesHarness(Sessions, Permits)
    for session, ttl_ms in (("s1", 2_000), ("s2", 60_000)):
        harness.result(harness.service(Sessions).open(session, ttl_ms))
        harness.result(harness.service(Permits).acquire("a", session, "r"))
    granted = watch(harness.service(Permits).standing, "s2", "r")
    assert harness.result(granted.next()) == WAITS
    next_answer = granted.next()
    harness.advance(1.999)
    assert not next_answer.called
    harness.advance(0.001)
    assert harness.result(next_answer) == held(2)


def test_kazoo_732_a_try_that_does_not_wait_leaves_nothing_behind(nodes: Nodes) -> None:
    service = nodes.of(Permits)
    service.acquire("a", "s1", "r")
    assert service.acquire("a", "s2", "r", waits=False) is None
    assert (service.standing("s2", "r"), [one.session_id for one in service.contenders("a")]) == (GONE, ["s1"])
    service.withdraw("s1", "r")
    assert_nothing_is_left(service)


def test_a_try_does_not_overtake_those_who_wait(nodes: Nodes) -> None:
    service = nodes.of(Permits)
    service.acquire("a", "s1", "r", 1, CAPACITY_MAX)
    service.acquire("a", "s2", "w", CAPACITY_MAX, CAPACITY_MAX)
    assert service.acquire("a", "s3", "r", 1, CAPACITY_MAX, waits=False) is None


def test_kazoo_291_a_permit_is_not_re_entrant(nodes: Nodes) -> None:
    """Another request of the same session waits as any other does."""
    service = nodes.of(Permits)
    assert service.acquire("a", "s1", "r1") == 1
    assert service.acquire("a", "s1", "r2") is None
    assert service.standing("s1", "r2") == WAITS


def test_etcd_6278_names_that_begin_alike_have_nothing_to_do_with_each_other(nodes: Nodes) -> None:
    service = nodes.of(Permits)
    assert service.acquire("ab", "s1", "r") == 1
    assert service.acquire("a", "s2", "r") == 2
    assert service.acquire("a", "s3", "r") is None
    service.withdraw("s1", "r")
    assert service.standing("s3", "r") == WAITS


def test_zookeeper_1011_of_a_thousand_waiters_one_is_told_of_one_release(nodes: Nodes) -> None:
    service = nodes.of(Permits)
    for number in range(1001):
        service.acquire("a", f"s{number % 3 + 1}", str(number))
    nodes.told.clear()
    service.release("a", 1, "s1")
    assert [topic for topic in nodes.told if topic.startswith("permit request")] == [
        "permit request s1 0",
        "permit request s2 1",
    ]
    assert (service.last_token, len(service.contenders("a"))) == (2, 1000)


def test_kazoo_semaphore_another_capacity_is_refused_and_not_passed_over(nodes: Nodes) -> None:
    """Kazoo's Semaphore: the number of leases is whatever the first contender wrote."""
    service = nodes.of(Permits)
    service.acquire("a", "s1", "r", 1, 3)
    with pytest.raises(CapacityMismatch, match=r"^a is in use with a capacity of 3, and not of 5$"):
        service.acquire("a", "s2", "r", 1, 5)
    with pytest.raises(CapacityMismatch, match=r"^a has a capacity of 3, so that 4 units are never free$"):
        service.acquire("a", "s2", "r", 4, 3)
    assert service.standing("s2", "r") == GONE
    service.withdraw("s1", "r")
    assert service.acquire("a", "s2", "r", 1, 5) == 2


def test_a_release_that_is_late_does_not_end_the_hold_of_another(nodes: Nodes) -> None:
    service = nodes.of(Permits)
    service.acquire("a", "s1", "r")
    service.acquire("a", "s2", "r")
    nodes.close("s1")
    nodes.open("s1")
    with pytest.raises(Fenced, match=r"^the hold of a with token 1 is over$"):
        service.release("a", 1, "s1")
    with pytest.raises(Fenced, match=r"^the hold of a with token 2 is not of the session s1$"):
        service.release("a", 2, "s1")
    assert service.standing("s2", "r") == held(2)


def test_pysyncobj_108_a_hold_ends_by_the_time_of_the_log_and_not_by_a_callers_clock(nodes: Nodes) -> None:
    """PySyncObj's lock manager: the callers say what time it is, so that one with a wrong clock takes a lock.

    Here no call has a time, neither in its arguments nor in its result.
    """
    for method in (*definition_of(Permits).commands.values(), *definition_of(Permits).queries.values()):
        assert not [one.name for one in method.call.parameters if one.name.endswith(("_ms", "_seconds", "time", "now"))]
    service = nodes.of(Permits)
    nodes.of(Sessions).open("s4", 2_000)
    service.acquire("a", "s4", "r")
    service.acquire("a", "s1", "r")
    nodes.advance(1.9)
    assert service.standing("s1", "r") == WAITS
    nodes.advance(0.1)
    assert service.standing("s1", "r") == held(2)


# what a permit does


def test_a_request_that_is_sent_again_is_the_same_request(nodes: Nodes) -> None:
    service = nodes.of(Permits)
    assert service.acquire("a", "s1", "r") == service.acquire("a", "s1", "r") == 1
    assert service.acquire("a", "s2", "r") is service.acquire("a", "s2", "r") is None
    assert len(service.contenders("a")) == 2


def test_readers_hold_together_and_a_writer_alone_in_the_order_in_which_they_came(nodes: Nodes) -> None:
    service = nodes.of(Permits)
    for request in ("r1", "r2", "w1", "r3", "r4", "w2"):
        service.acquire("a", "s1", request, CAPACITY_MAX if request[0] == "w" else 1, CAPACITY_MAX)

    def holding() -> list[str]:
        return [request for request in ("r1", "r2", "w1", "r3", "r4", "w2") if service.standing("s1", request).token]

    steps = []
    for ended in ("r1", "r2", "w1", "r3", "r4"):
        steps.append(holding())
        service.withdraw("s1", ended)
    assert [*steps, holding()] == [["r1", "r2"], ["r2"], ["w1"], ["r3", "r4"], ["r4"], ["w2"]]


def test_a_writer_that_withdraws_lets_the_readers_behind_it_in(nodes: Nodes) -> None:
    service = nodes.of(Permits)
    for request in ("r1", "w", "r2"):
        service.acquire("a", "s1", request, CAPACITY_MAX if request == "w" else 1, CAPACITY_MAX)
    assert service.standing("s1", "r2") == WAITS
    service.withdraw("s1", "w")
    assert service.standing("s1", "r2") == held(2)


def test_contenders_say_what_they_are(nodes: Nodes) -> None:
    service = nodes.of(Permits)
    service.acquire("a", "s1", "r", value="one")
    service.acquire("a", "s2", "r", value="two")
    both = Contender(1, 1, "s1", "one"), Contender(0, 1, "s2", "two")
    assert service.contenders("a") == both
    assert service.contenders("a", 1) == both[:1]
    assert (service.holder("a"), service.holder("b")) == (both[0], None)


def test_what_is_too_much_is_refused_in_one_line(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    service = nodes.of(Permits)
    service.acquire("a", "s1", "r1")
    monkeypatch.setattr(permits, "REQUESTS_OF_SESSION_MAX", 1)
    with pytest.raises(LimitReached, match=r"^this session holds or waits for 1 permits: release some first$"):
        service.acquire("b", "s1", "r2")
    monkeypatch.setattr(permits, "REQUESTS_MAX", 1)
    with pytest.raises(LimitReached, match=r"^1 permits are held or waited for already$"):
        service.acquire("b", "s2", "r")
    assert [*service.permits] == ["a"]


# what services beside it ask


class Ledger(Service):
    """What may be written by who holds the permit."""

    lines: list[str] = state(list)

    @command(raises=Fenced)
    def write(self, token: int, line: str) -> None:
        self.sibling(Permits).check_fence("ledger", token)
        self.lines.append(line)


def test_a_command_of_another_service_is_refused_when_the_hold_is_over() -> None:
    nodes = Nodes(Permits, Ledger)
    nodes.open("s1")
    nodes.open("s2")
    service, ledger = nodes.of(Permits), nodes.of(Ledger)
    service.acquire("ledger", "s1", "r")
    service.acquire("ledger", "s2", "r")
    ledger.write(1, "one")
    for token in (0, 2, 3):
        with pytest.raises(Fenced, match=rf"^the hold of ledger with token {token} is over$"):
            ledger.write(token, "too early")
    nodes.close("s1")
    with pytest.raises(Fenced):
        ledger.write(1, "late")
    service.acquire("other", "s2", "r2")
    with pytest.raises(Fenced):
        ledger.write(3, "of another permit")
    ledger.write(2, "two")
    assert ledger.lines == ["one", "two"]


def test_many_that_can_be_granted_at_once_are_granted_in_several_slots(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(permits, "GRANTS_MAX", 3)
    service = nodes.of(Permits)
    assert service.acquire("books", "s1", "writer", CAPACITY_MAX, CAPACITY_MAX) == 1
    for number in range(8):
        service.acquire("books", "s2", f"reader {number}", 1, CAPACITY_MAX)
    service.release("books", 1, "s1")
    assert [one.token for one in service.contenders("books")] == [2, 3, 4, 0, 0, 0, 0, 0]
    assert service.acquire("books", "s3", "try", 1, CAPACITY_MAX, waits=False) is None, "the others come first"
    nodes.restart()
    nodes.advance(0.0)
    assert [one.token for one in nodes.of(Permits).contenders("books")] == list(range(2, 10))
    for session in ("s1", "s2", "s3"):
        nodes.close(session)
    assert_nothing_is_left(nodes.of(Permits))
    assert not nodes.of(Permits).to_grant


def test_what_a_session_held_is_granted_in_several_slots(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permits, "GRANTS_MAX", 3)
    service = nodes.of(Permits)
    for number in range(5):
        service.acquire(f"lock {number}", "s1", f"holder {number}")
        service.acquire(f"lock {number}", "s2", f"waiter {number}")
    nodes.close("s1")
    assert [bool(service.contenders(f"lock {number}")[0].token) for number in range(5)] == [True] * 3 + [False] * 2
    assert service.withdraw("s2", "waiter 4")
    nodes.advance(0.0)
    assert service.contenders("lock 3")[0].token
    assert service.contenders("lock 4") == ()
    assert "grant" not in service.timers


def test_a_list_of_contenders_has_a_bounded_size(nodes: Nodes) -> None:
    service = nodes.of(Permits)
    for number in range(300):
        service.acquire("lock", "s1", str(number), value="\N{PILE OF POO}" * 4096)
    assert len(service.contenders("lock", 10_000)) == 65
