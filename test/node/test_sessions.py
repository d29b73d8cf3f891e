"""Exactly once: the table of sessions, which the log alone changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

import attrs
import msgspec
import pytest
from twisted.internet.defer import succeed

import txpaxos.node.sessions
from txpaxos.core.ready import Chosen
from txpaxos.errors import CodecError, CommandFailed, OutcomeUnknown, SessionExpired
from txpaxos.node.applier import Applier
from txpaxos.node.sessions import (
    CHUNK_BYTES,
    ERROR_CHARACTERS_MAX,
    OUTCOMES_MAX,
    RESULT_BYTES_MAX,
    Failed,
    Outcome,
    Sessions,
    encode_result,
    raised,
    value_of,
)
from txpaxos.wire.commands import REGISTERS_MARK, Run, encode_batch, new_session, owned_by


def named(number: int, created_at_slot: int = 0) -> bytes:
    return new_session(b"%016d" % number, created_at_slot)


def command(sequence: int, acknowledged: int = 0, session: bytes = named(1)) -> Run:
    """A run of one."""
    return run(sequence, 1, acknowledged, session)


def run(sequence: int, count: int, acknowledged: int = 0, session: bytes = named(1)) -> Run:
    """``count`` commands from ``sequence`` on. The payload of each is its sequence."""
    return Run(session, sequence, acknowledged, tuple(b"%d" % one for one in range(sequence, sequence + count)))


def result(sequence: int) -> Outcome:
    return encode_result(sequence)


def record(sessions: Sessions, *runs: Run, slot: int = 1) -> None:
    """Apply ``runs``: each command gives its sequence."""
    for one in runs:
        sessions.apply_once(slot, one, lambda _, payload: result(int(payload)))


def is_applied(sessions: Sessions, one: Run) -> bool:
    """Whether the first command of a run was applied."""
    return sessions.outcomes(one)[0] is not None


def outcome(sessions: Sessions, one: Run) -> Outcome | None:
    """What is kept of the first command of a run."""
    kept = sessions.outcomes(one)[0]
    return None if isinstance(kept, Failed) and kept.error is OutcomeUnknown else kept


def refusal(sessions: Sessions, slot: int, one: Run) -> Failed | None:
    """Why the first command of a run is not applied at ``slot``; ``None`` if it is."""
    gave = sessions.apply_once(slot, one, lambda _, payload: result(int(payload)))[0]
    return gave if isinstance(gave, Failed) else None


def test_a_new_table_knows_nothing() -> None:
    sessions = Sessions()
    assert not is_applied(sessions, command(1))
    assert outcome(sessions, command(1)) is None
    assert len(sessions) == 0


def test_an_outcome_is_kept_as_it_was() -> None:
    sessions = Sessions()
    sessions.apply_once(1, command(1), lambda *_: raised("ValueError", "no"))
    sessions.apply_once(1, command(2), lambda *_: encode_result(None))
    assert is_applied(sessions, command(1))
    assert outcome(sessions, command(1)) == Failed(CommandFailed, "ValueError")
    assert outcome(sessions, command(2)) == b"\xc0"
    assert len(sessions) == 1


def test_sessions_are_apart() -> None:
    sessions = Sessions()
    record(sessions, command(1))
    assert not is_applied(sessions, command(1, session=named(2)))
    assert outcome(sessions, command(1, session=named(2))) is None


def test_out_of_order() -> None:
    """A later command that overtook an earlier one says nothing about that one."""
    sessions = Sessions()
    record(sessions, command(3), command(1))
    assert [is_applied(sessions, command(sequence)) for sequence in (1, 2, 3, 4)] == [True, False, True, False]
    record(sessions, command(2))
    assert [outcome(sessions, command(sequence)) for sequence in (1, 2, 3)] == [result(1), result(2), result(3)]


def test_what_is_acknowledged_is_applied_and_forgotten() -> None:
    sessions = Sessions()
    record(sessions, command(1), command(2), command(3), command(4, acknowledged=2))
    assert [outcome(sessions, command(sequence)) for sequence in (1, 2)] == [None, None]
    assert [is_applied(sessions, command(sequence)) for sequence in (1, 2)] == [True, True]
    assert [outcome(sessions, command(sequence)) for sequence in (3, 4)] == [result(3), result(4)]


def test_what_is_acknowledged_stays_so() -> None:
    """Commands that overtake each other carry older acknowledgements, which take nothing back."""
    sessions = Sessions()
    record(sessions, command(9, acknowledged=7), command(8, acknowledged=5))
    assert is_applied(sessions, command(7))
    assert is_applied(sessions, command(6))
    assert outcome(sessions, command(8)) == result(8)


def test_memory_of_a_session_that_acknowledges_is_bounded() -> None:
    sessions = Sessions()
    for sequence in range(1, 10_000):
        record(sessions, command(sequence, acknowledged=max(0, sequence - 3)))
    assert sum(outcome(sessions, command(sequence)) is not None for sequence in range(10_000)) == 3


def test_the_session_used_longest_ago_is_forgotten() -> None:
    sessions = Sessions(sessions_max=2)
    first, second, third = map(named, (1, 2, 3))
    record(sessions, command(1, session=first), command(1, session=second))
    record(sessions, command(2, session=first))  # used again: now the second is the oldest
    record(sessions, command(1, session=third))
    assert len(sessions) == 2
    assert is_applied(sessions, command(1, session=first))
    assert not is_applied(sessions, command(1, session=second))
    assert is_applied(sessions, command(1, session=third))


def test_a_client_with_too_many_sessions_loses_its_own() -> None:
    """Also from a snapshot on, and with sessions for registers among them."""
    sessions = Sessions(sessions_max=8)
    shop = [new_session(owned_by("shop", b"%016d" % number), 0) for number in range(3)]
    record(sessions, *(command(1, session=one) for one in shop))
    bank = [new_session(owned_by("bank", b"%016d" % number), 199 + number) for number in range(20)]
    bank[1::2] = [one + REGISTERS_MARK for one in bank[1::2]]
    loaded = Sessions(sessions_max=8)
    loaded.load(sessions.dump())
    for table in (sessions, loaded):
        for slot, one in enumerate(bank, 200):
            table.apply_once(slot, command(1, session=one), lambda _, payload: result(int(payload)))
        assert [one for one in (*shop, *bank) if one in table] == [*shop, *bank[-4:]]
        assert table.horizon == 215
        # One of the others that was used longer ago is forgotten later, which does not lower the horizon.
        for number in range(4):
            one = named(number, 230)
            table.apply_once(231 + number, command(1, session=one), lambda _, payload: result(int(payload)))
        assert shop[0] not in table
        assert table.horizon == 215
    assert list(sessions.dump()) == list(loaded.dump())


def test_looking_does_not_change_who_is_forgotten() -> None:
    """Callers ask one node and not the others, so only what is applied may count."""
    sessions = Sessions(sessions_max=2)
    first, second, third = map(named, (1, 2, 3))
    record(sessions, command(1, session=first), command(1, session=second))
    assert is_applied(sessions, command(1, session=first))
    assert outcome(sessions, command(1, session=first)) == result(1)
    record(sessions, command(1, session=third))
    assert not is_applied(sessions, command(1, session=first))


def test_equal_logs_make_equal_tables() -> None:
    rng = Random(1)
    tables = [Sessions(sessions_max=5, kept_bytes_max=100) for _ in range(2)]
    for slot in range(1, 4000):
        sequence = rng.randrange(1, 50)
        name = named(rng.randrange(9), max(0, slot - slot % 50 - 1))
        one = run(sequence, rng.randrange(1, 9), rng.randrange(sequence + 4), name)
        tables[1].outcomes(run(rng.randrange(50), 3, 0, name))  # the other node is asked a lot in between
        gave = [table.apply_once(slot, one, lambda _, payload: result(int(payload))) for table in tables]
        assert gave[0] == gave[1]
        assert list(tables[0].dump()) == list(tables[1].dump())
    assert tables[0].horizon > 0
    assert any(not isinstance(one, Failed) for one in tables[0].outcomes(run(0, 60, session=name)) if one)


# -------------------------------------------------------------------- outcomes


def test_what_apply_returned_comes_back() -> None:
    assert value_of(encode_result({"total": [1, 2.5, None, "three", b"four"]})) == {
        "total": [1, 2.5, None, "three", b"four"]
    }
    assert value_of(encode_result(None)) is None
    assert value_of(encode_result((1, 2))) == [1, 2]


def test_what_apply_raised_is_raised() -> None:
    with pytest.raises(CommandFailed, match=r"^ValueError: no$"):
        value_of(raised("ValueError", "no"))
    with pytest.raises(SessionExpired, match=r"^forgotten$"):
        value_of(Failed(SessionExpired, "forgotten"))


def _applied(value: object) -> Outcome:
    """The outcome of a command for which ``apply`` returns ``value``."""
    applied = Applier(lambda slot, payload: value).apply(Chosen(1, encode_batch([command(1)])))
    ((_, (outcome,)),) = applied
    return outcome


@attrs.frozen
class Key:
    number: int


@pytest.mark.parametrize(
    "value",
    [
        object(),
        2**64,
        "\ud800",
        bytes(RESULT_BYTES_MAX),
        # Those can be encoded, and not decoded again.
        {Key(1): 2},
        [{"deep": {("k", Key(1)): 2}}],
        {frozenset({Key(1)}): 2},
        msgspec.Raw(b"\xc1"),
        msgspec.Raw(b""),
        [msgspec.Raw(b"\xc1")],
        msgspec.msgpack.Ext(-1, b"\xff" * 12),
        {"when": msgspec.msgpack.Ext(-1, b"\xff" * 3)},
    ],
)
def test_a_result_that_cannot_be_kept(value: object) -> None:
    outcome = _applied(value)
    assert isinstance(outcome, Failed)
    assert outcome.error is CommandFailed
    assert outcome.reason == "applied, but its result cannot be kept"
    assert outcome.words.startswith(f"{outcome.reason}: ")
    outcome.words.encode()
    assert "\n" not in outcome.words


@pytest.mark.parametrize(
    "value", [{frozenset({2, 1}): 0}, {("k", frozenset({2, 1})): 0}, {1: 2, None: 3}, msgspec.msgpack.Ext(5, b"x")]
)
def test_a_result_with_other_keys_comes_back(value: object) -> None:
    outcome = _applied(value)
    assert isinstance(outcome, bytes)
    value_of(outcome)


def test_a_result_of_another_release_that_cannot_be_decoded() -> None:
    with pytest.raises(CommandFailed, match=r"^applied, but its result is no use: it could not be decoded again: "):
        value_of(b"\xc1")


async def _wait() -> int:
    return 1


@pytest.mark.parametrize(("make", "kind"), [(_wait, "coroutine"), (lambda: succeed(1), "Deferred")])
def test_a_result_to_be_waited_for_is_told_plainly(make: Callable[[], object], kind: str) -> None:
    outcome = _applied(make())
    assert isinstance(outcome, Failed)
    assert outcome.reason == "applied, but its result cannot be kept"  # As of all others: it is part of the state.
    assert outcome.words == (
        f"{outcome.reason}: apply returned a {kind}; it must return the result itself, as a plain function does"
    )


def test_words_can_be_sent_and_are_few() -> None:
    assert raised("Error", "\ud800!").words == r"Error: \ud800!"
    assert len(raised("Error", "x" * 10**6).words) == ERROR_CHARACTERS_MAX
    assert raised("Error", "").words == "Error"


# ------------------------------------------------------------------- expiry


def test_the_horizon_is_the_last_use_of_the_newest_forgotten() -> None:
    sessions = Sessions(sessions_max=2)
    assert sessions.horizon == 0
    for number in (1, 2, 3, 4):
        record(sessions, command(1, session=named(number, number * 10 - 1)), slot=number * 10)
    assert sessions.horizon == 20
    record(sessions, command(2, session=named(3, 29)), slot=50)
    record(sessions, command(1, session=named(5, created_at_slot=49)), slot=60)
    assert sessions.horizon == 40


def test_a_command_of_a_forgotten_session_is_refused() -> None:
    """It may be the one that was applied before: no node knows any more."""
    sessions = Sessions(sessions_max=2)
    for number in (1, 2, 3):
        record(sessions, command(1, session=named(number)), slot=number * 10)
    late = run(1, 2, session=named(1))
    assert sessions.outcomes(late) == [None, None]
    assert sessions.is_expired(late.session)
    words = "session made at slot 0 is no longer known; commands from 1 on were not applied now"
    assert sessions.apply_once(99, late, _never) == [Failed(SessionExpired, words)] * 2
    assert refusal(sessions, 99, command(7, session=named(1))) is not None  # nor is any other of that session
    assert refusal(sessions, 99, command(2, session=named(2))) is None


def _never(slot: int, payload: bytes) -> Outcome:
    raise AssertionError(payload)


@pytest.mark.parametrize(("created_at_slot", "new"), [(0, False), (9, False), (10, True), (11, True), (98, True)])
def test_a_session_made_since_the_horizon_is_new_for_sure(created_at_slot: int, new: bool) -> None:
    sessions = Sessions(sessions_max=1)
    for number in (1, 2):
        record(sessions, command(1, session=named(number)), slot=number * 10)
    assert sessions.horizon == 10
    one = command(1, session=named(3, created_at_slot))
    assert sessions.is_expired(one.session) is not new
    assert (refusal(sessions, 99, one) is None) is new


@pytest.mark.parametrize("created_at_slot", [5, 6, 2**64 - 1])
def test_a_session_from_the_future_is_refused(created_at_slot: int) -> None:
    """Forgotten, it would always count as new."""
    sessions = Sessions()
    refused = sessions.apply_once(5, run(1, 2, session=named(1, created_at_slot)), _never)
    words = f"the session says it was made at slot {created_at_slot}, its commands are in 5"
    assert refused == [Failed(SessionExpired, words)] * 2
    assert refusal(sessions, 5, command(1, session=named(1, 4))) is None


def test_never_applied_twice() -> None:
    """Whatever is forgotten, and in whichever order commands come again."""
    rng = Random(5)
    sessions = Sessions(sessions_max=5)
    applied: set[tuple[bytes, bytes]] = set()
    made: list[bytes] = []
    refused = 0
    for slot in range(1, 5000):
        if not made or rng.random() < 0.1:
            made.append(named(len(made), max(0, slot - 1 - rng.randrange(5))))
        one = run(rng.randrange(1, 4), rng.randrange(1, 4), 0, rng.choice(made[-20:]))

        def apply(_: int, payload: bytes, session: bytes = one.session) -> Outcome:
            assert (session, payload) not in applied
            applied.add((session, payload))
            return result(int(payload))

        outcomes = sessions.apply_once(slot, one, apply)
        refused += any(isinstance(outcome, Failed) for outcome in outcomes)
    assert len(applied) > 500
    assert refused > 500


# ------------------------------------------------------------------- bounds


def test_outcomes_of_a_session_are_bounded() -> None:
    sessions = Sessions()
    for sequence in range(1, 3 * OUTCOMES_MAX):
        record(sessions, command(sequence))
    kept = [one for one in range(1, 3 * OUTCOMES_MAX) if outcome(sessions, command(one)) is not None]
    assert OUTCOMES_MAX * 7 // 8 <= len(kept) <= OUTCOMES_MAX
    assert kept[-1] == 3 * OUTCOMES_MAX - 1
    assert kept == list(range(kept[0], 3 * OUTCOMES_MAX))
    assert all(is_applied(sessions, command(one)) for one in range(1, 3 * OUTCOMES_MAX))


def test_results_are_bounded_and_those_used_longest_ago_go_first() -> None:
    sessions = Sessions(kept_bytes_max=3000)
    for number in range(1, 5):
        sessions.apply_once(number, command(1, session=named(number)), lambda *_: bytes(1000))
    assert [outcome(sessions, command(1, session=named(number))) is None for number in range(1, 5)] == [
        True,
        False,
        False,
        False,
    ]
    assert is_applied(sessions, command(1, session=named(1)))  # as well as before
    sessions.apply_once(5, command(2, 1, session=named(2)), lambda *_: bytes(10))  # acknowledged: there is room again
    sessions.apply_once(6, command(1, session=named(6)), lambda *_: bytes(900))
    assert all(outcome(sessions, command(1, session=named(number))) for number in (3, 4, 6))


def test_results_of_one_session_alone_are_bounded() -> None:
    sessions = Sessions(kept_bytes_max=3000)
    for sequence in range(1, 100):
        sessions.apply_once(sequence, command(sequence), lambda *_: bytes(1000))
    assert sum(outcome(sessions, command(sequence)) is not None for sequence in range(1, 100)) <= 3
    assert all(is_applied(sessions, command(sequence)) for sequence in range(1, 100))


def test_a_session_with_many_results_costs_no_other_its_results() -> None:
    """Sixteen of sixteen megabytes, say."""
    sessions = Sessions(kept_bytes_max=10_000)
    for number in range(1, 6):
        sessions.apply_once(number, command(1, session=named(number)), lambda *_: bytes(10))
    for number in range(6, 60):
        sessions.apply_once(number, command(1, session=named(number % 4 + 10)), lambda *_: bytes(1000))
        sessions.apply_once(number, command(number, session=named(20)), lambda *_: bytes(3000))
    loaded = Sessions(kept_bytes_max=10_000)
    loaded.load(sessions.dump())
    for table in (sessions, loaded):
        for number in range(60, 70):
            table.apply_once(number, command(number, session=named(number)), lambda *_: bytes(1000))
        assert all(outcome(table, command(1, session=named(number))) for number in range(1, 6))
    assert list(sessions.dump()) == list(loaded.dump())


def test_a_client_with_many_results_in_many_sessions_loses_its_own() -> None:
    """Small ones, while another client has big ones. Also from a snapshot on."""
    sessions = Sessions(kept_bytes_max=10_000)
    shop = new_session(owned_by("shop", bytes(16)), 0)
    sessions.apply_once(1, command(1, session=shop), lambda *_: bytes(4000))
    bank = [new_session(owned_by("bank", b"%08d" % number + bytes(8)), 0) for number in range(200)]
    loaded = Sessions(kept_bytes_max=10_000)
    loaded.load(sessions.dump())
    for table in (sessions, loaded):
        for slot, one in enumerate(bank, 2):
            table.apply_once(slot, command(1, session=one), lambda *_: bytes(100))
        assert outcome(table, command(1, session=shop)) == bytes(4000)
        assert sum(outcome(table, command(1, session=one)) is not None for one in bank) == 50
        assert all(is_applied(table, command(1, session=one)) for one in bank)
        # What is acknowledged makes room.
        table.apply_once(300, command(2, 1, session=bank[-1]), lambda *_: bytes(100))
        assert outcome(table, command(1, session=bank[-2])) == bytes(100)
    assert list(sessions.dump()) == list(loaded.dump())


def test_acknowledging_far_ahead_takes_no_time_and_is_ignored() -> None:
    """A client that has found out the name of a session must not make its owner's commands count as applied before."""
    sessions = Sessions()
    record(sessions, command(1), command(2), command(2**64 - 1, acknowledged=2**64 - 2))
    record(sessions, command(2**64 - 1, acknowledged=2**64 - 2), command(2**63, acknowledged=2**63 - 1), slot=7)
    assert outcome(sessions, command(2)) == result(2)
    assert not is_applied(sessions, command(3))
    record(sessions, command(3, acknowledged=2), slot=8)
    assert outcome(sessions, command(3)) == result(3)
    assert outcome(sessions, command(2)) is None
    assert outcome(sessions, command(2**64 - 1)) == result(2**64 - 1)


def test_commands_that_were_given_up_are_acknowledged_with_the_others() -> None:
    """They come late, or never, and must not be applied after those that followed them."""
    sessions = Sessions()
    record(sessions, command(1), command(OUTCOMES_MAX + 1, acknowledged=OUTCOMES_MAX))
    assert is_applied(sessions, command(2))


def test_a_new_session_may_begin_anywhere() -> None:
    sessions = Sessions()
    record(sessions, command(10**9, acknowledged=10**9 - 1), command(10**9 + 1, acknowledged=10**9))
    assert is_applied(sessions, command(10**9 - 1))
    assert outcome(sessions, command(10**9)) is None


# --------------------------------------------------------------------- runs


def test_of_a_run_only_what_was_not_applied_is() -> None:
    sessions = Sessions()
    record(sessions, run(2, 2))
    applied: list[bytes] = []

    def apply(_: int, payload: bytes) -> Outcome:
        applied.append(payload)
        return encode_result("new")

    new = encode_result("new")
    assert sessions.apply_once(2, run(1, 4), apply) == [new, result(2), result(3), new]
    assert applied == [b"1", b"4"]
    assert sessions.apply_once(3, run(1, 4), _never) == [new, result(2), result(3), new]


def test_a_run_of_which_nothing_is_new_changes_nothing() -> None:
    """Not what is acknowledged, nor whose turn it is to be forgotten."""
    sessions = Sessions()
    record(sessions, run(1, 3), run(1, 1, session=named(2)))
    before = list(sessions.dump())
    sessions.apply_once(9, run(1, 2, acknowledged=3), _never)
    assert list(sessions.dump()) == before


def test_what_is_acknowledged_within_a_run() -> None:
    """No honest client says so: it means what it has before."""
    sessions = Sessions()
    outcomes = sessions.apply_once(1, run(1, 3, acknowledged=2), lambda _, payload: result(int(payload)))
    assert outcomes == [result(1), result(2), result(3)]
    assert [outcome(sessions, command(sequence)) for sequence in (1, 2, 3)] == [result(1), result(2), result(3)]
    outcomes = sessions.apply_once(2, run(3, 2, acknowledged=2), lambda _, payload: result(int(payload)))
    assert outcomes == [result(3), result(4)]
    assert [outcome(sessions, command(sequence)) for sequence in (1, 2, 3, 4)] == [None, None, result(3), result(4)]
    assert all(is_applied(sessions, command(sequence)) for sequence in (1, 2, 3))


@pytest.mark.parametrize("count", [OUTCOMES_MAX + 1, 2 * OUTCOMES_MAX + 5])
def test_a_run_of_more_outcomes_than_are_kept(count: int) -> None:
    """All are told; of those with the lowest sequences no more is known later than that they were applied."""
    sessions = Sessions()
    outcomes = sessions.apply_once(1, run(1, count), lambda _, payload: result(int(payload)))
    assert outcomes == [result(sequence) for sequence in range(1, count + 1)]
    later = sessions.outcomes(run(1, count))
    kept = [one for one in later if not isinstance(one, Failed)]
    assert None not in later
    assert OUTCOMES_MAX * 7 // 8 <= len(kept) <= OUTCOMES_MAX
    assert kept == outcomes[-len(kept) :]


def test_a_run_of_more_bytes_than_are_kept() -> None:
    sessions = Sessions(kept_bytes_max=3000)
    record(sessions, command(1, session=named(2)))
    assert sessions.apply_once(1, run(1, 5), lambda *_: bytes(1000)) == [bytes(1000)] * 5
    assert all(isinstance(one, Failed) and one.error is OutcomeUnknown for one in sessions.outcomes(run(1, 5)))
    record(sessions, command(6))
    assert outcome(sessions, command(6)) == result(6)  # there is room again


# -------------------------------------------------------------------- dumps


def busy_table(seed: int = 1, slots: int = 3000) -> Sessions:
    rng = Random(seed)
    sessions = Sessions(sessions_max=50, kept_bytes_max=20_000)
    for slot in range(1, slots):
        act(sessions, rng, slot)
    return sessions


def act(sessions: Sessions, rng: Random, slot: int) -> None:
    """Something happens at ``slot``, mostly in a session that was used before, sometimes in one that is forgotten."""
    sequence = slot % 200 + rng.randrange(1, 50)
    name = named(rng.randrange(60), max(0, slot // 200 * 200 - 1))
    one = run(sequence, rng.randrange(1, 4), rng.randrange(max(1, sequence - 40), sequence + 1) - 1, name)
    gives: list[Outcome] = [
        rng.randbytes(rng.randrange(500)) if rng.random() < 0.9 else raised("ValueError", "no") for _ in "123"
    ]
    sessions.apply_once(slot, one, lambda _, payload: gives[int(payload) - sequence])


@pytest.mark.parametrize("chunk_bytes", [1, 500, CHUNK_BYTES])
def test_a_loaded_dump_is_the_table(chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.node.sessions, "CHUNK_BYTES", chunk_bytes)
    sessions, loaded = busy_table(), Sessions(sessions_max=50, kept_bytes_max=20_000)
    record(loaded, command(1, session=named(7)))
    chunks = list(sessions.dump())
    loaded.load(chunks)
    assert sessions.horizon == loaded.horizon > 0
    assert list(loaded.dump()) == chunks
    for rng_seed in (2, 3):  # and goes on as the table does, whatever comes
        one, other = Random(rng_seed), Random(rng_seed)
        for slot in range(3000, 5000):
            act(sessions, one, slot)
            act(loaded, other, slot)
    assert list(loaded.dump()) == list(sessions.dump()) != chunks


def test_a_dump_is_of_the_moment_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.node.sessions, "CHUNK_BYTES", 500)
    sessions = busy_table(slots=2999)
    before = list(sessions.dump())
    assert len(before) > 20
    dump, rng = sessions.dump(), Random(9)
    chunks = []
    for slot in range(2999, 3400):
        act(sessions, rng, slot)
        if slot % 10 == 0:
            chunks += [chunk for chunk in [next(dump, None)] if chunk]
    assert chunks == before
    assert list(sessions.dump()) != before


def test_two_dumps_at_once() -> None:
    sessions, rng = busy_table(), Random(9)
    first, before = sessions.dump(), list(sessions.dump())
    for slot in range(3000, 3100):
        act(sessions, rng, slot)
    second, between = sessions.dump(), list(sessions.dump())
    for slot in range(3100, 3200):
        act(sessions, rng, slot)
    assert (list(second), list(first)) == (between, before)


def test_chunks_are_small_but_for_a_big_result() -> None:
    sessions = Sessions()
    for number in range(3000):
        record(sessions, command(1, session=named(number)))
    for sequence in range(1, 100):
        sessions.apply_once(1, command(sequence, session=named(9999)), lambda *_: bytes(3000))
    sessions.apply_once(1, command(100, session=named(9999)), lambda *_: bytes(200_000))
    chunks = list(sessions.dump())
    assert sorted(map(len, chunks))[-2] < CHUNK_BYTES + 4000
    assert len(chunks[-1]) > 200_000
    loaded = Sessions()
    loaded.load(chunks)
    assert len(loaded) == 3001
    assert list(loaded.dump()) == chunks


def test_an_empty_table() -> None:
    chunks = list(Sessions().dump())
    assert len(chunks) == 1
    loaded = busy_table()
    loaded.load(chunks)
    assert (len(loaded), loaded.horizon) == (0, 0)


@pytest.mark.parametrize(
    "chunk", [b"", b"\xc1", b"\x90", msgspec.msgpack.encode([2, 0, []]), msgspec.msgpack.encode([1, -1, []])]
)
def test_what_is_no_dump_changes_nothing(chunk: bytes) -> None:
    sessions = busy_table()
    before = list(sessions.dump())
    with pytest.raises(CodecError, match="table of sessions") as raised:
        sessions.load([before[0], chunk])
    assert "\n" not in str(raised.value)
    assert list(sessions.dump()) == before


def test_a_dump_of_a_full_table_is_quick_to_begin() -> None:
    """The rest is in steps. Measured: 1 to 3 ms of the processor's time."""
    sessions = Sessions()
    for number in range(txpaxos.node.sessions.SESSIONS_MAX):
        record(sessions, command(1, session=named(number)))
    times = []
    for _ in range(5):
        began = time.process_time()
        sessions.dump()
        times.append(time.process_time() - began)
    assert min(times) < 0.02
