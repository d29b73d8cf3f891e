"""Each change of an answer: none is missed, in order, from a version on, within bounds."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
import pytest
from twisted.internet.defer import CancelledError, Deferred

from test.helpers.fakes import ONE, NodeHarness, outcome_of
from txpaxos import (
    QueryFailed,
    Service,
    ServiceError,
    WatchBehind,
    application_of,
    command,
    each_change,
    encode_call,
    query,
    state,
    watch,
)
from txpaxos.errors import CallRefused, CommandFailed, ConfigError, Overloaded
from txpaxos.service import kept_changes
from txpaxos.service.changes import QUIET_WAITS_MAX, Change
from txpaxos.service.kept_changes import KEPT_SECONDS, encode_keep, encode_question
from txpaxos.service.watches import WAIT_SECONDS, encode_watch
from txpaxos.testing import ServicesHarness, strict_application_of


class Closed(ServiceError):
    """The account is closed."""


class Ledger(Service):
    """Sums by name."""

    sums: dict[str, int] = state(dict)

    @command
    def add(self, name: str, amount: int) -> None:
        self.sums[name] = self.sums.get(name, 0) + amount
        self.changed(f"sum {name}")

    @command
    def add_twice(self, name: str, amount: int) -> None:
        self.add(name, amount)
        self.add(name, amount)

    @command
    def add_and_fail(self, name: str) -> None:
        self.sums[name] = self.sums.get(name, 0) + 1
        raise ValueError("before it has said so")

    @command
    def add_later(self, name: str, after_seconds: float) -> None:
        self.timers.set(name, after_seconds)

    @command
    def remove(self, name: str) -> None:
        del self.sums[name]
        self.changed(f"sum {name}")

    def timer_fired(self, name: str, payload: bytes) -> None:
        self.add(name, 100)

    @query(topic="sum {name}", changes_kept=True, raises=Closed)
    def sum_of(self, name: str) -> int:
        if self.sums.get(name, 0) < 0:
            raise Closed(name)
        if name == "odd" and name in self.sums:
            raise KeyError(f"at {id(self)}")
        return self.sums.get(name, 0)

    @query(changes_kept=True)
    def names(self) -> list[str]:
        return list(self.sums)

    @query(changes_kept=True)
    def big(self) -> bytes:
        return bytes(self.sums.get("big", 0))

    @query
    def total(self) -> int:
        return sum(self.sums.values())


class Watcher:
    """Takes changes until it is closed. After an error it goes on."""

    def __init__(self, changes: Any) -> None:
        self.changes = changes
        self.got: list[Any] = []
        self._go_on()

    def _go_on(self) -> None:
        self.waiting: Deferred[Any] = self.changes.next()
        self.waiting.addCallbacks(self._take, self._fail)

    def _take(self, change: Change[Any]) -> None:
        self.got.append(change)
        self._go_on()

    def _fail(self, failure: Any) -> None:
        self.got.append(failure.value)
        if failure.check(CancelledError, StopAsyncIteration, WatchBehind, Overloaded, CommandFailed) is None:
            self._go_on()

    @property
    def answers(self) -> list[Any]:
        return [one.answer if isinstance(one, Change) else type(one) for one in self.got]

    @property
    def versions(self) -> list[int]:
        return [one.version for one in self.got if isinstance(one, Change)]


def ledgers() -> tuple[ServicesHarness, Any]:
    harness = ServicesHarness(Ledger)
    return harness, harness.service(Ledger)


def kept_of(harness: ServicesHarness) -> kept_changes.KeptChanges:
    return harness.application._kept


def test_each_change_comes_with_a_rising_version() -> None:
    _, ledger = ledgers()
    ann, names = Watcher(each_change(ledger.sum_of, "ann")), Watcher(each_change(ledger.names))
    for amount in (5, 0, 7):
        ledger.add("ann", amount)
    ledger.add("bob", 1)
    ledger.add_twice("ann", 1)
    assert ann.answers == [0, 5, 12, 14]
    assert names.answers == [[], ["ann"], ["ann", "bob"]]
    assert ann.versions == sorted(set(ann.versions))
    assert not set(ann.versions) & set(names.versions)


def test_changes_come_that_the_newest_answer_leaves_out() -> None:
    _, ledger = ledgers()
    changes, newest = each_change(ledger.sum_of, "ann"), watch(ledger.sum_of, "ann")
    first, newest_first = ServicesHarness.result(changes.next()), ServicesHarness.result(newest.next())
    for _ in range(5):
        ledger.add("ann", 1)
    assert [ServicesHarness.result(changes.next()).answer for _ in range(5)] == [1, 2, 3, 4, 5]
    assert (first.answer, newest_first, ServicesHarness.result(newest.next())) == (0, 0, 5)


def test_another_process_goes_on_from_a_version() -> None:
    harness, ledger = ledgers()
    changes = each_change(ledger.sum_of, "ann")
    ServicesHarness.result(changes.next())
    for _ in range(3):
        ledger.add("ann", 1)
    seen = ServicesHarness.result(changes.next())
    assert changes.version == seen.version
    harness.snapshot_and_restore()
    later = Watcher(each_change(harness.service(Ledger).sum_of, "ann").after(seen.version))
    harness.service(Ledger).add("ann", 1)
    assert later.answers == [2, 3, 4]
    assert min(later.versions) > seen.version


@pytest.mark.parametrize("version", [-1, 2**64, 2**64 + 5])
def test_a_wrong_version_raises_at_the_call(version: int) -> None:
    changes = each_change(ledgers()[1].sum_of, "ann")
    with pytest.raises(ValueError, match=f"^a version has 64 bits, and is not below zero: {version}$"):
        changes.after(version)
    failures: list[Any] = []
    changes.after(2**64 - 1).next().addErrback(failures.append)
    assert failures[0].check(WatchBehind), "it can be asked for"


def test_one_who_joins_gets_the_last_answer_and_what_comes() -> None:
    _, ledger = ledgers()
    first = Watcher(each_change(ledger.sum_of, "ann"))
    joins_early = Watcher(each_change(ledger.sum_of, "ann"))
    ledger.add("ann", 1)
    ledger.add("ann", 1)
    joins = Watcher(each_change(ledger.sum_of, "ann"))
    ledger.add("ann", 1)
    assert (first.answers, joins_early.answers, joins.answers) == ([0, 1, 2, 3], [0, 1, 2, 3], [2, 3])
    assert first.versions[-2:] == joins.versions


def test_errors_are_changes_and_it_goes_on_after_them() -> None:
    _, ledger = ledgers()
    ann, odd = Watcher(each_change(ledger.sum_of, "ann")), Watcher(each_change(ledger.sum_of, "odd"))
    for amount in (-1, -1, 5):
        ledger.add("ann", amount)
    assert ann.answers == [0, Closed, 3]
    ledger.add("odd", 1)
    ledger.remove("odd")
    assert odd.answers == [0, QueryFailed, 0]
    assert str(odd.got[1]) == "KeyError: the query has raised it at the nodes"


def test_timers_and_commands_that_fail_may_change_an_answer() -> None:
    harness, ledger = ledgers()
    ann, names = Watcher(each_change(ledger.sum_of, "ann")), Watcher(each_change(ledger.names))
    ledger.add_later("ann", 5.0)
    harness.advance(5.0)
    ledger.add_and_fail("ann").addErrback(lambda _: None)
    ledger.add("bob", 1)
    assert (ann.answers, names.answers) == ([0, 100, 101], [[], ["ann"], ["ann", "bob"]])


def test_a_call_is_kept_while_a_caller_asks_and_dropped_afterwards() -> None:
    harness, ledger = ledgers()
    ann = Watcher(each_change(ledger.sum_of, "ann"))
    for _ in range(180):
        harness.advance(3 * KEPT_SECONDS / 180)
    ledger.add("ann", 1)
    assert (ann.answers, len(kept_of(harness))) == ([0, 1], 1)
    seen = ann.changes.version
    ann.changes.close()
    assert ann.answers == [0, 1, StopAsyncIteration]
    harness.advance(KEPT_SECONDS / 2)
    again = Watcher(each_change(ledger.sum_of, "ann").after(seen))
    again.changes.close()
    assert (again.answers, len(kept_of(harness))) == ([StopAsyncIteration], 1)
    harness.advance(KEPT_SECONDS)
    assert (len(kept_of(harness)), kept_of(harness)._bytes, kept_of(harness)._by_topic) == (0, 0, {})
    behind = each_change(ledger.sum_of, "ann").after(seen)
    with pytest.raises(WatchBehind, match=r"are gone, since for 600 s no caller has asked for them; begin anew"):
        ServicesHarness.result(behind.next())


def test_a_call_is_kept_anew_though_the_nodes_do_not_see_time_pass() -> None:
    harness, ledger = ledgers()
    Watcher(each_change(ledger.sum_of, "ann"))
    before = harness.slot
    for waits in range(1, 2 * QUIET_WAITS_MAX + 1):
        harness._clock.advance(WAIT_SECONDS)
        assert harness.slot == before + waits // QUIET_WAITS_MAX
    assert QUIET_WAITS_MAX * WAIT_SECONDS < KEPT_SECONDS / 2


def test_no_version_is_given_twice_though_calls_are_dropped_and_nodes_start_anew() -> None:
    harness, ledger = ledgers()
    changes = each_change(ledger.sum_of, "ann")
    first = ServicesHarness.result(changes.next())
    (name,) = kept_of(harness)._kept
    kept_of(harness).drop(name)
    harness.snapshot_and_restore()
    ledger = harness.service(Ledger)
    ledger.add("ann", 1)
    ledger.add("ann", -1)
    again = ServicesHarness.result(each_change(ledger.sum_of, "ann").next())
    assert (first.answer, again.answer) == (0, 0)
    assert again.version > first.version
    with pytest.raises(WatchBehind, match=f"changes after version {first.version} are gone, up to version"):
        ServicesHarness.result(each_change(ledger.sum_of, "ann").after(first.version).next())


def test_a_version_that_no_change_has_had() -> None:
    _, ledger = ledgers()
    ServicesHarness.result(each_change(ledger.sum_of, "ann").next())
    with pytest.raises(WatchBehind, match="no change of this cluster has had version 99, and the last one had 2"):
        ServicesHarness.result(each_change(ledger.sum_of, "ann").after(99).next())
    wrong: Any
    for wrong, error in (("1", TypeError), (True, TypeError), (-1, ValueError)):
        with pytest.raises(error):
            each_change(ledger.sum_of, "ann").after(wrong)


def node_of(cluster: str) -> tuple[NodeHarness, Any]:
    """A node by itself in a cluster of this name, which leads, and its application."""
    harness = NodeHarness("a", attrs.evolve(ONE, name=cluster), application=application_of(Ledger))
    harness.reactor.idle()
    return harness, harness.node.application


def answered(harness: NodeHarness, waiting: Deferred[Any]) -> Any:
    outcome = outcome_of(waiting)
    harness.reactor.idle()
    return outcome[0]


@pytest.mark.parametrize("name", ["ledger~0123456789abcdef", "another"])
def test_a_version_of_a_cluster_that_was_restored_is_none_of_the_new_one(name: str) -> None:
    """A client has seen changes that are not in the backup. In the new cluster other changes follow the backup's."""
    old, application = node_of("ledger")
    ledger = application.service(Ledger)
    changes = each_change(ledger.sum_of, "ann")
    answered(old, ledger.add("ann", 1))
    in_backup = answered(old, changes.next())
    backup = list(application.snapshot())
    answered(old, ledger.add("ann", 10))
    lost = answered(old, changes.next())
    assert (in_backup.answer, lost.answer) == (1, 11)

    new, application = node_of(name)
    application.restore(iter(backup))
    ledger = application.service(Ledger)
    for amount in (100, 100):
        answered(new, ledger.add("ann", amount))
    for seen in (in_backup, lost):
        failure = answered(new, each_change(ledger.sum_of, "ann").after(seen.version).next())
        assert failure.check(WatchBehind), failure
        assert "is it another one, or was it restored or recovered?" in str(failure.value)
    again = each_change(ledger.sum_of, "ann")
    found = [answered(new, again.next())]
    answered(new, ledger.add("ann", 1))
    found.append(answered(new, again.next()))
    assert [one.answer for one in found] == [201, 202]
    assert not {one.version for one in found} & {in_backup.version, lost.version}
    assert answered(new, each_change(ledger.sum_of, "ann").after(found[0].version).next()) == found[1]


def test_a_version_of_the_same_cluster_is_the_same_at_each_node() -> None:
    """Also at one that has started from a snapshot."""
    one, application = node_of("ledger")
    ledger = application.service(Ledger)
    first = answered(one, each_change(ledger.sum_of, "ann").next())
    other, twin = node_of("ledger")
    twin.restore(application.snapshot())
    answered(other, twin.service(Ledger).add("ann", 1))
    following = answered(other, each_change(twin.service(Ledger).sum_of, "ann").after(first.version).next())
    assert (following.answer, following.version) == (1, first.version + 1)


@pytest.mark.parametrize("name", ["", "orders", "x" * 32 + "~0123456789abcdef"])
def test_where_the_versions_of_a_cluster_begin(name: str) -> None:
    """They fit a float, as other languages keep numbers."""
    begin = kept_changes.versions_begin_after(name)
    assert 0 <= begin < 2**52
    assert (begin == 0) == (name == "")


@pytest.mark.parametrize("limit", ["CHANGES_MAX", "CHANGES_BYTES_MAX", "BYTES_MAX"])
def test_the_oldest_changes_go(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_changes, limit, 4 if limit == "CHANGES_MAX" else 4 * 65 + 200)
    harness, ledger = ledgers()
    late = each_change(ledger.sum_of, "ann")
    first = ServicesHarness.result(late.next())
    for _ in range(20):
        ledger.add("ann", 1)
    kept = kept_of(harness)
    (one,) = kept._kept.values()
    assert 1 <= len(one.changes) <= 8
    assert one.size_bytes == sum(len(data) + 64 for _, data in one.changes)
    assert kept._bytes == one.size_bytes + len(one.call) + 64
    with pytest.raises(WatchBehind, match=f"changes after version {first.version} are gone"):
        ServicesHarness.result(late.next())
    harness.snapshot_and_restore()
    with pytest.raises(WatchBehind):
        ServicesHarness.result(each_change(harness.service(Ledger).sum_of, "ann").after(first.version).next())
    again = Watcher(each_change(harness.service(Ledger).sum_of, "ann").after(one.floor))
    assert again.answers[-1] == 20
    assert len(again.answers) == len(one.changes)


def test_the_oldest_change_of_the_call_that_has_most_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    harness, ledger = ledgers()
    ann, bob = each_change(ledger.sum_of, "ann"), each_change(ledger.sum_of, "bob")
    ServicesHarness.result(ann.next())
    ServicesHarness.result(bob.next())
    monkeypatch.setattr(kept_changes, "BYTES_MAX", kept_of(harness)._bytes + 2 * 65)
    for _ in range(3):
        ledger.add("ann", 1)
    assert [len(one.changes) for one in kept_of(harness)._kept.values()] == [3, 1]
    ledger.add("ann", 1)
    assert [len(one.changes) for one in kept_of(harness)._kept.values()] == [3, 1], "bob keeps what he has"
    monkeypatch.setattr(kept_changes, "BYTES_MAX", 0)
    ledger.add("bob", 1)
    assert [len(one.changes) for one in kept_of(harness)._kept.values()] == [0, 0]
    with pytest.raises(Overloaded, match="too big to be kept"):
        ServicesHarness.result(each_change(ledger.sum_of, "bob").next())
    monkeypatch.undo()
    ledger.add("bob", 1)
    assert [len(one.changes) for one in kept_of(harness)._kept.values()] == [0, 1]


@pytest.mark.parametrize("limit", ["CALLS_OF_TOPIC_MAX", "TOPIC_BYTES_MAX"])
def test_calls_that_change_together_have_a_bound(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are made in one slot."""
    harness, ledger = ledgers()
    monkeypatch.setattr(kept_changes, limit, 1)
    ServicesHarness.result(each_change(ledger.names).next())
    with pytest.raises(Overloaded, match=r"^the changes of 1 calls that change with the same topic, and their answers"):
        ServicesHarness.result(each_change(ledger.big).next())
    for name in ("ann", "bob"):
        ServicesHarness.result(each_change(ledger.sum_of, name).next())
    assert len(kept_of(harness)) == 3


def test_an_answer_that_is_too_big_is_no_silent_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_changes, "ANSWER_BYTES_MAX", 100)
    harness, ledger = ledgers()
    changes = each_change(ledger.big)
    assert ServicesHarness.result(changes.next()).answer == b""
    ledger.add("big", 200)
    with pytest.raises(WatchBehind):
        ServicesHarness.result(changes.next())
    with pytest.raises(Overloaded, match="too big to be kept"):
        ServicesHarness.result(each_change(ledger.big).next())
    harness.advance(KEPT_SECONDS)
    with pytest.raises(Overloaded, match=r"the call and its answer have 12 and 202 bytes and may have"):
        ServicesHarness.result(each_change(ledger.big).next())


def test_calls_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_changes, "CALLS_MAX", 2)
    harness, ledger = ledgers()
    for name in ("ann", "bob"):
        ServicesHarness.result(each_change(ledger.sum_of, name).next())
    with pytest.raises(Overloaded, match="the changes of 2 calls are kept already"):
        ServicesHarness.result(each_change(ledger.sum_of, "cy").next())
    monkeypatch.setattr(kept_changes, "CALLS_MAX", 3)
    with pytest.raises(Overloaded, match="may have 4096 and"):
        ServicesHarness.result(each_change(ledger.sum_of, "x" * 5000).next())
    assert len(kept_of(harness)) == 2


def test_many_changes_come_in_batches_and_survive_a_snapshot_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_changes, "BATCH_BYTES", 300)
    monkeypatch.setattr(kept_changes, "CHUNK_BYTES", 300)
    harness, ledger = ledgers()
    changes = [each_change(ledger.sum_of, name) for name in ("ann", "bob", "cy", "di", "ed")]
    for one in changes:
        ServicesHarness.result(one.next())
    for number in range(50):
        ledger.add("ann" if number % 2 else "bob", 1)
    chunks = [chunk for chunk in harness.application.snapshot() if chunk.startswith(b"\x93\xa0")]
    assert len(chunks) > 10
    harness.snapshot_and_restore()
    harness.service(Ledger).add("ann", 1)
    assert [ServicesHarness.result(changes[0].next()).answer for _ in range(26)] == list(range(1, 27))


def test_a_service_without_kept_changes_has_the_snapshot_that_it_had() -> None:
    harness, ledger = ledgers()
    ledger.add("ann", 1)
    before = list(harness.application.snapshot())
    ServicesHarness.result(watch(ledger.sum_of, "ann").next())
    assert list(harness.application.snapshot()) == before
    assert not any(chunk.startswith(b"\x93\xa0") for chunk in before)


@pytest.mark.parametrize(
    "chunk",
    [
        msgspec.msgpack.encode(("", "version", "one")),
        msgspec.msgpack.encode(("", "calls", [(b"call", "Ledger")])),
        msgspec.msgpack.encode(("", "changes", [(1, 5, b"")])),
        b"\x93\xa0",
    ],
)
def test_a_snapshot_that_is_damaged(chunk: bytes) -> None:
    harness, ledger = ledgers()
    ledger.add("ann", 1)
    chunks = [*harness.application.snapshot(), chunk]
    with pytest.raises(ConfigError, match="the snapshot has no kept changes where they should be"):
        harness.application.restore(iter(chunks))


def test_a_wait_that_is_cancelled_loses_nothing() -> None:
    harness, ledger = ledgers()
    changes = each_change(ledger.sum_of, "ann")
    assert ServicesHarness.result(changes.next()).answer == 0
    waits = changes.next()
    waits.cancel()
    waits.addErrback(lambda failure: failure.trap(CancelledError))
    assert len(harness.application._watches) == 0
    ledger.add("ann", 1)
    ledger.add("ann", 1)
    assert [ServicesHarness.result(changes.next()).answer for _ in "12"] == [1, 2]


def test_a_caller_who_has_seen_nothing_begins_with_what_there_is() -> None:
    harness, ledger = ledgers()
    changes = each_change(ledger.sum_of, "ann")
    waits = changes._keep()
    Deferred.fromCoroutine(waits).addCallback(lambda first: setattr(changes, "_asks_after", first))
    (name,) = kept_of(harness)._kept
    kept_of(harness).drop(name)
    ledger.add("ann", 1)
    assert ServicesHarness.result(changes.next()).answer == 1


@pytest.mark.parametrize(
    "hostile",
    [
        encode_keep(b"no call"),
        encode_keep(encode_call(Ledger, Ledger.total)),
        encode_keep(encode_call(Ledger, Ledger.add, "ann", 1)),
        encode_keep(encode_keep(encode_call(Ledger, Ledger.names))),
        encode_keep(encode_question(encode_call(Ledger, Ledger.names), 0)),
        encode_keep(encode_watch(b"", encode_call(Ledger, Ledger.names))),
        encode_keep(encode_call(Ledger, Ledger.names)) + b"\x00",
        kept_changes.KEEP,
        kept_changes.KEEP + b"\xa4text",
    ],
)
def test_hostile_commands_keep_nothing(hostile: bytes) -> None:
    application = strict_application_of(Ledger)()
    with pytest.raises(CallRefused):
        application.apply(1, hostile)
    assert (len(application._kept), application._kept._version, application.faults) == (0, 0, [])


@pytest.mark.parametrize(
    "hostile",
    [
        kept_changes.QUESTION,
        msgspec.msgpack.encode(["changes", b"", -1]),
        msgspec.msgpack.encode(["changes", b"", 2**63, 1]),
        msgspec.msgpack.encode(["changes", "text", 1]),
    ],
)
def test_hostile_questions_are_refused(hostile: bytes) -> None:
    application = application_of(Ledger)()
    for query_bytes in (hostile, encode_watch(b"", hostile)):
        with pytest.raises(CallRefused):
            application.query(query_bytes)
    assert len(application._watches) == 0


def test_questions_for_what_is_not_kept() -> None:
    application = application_of(Ledger)()
    assert application.query(encode_question(b"no call", 0)) == ("dropped", 0, [])
    assert application.query(encode_question(b"no call", 2**64 - 1)) == ("never", 0, [])


def test_only_queries_that_say_so() -> None:
    _, ledger = ledgers()
    method: Any
    for method in (ledger.total, ledger.add, len):
        with pytest.raises(TypeError, match=r"declared with @query\(changes_kept=True\), and .* is not"):
            each_change(method)
    with pytest.raises(TypeError):
        each_change(ledger.sum_of, 5)
    with pytest.raises(TypeError, match="changes_kept must be a bool, not int"):
        query(changes_kept=1)  # type: ignore[call-overload]


@pytest.mark.parametrize("found", [None, ["text"]])
def test_a_node_of_another_release(found: Any) -> None:
    harness, ledger = ledgers()
    changes = each_change(ledger.sum_of, "ann")
    changes._submit = lambda command: harness.submit(command).addCallback(lambda _: found)
    with pytest.raises(QueryFailed, match="is no version: does the node run another release of txpaxos"):
        ServicesHarness.result(changes.next())


def test_strict_applications_keep_changes() -> None:
    application = strict_application_of(Ledger)()
    call = encode_call(Ledger, Ledger.sum_of, "ann")
    after = application.apply(1, encode_keep(call))
    assert isinstance(after, int)
    application.apply(2, encode_call(Ledger, Ledger.add, "ann", 3))
    answer: Any = application.query(encode_question(call, after))
    word, due, some = answer
    assert (word, due, [msgspec.msgpack.decode(data) for _, data in some]) == ("kept", 0, [0, 3])
    assert application.faults == []
