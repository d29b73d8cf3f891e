"""Queues in the state: they do what the model does, and what other systems' users have missed."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from test.recipes.nodes import Nodes
from test.recipes.queue_model import QueueModel
from txpaxos.recipes.replicated import ordered, queues
from txpaxos.recipes.replicated.bounds import SPAN_MS_MAX, LimitReached, RequestMismatch, SessionOver
from txpaxos.recipes.replicated.queues import Delivery, Depth, Queues, Standing, TakeOver

VISIBLE_MS = 1000


@pytest.fixture
def nodes() -> Nodes:
    nodes = Nodes(Queues)
    for session in ("s1", "s2", "s3"):
        nodes.open(session)
    return nodes


def taken(delivery: Delivery | None) -> bytes | None:
    return None if delivery is None else delivery.data


def assert_nothing_is_left(state: Queues) -> None:
    """Neither items nor requests, nor what stands for any."""
    kept = [state.items, state.requests, state.takes, state.ready_rows, state.ready_blocks, state.line_rows]
    kept += [state.line_blocks, state.due_rows, state.due_blocks, state.session_rows, state.session_blocks]
    assert kept == [{}] * len(kept)
    assert state.items_bytes == 0


class Run:
    """The state machine and the model, which get the same."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.nodes = Nodes(Queues)
        self.model = QueueModel()
        self.sessions = {"s1", "s2"}
        for session in self.sessions:
            self.nodes.open(session)

    @property
    def state(self) -> Queues:
        return self.nodes.of(Queues)

    def step(self) -> None:
        steps = ["put", "take", "acknowledge", "give_back", "extend"]
        steps += ["withdraw", "advance", "session", "limit", "restart"]
        (name,) = self.rng.choices(steps, [10, 12, 5, 2, 1, 2, 4, 1, 1, 1])
        getattr(self, f"step_{name}")()
        self.compare()

    def step_put(self) -> None:
        queue, priority, data = self.rng.choice("ab"), self.rng.choice([5, 100, 100]), self.rng.randbytes(3)
        assert self.state.put(queue, data, priority) == self.model.put(queue, data, priority)

    def step_take(self) -> None:
        queue, session, request = self.rng.choice("ab"), self.rng.choice(["s1", "s2"]), str(self.rng.randrange(8))
        visible_ms, waits = self.rng.choice([500, 1000, 3000]), self.rng.random() < 0.7
        if session not in self.sessions:
            if self.model.of((session, request)) is None:
                with pytest.raises(SessionOver):
                    self.state.take(queue, session, request, visible_ms, waits)
            return
        known = self.model.of((session, request))
        if known is not None and known.queue != queue:
            with pytest.raises(RequestMismatch):
                self.state.take(queue, session, request, visible_ms, waits)
            return
        delivery = self.state.take(queue, session, request, visible_ms, waits)
        assert fields(delivery) == self.model.take(queue, session, request, visible_ms, waits)

    def token(self) -> tuple[int, str]:
        """The token of a delivery, and the session that has it; or those of none."""
        held = [(one.token, one.holder[0]) for one in self.model.requests if one.token]
        return self.rng.choice(held) if held and self.rng.random() < 0.9 else (self.rng.randrange(20), "s3")

    def step_acknowledge(self) -> None:
        token, session = self.token()
        if session != "s3" and self.model.acknowledge(token):
            self.state.acknowledge(token, session)
        else:
            with pytest.raises(TakeOver):
                self.state.acknowledge(token, session)

    def step_give_back(self) -> None:
        token, session = self.token()
        held = self.model.by_token(token)
        if held is None or session == "s3":
            with pytest.raises(TakeOver):
                self.state.give_back(token, session)
        else:
            self.state.give_back(token, session)
            self.model.end(held, counts=True)

    def step_extend(self) -> None:
        token, session = self.token()
        held = self.model.by_token(token)
        if held is None or session == "s3":
            with pytest.raises(TakeOver):
                self.state.extend(token, session, 700)
        else:
            self.state.extend(token, session, 700)
            held.due_ms = self.model.now_ms + 700

    def step_withdraw(self) -> None:
        holder = self.rng.choice(["s1", "s2"]), str(self.rng.randrange(8))
        known = self.model.of(holder)
        assert self.state.withdraw(*holder) == (known is not None)
        if known is not None:
            self.model.end(known, counts=False)

    def step_advance(self) -> None:
        milliseconds = self.rng.choice([1, 300, 700])
        self.nodes.advance(milliseconds / 1000)
        self.model.advance(milliseconds)

    def step_session(self) -> None:
        session = self.rng.choice(["s1", "s2"])
        if session in self.sessions:
            self.sessions.remove(session)
            self.nodes.close(session)
            self.model.session_ended(session)
        else:
            self.sessions.add(session)
            self.nodes.open(session)

    def step_limit(self) -> None:
        deliveries_max = self.rng.choice([0, 0, 2, 3])
        self.state.limit_deliveries("a", deliveries_max, "b")
        self.model.limits = {"a": (deliveries_max, "b")} if deliveries_max else {}

    def step_restart(self) -> None:
        self.nodes.restart()

    def compare(self) -> None:
        for queue in "ab":
            depth = self.state.depth(queue)
            assert (depth.ready, depth.taken, depth.waiting) == self.model.depth(queue)
        for session in ("s1", "s2"):
            for request in map(str, range(8)):
                known = self.model.of((session, request))
                standing = self.state.standing(session, request)
                assert fields(standing.delivery) == self.model.delivery(known)
                assert standing.waits == (known is not None and known.item is None)
        assert self.state.items_bytes == sum(len(item.queue) + len(item.data) for item in self.model.items)

    def finish(self) -> None:
        """Take and acknowledge all that there is."""
        for session in sorted(self.sessions):
            self.nodes.close(session)
            self.model.session_ended(session)
        self.nodes.open("s3")
        for queue in "ab":
            while (delivery := self.state.take(queue, "s3", "last", VISIBLE_MS, False)) is not None:
                self.model.take(queue, "s3", "last", VISIBLE_MS, False)
                self.state.acknowledge(delivery.token, "s3")
                self.model.acknowledge(delivery.token)
        assert_nothing_is_left(self.state)
        assert sorted(self.model.acknowledged) == sorted({*self.model.acknowledged})


def fields(delivery: Delivery | None) -> Any:
    return None if delivery is None else (delivery.token, delivery.data, delivery.priority, delivery.deliveries)


@pytest.mark.parametrize("seed", range(6))
def test_it_does_what_the_model_does(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered, "BLOCK_KEYS_MAX", 3)
    run = Run(seed)
    for _ in range(300):
        run.step()
    run.finish()


# what users of other systems have met


def test_kazoo_501_no_taker_waits_while_there_are_items(nodes: Nodes) -> None:
    """Kazoo's LockingQueue: with several readers one of them blocks though items are there, and what says that an item
    is taken stays behind when the item is gone."""
    state = nodes.of(Queues)
    for number in range(30):
        state.put("a", b"%d" % number)
    held = [state.take("a", f"s{number % 3 + 1}", str(number), VISIBLE_MS) for number in range(30)]
    assert [taken(one) for one in held] == [b"%d" % number for number in range(30)]
    for number, one in enumerate(held):
        assert one is not None
        state.acknowledge(one.token, f"s{number % 3 + 1}")
    assert_nothing_is_left(state)


def test_pysyncobj_a_take_that_is_sent_again_gets_the_same_item(nodes: Nodes) -> None:
    """PySyncObj's ReplQueue: a get that is tried again after a timeout takes a second item, and the first is lost."""
    state = nodes.of(Queues)
    state.put("a", b"1")
    state.put("a", b"2")
    first = state.take("a", "s1", "r", VISIBLE_MS)
    assert taken(first) == b"1"
    assert state.take("a", "s1", "r", VISIBLE_MS) == first
    assert state.depth("a") == Depth(1, 1, 0)


def test_kazoo_732_a_take_that_does_not_wait_leaves_nothing_behind(nodes: Nodes) -> None:
    state = nodes.of(Queues)
    assert state.take("a", "s1", "r", VISIBLE_MS, waits=False) is None
    assert_nothing_is_left(state)
    state.put("a", b"1")
    assert state.depth("a") == Depth(1, 0, 0)


def test_etcd_19597_a_taker_whose_session_is_over_waits_no_longer(nodes: Nodes) -> None:
    state = nodes.of(Queues)
    state.take("a", "s1", "r", VISIBLE_MS)
    state.take("a", "s2", "r", VISIBLE_MS)
    nodes.close("s1")
    assert state.standing("s1", "r") == Standing(False, None)
    state.put("a", b"1")
    assert state.standing("s2", "r") == Standing(False, Delivery(1, b"1", 100, 1))


def test_etcd_6278_names_that_begin_alike_have_nothing_to_do_with_each_other(nodes: Nodes) -> None:
    state = nodes.of(Queues)
    state.take("a", "s1", "r", VISIBLE_MS)
    state.put("ab", b"1")
    assert state.standing("s1", "r") == Standing(True, None)
    assert (state.depth("a"), state.depth("ab")) == (Depth(0, 0, 1), Depth(1, 0, 0))


def test_zookeeper_1011_of_a_thousand_takers_one_is_told_of_one_item(nodes: Nodes) -> None:
    state = nodes.of(Queues)
    for number in range(1000):
        state.take("a", f"s{number % 3 + 1}", str(number), VISIBLE_MS)
    nodes.told.clear()
    state.put("a", b"1")
    assert [topic for topic in nodes.told if topic.startswith("queue take")] == ["queue take s1 0"]
    assert state.depth("a") == Depth(0, 1, 999)


# what a queue does


def test_an_item_whose_time_is_over_is_there_again_in_its_old_place(nodes: Nodes) -> None:
    state = nodes.of(Queues)
    for data in (b"1", b"2", b"3"):
        state.put("a", data)
    first = state.take("a", "s1", "r1", VISIBLE_MS)
    assert first is not None
    nodes.advance(0.999)
    assert state.depth("a") == Depth(2, 1, 0)
    nodes.advance(0.001)
    assert state.depth("a") == Depth(3, 0, 0)
    again = state.take("a", "s2", "r", VISIBLE_MS)
    assert again == Delivery(2, b"1", 100, 2)
    with pytest.raises(TakeOver, match=r"^the take with token 1 is over; its item may be in other hands$"):
        state.acknowledge(first.token, "s1")
    state.acknowledge(again.token, "s2")
    assert state.depth("a") == Depth(2, 0, 0)


def test_an_item_is_back_at_its_time_after_a_restart(nodes: Nodes) -> None:
    nodes.of(Queues).put("a", b"1")
    nodes.of(Queues).take("a", "s1", "r", VISIBLE_MS)
    nodes.advance(0.5)
    nodes.restart()
    nodes.advance(0.5)
    assert nodes.of(Queues).depth("a") == Depth(1, 0, 0)


def test_a_take_that_is_extended_lasts_from_then_on(nodes: Nodes) -> None:
    state = nodes.of(Queues)
    state.put("a", b"1")
    held = state.take("a", "s1", "r", VISIBLE_MS)
    assert held is not None
    nodes.advance(0.9)
    state.extend(held.token, "s1", VISIBLE_MS)
    nodes.advance(0.9)
    assert state.depth("a") == Depth(0, 1, 0)
    nodes.advance(0.1)
    assert state.depth("a") == Depth(1, 0, 0)


def test_an_item_that_comes_back_goes_to_the_one_who_waits(nodes: Nodes) -> None:
    state = nodes.of(Queues)
    state.put("a", b"1")
    state.take("a", "s1", "r", VISIBLE_MS)
    state.take("a", "s2", "r", VISIBLE_MS)
    nodes.close("s1")
    assert state.standing("s2", "r").delivery == Delivery(2, b"1", 100, 2)


def test_a_withdrawn_take_does_not_count_as_a_delivery(nodes: Nodes) -> None:
    state = nodes.of(Queues)
    state.put("a", b"1")
    assert state.take("a", "s1", "r", VISIBLE_MS) == Delivery(1, b"1", 100, 1)
    assert state.withdraw("s1", "r")
    assert not state.withdraw("s1", "r")
    assert state.take("a", "s1", "r", VISIBLE_MS) == Delivery(2, b"1", 100, 1)


def test_an_item_that_always_comes_back_ends_among_the_dead_letters(nodes: Nodes) -> None:
    state = nodes.of(Queues)
    state.limit_deliveries("a", 2, "a.dead")
    state.put("a", b"bad", 7)
    for request in ("r1", "r2"):
        held = state.take("a", "s1", request, VISIBLE_MS)
        assert held is not None
        state.give_back(held.token, "s1")
    assert state.take("a", "s1", "r3", VISIBLE_MS, waits=False) is None
    assert state.take("a.dead", "s1", "r4", VISIBLE_MS) == Delivery(3, b"bad", 7, 1)


def test_many_takes_that_are_over_at_once_end_in_several_slots(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "ENDED_MAX", 10)
    state = nodes.of(Queues)
    for number in range(25):
        state.put("a", b"")
        state.take("a", "s1", str(number), VISIBLE_MS)
    depths = []
    ended = Queues.timer_fired

    def noted(service: Queues, name: str, payload: bytes) -> None:
        ended(service, name, payload)
        depths.append(service.depth("a").ready)

    monkeypatch.setattr(Queues, "timer_fired", noted)
    nodes.advance(1.0)
    assert depths == [10, 20, 25]


def test_there_is_no_timer_while_nothing_is_taken(nodes: Nodes) -> None:
    state = nodes.of(Queues)
    state.put("a", b"1")
    assert "due" not in state.timers
    held = state.take("a", "s1", "r", VISIBLE_MS)
    assert held is not None
    assert state.timers.due_in_seconds("due") == 1.0
    state.acknowledge(held.token, "s1")
    assert "due" not in state.timers


def test_what_is_too_much_is_refused_in_one_line(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    state = nodes.of(Queues)
    state.put("a", b"1")
    monkeypatch.setattr(queues, "ITEMS_BYTES_MAX", 3)
    with pytest.raises(LimitReached, match=r"^the items of the queues have 2 bytes already: take some first$"):
        state.put("a", b"123")
    monkeypatch.setattr(queues, "ITEMS_MAX", 1)
    with pytest.raises(LimitReached, match=r"^the queues have 1 items already: take some first$"):
        state.put("a", b"")
    monkeypatch.setattr(queues, "REQUESTS_OF_SESSION_MAX", 1)
    state.take("b", "s1", "r1", VISIBLE_MS)
    with pytest.raises(LimitReached, match=r"^1 takes of this session are under way: acknowledge some first$"):
        state.take("b", "s1", "r2", VISIBLE_MS)
    monkeypatch.setattr(queues, "REQUESTS_MAX", 1)
    with pytest.raises(LimitReached, match=r"^1 takes are under way already$"):
        state.take("b", "s2", "r", VISIBLE_MS)
    monkeypatch.setattr(queues, "LIMITS_MAX", 0)
    with pytest.raises(LimitReached, match=r"^0 queues have a limit of deliveries already$"):
        state.limit_deliveries("a", 1, "b")


def test_another_session_does_nothing_to_a_delivery(nodes: Nodes) -> None:
    state = nodes.of(Queues)
    state.put("a", b"1")
    held = state.take("a", "s1", "r", VISIBLE_MS)
    assert held is not None
    for change in (state.acknowledge, state.give_back, lambda token, session: state.extend(token, session, 1)):
        with pytest.raises(TakeOver):
            change(held.token, "s2")
    assert state.depth("a") == Depth(0, 1, 0)


def test_a_time_beyond_what_timers_can_have_is_refused_at_the_call(nodes: Nodes) -> None:
    client = nodes.harness.service(Queues)
    for call in (
        lambda ms: client.take("a", "s1", "r", ms),
        lambda ms: client.extend(1, "s1", ms),
    ):
        with pytest.raises(TypeError, match="int"):
            call(SPAN_MS_MAX + 1)
    nodes.of(Queues).put("a", b"1")
    assert nodes.of(Queues).take("a", "s1", "r", SPAN_MS_MAX) is not None


def test_a_session_that_is_not_open_takes_nothing(nodes: Nodes) -> None:
    with pytest.raises(SessionOver):
        nodes.of(Queues).take("a", "other", "r", VISIBLE_MS)
    assert_nothing_is_left(nodes.of(Queues))
