"""The state of services in snapshots: it comes back as it was, and equal states give equal bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from test.service.services import Bank, Colour, Everything, Name, Open, Point
from txpaxos import ConfigError, Service, state
from txpaxos.service.declaration import fields_of
from txpaxos.service.definition import definition_of
from txpaxos.service.state import CHUNK_BYTES, ServicesState

INTEGERS = st.integers(-(2**63), 2**64 - 1)
NUMBERS = INTEGERS | st.floats(allow_nan=False) | st.booleans()
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
POINTS = st.builds(Point, INTEGERS, st.frozensets(TEXTS, max_size=3))
VALUES = st.fixed_dictionaries(
    {
        "count": INTEGERS | st.booleans(),
        "ratio": NUMBERS,
        "text": TEXTS,
        "colour": st.sampled_from(Colour),
        "pair": st.tuples(INTEGERS, TEXTS),
        "maybe": st.none() | st.binary(max_size=8),
        "names": st.sets(TEXTS),
        "points": st.dictionaries(st.tuples(INTEGERS, TEXTS), POINTS),
        "sets": st.dictionaries(st.frozensets(TEXTS, max_size=3), INTEGERS),
        "log": st.lists(TEXTS),
        "open": st.dictionaries(TEXTS, st.builds(Open, st.lists(POINTS, max_size=2))),
        "nested": st.dictionaries(TEXTS, st.dictionaries(TEXTS, st.lists(INTEGERS, max_size=2), max_size=2)),
        "by_name": st.dictionaries(TEXTS.map(Name), NUMBERS),
        "point": POINTS,
        "primes": st.lists(st.just(2) | INTEGERS, max_size=4),
    }
)


def state_of(*services: Service) -> ServicesState:
    return ServicesState((definition_of(type(service)), service) for service in services)


def with_values(values: dict[str, Any]) -> Everything:
    service = Everything()
    for name, value in values.items():
        setattr(service, name, value)
    return service


def values_of(service: Service) -> dict[str, Any]:
    return {name: getattr(service, name) for name in fields_of(type(service))}


def shown(value: Any) -> Any:
    """A value in a form in which True is not 1, dictionaries have an order, and sets have none."""
    if isinstance(value, dict):
        return [(shown(key), shown(one)) for key, one in value.items()]
    if isinstance(value, set | frozenset):
        return sorted(map(shown, value))
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(shown, value)]
    if isinstance(value, Point):
        return ["Point", shown(value.x), shown(value.tags)]
    return ["Open", shown(value.points)] if isinstance(value, Open) else repr(value)


@given(VALUES, VALUES)
def test_the_state_comes_back_as_it_was(values: dict[str, Any], others: dict[str, Any]) -> None:
    before, after = with_values(values), with_values(others)
    chunks = list(state_of(before).chunks())
    state_of(after).load(iter(chunks))
    assert shown(values_of(after)) == shown(values_of(before))
    assert list(state_of(after).chunks()) == chunks


@given(VALUES)
def test_chunks_do_not_change_with_the_state(values: dict[str, Any]) -> None:
    service = with_values(values)
    wanted = list(state_of(service).chunks())
    chunks = state_of(service).chunks()
    service.points.clear()
    service.log.append("later")
    service.names.add("later")
    service.sets[frozenset(["later"])] = 1
    service.count = 7
    for one in service.open.values():
        one.points.append(Point(1))
    for two in service.nested.values():
        two.clear()
    assert list(chunks) == wanted


@given(st.permutations([f"name {number}" for number in range(12)]))
def test_sets_are_sorted(names: list[str]) -> None:
    service, other = Everything(), Everything()
    backwards = names[::-1]
    service.names, other.names = set(names), set(backwards)
    service.sets, other.sets = {frozenset(names): 1}, {frozenset(backwards): 1}
    assert list(state_of(service).chunks()) == list(state_of(other).chunks())


def test_the_order_of_a_dictionary_is_kept() -> None:
    service, other = Bank(), Bank()
    service.balances, other.balances = {"b": 1, "a": 2}, {"a": 2, "b": 1}
    assert list(state_of(service).chunks()) != list(state_of(other).chunks())


def test_what_has_its_first_value_is_not_written() -> None:
    assert list(state_of(Everything()).chunks()) == [b"\x01"]
    service = Everything()
    service.primes = []
    assert len(list(state_of(service).chunks())) == 2
    again = Everything()
    again.count = 3
    state_of(again).load(state_of(service).chunks())
    assert (again.primes, again.count, again.text) == ([], 0, "first")


def test_a_release_with_more_state_writes_what_an_earlier_one_wrote() -> None:
    class More(Bank):
        fees: dict[str, int] = state(dict)
        rate: float = state(lambda: 0.5)

    bank, more = Bank(), More()
    bank.balances = {"ann": 5}
    later = ServicesState([(definition_of(More, "Bank"), more)])
    later.load(state_of(bank).chunks())
    assert (more.balances, more.fees, more.rate) == ({"ann": 5}, {}, 0.5)
    assert list(later.chunks()) == list(state_of(bank).chunks())


def test_chunks_are_bounded_and_none_is_very_short() -> None:
    bank, again = Bank(), Bank()
    bank.balances = {f"account {number:09}": number for number in range(50_000)}
    head, *chunks, last = state_of(bank).chunks()
    assert len(chunks) > 10
    assert all(CHUNK_BYTES <= len(chunk) < CHUNK_BYTES + 50 for chunk in chunks)
    state_of(again).load(iter([head, *chunks, last]))
    assert again.balances == bank.balances
    assert list(again.balances) == list(bank.balances)


def test_an_item_that_is_longer_than_a_chunk_is_a_chunk() -> None:
    service = Everything()
    service.log = ["a" * 3 * CHUNK_BYTES, "b", "c" * 3 * CHUNK_BYTES]
    lengths = [len(chunk) for chunk in state_of(service).chunks()]
    assert [round(length / CHUNK_BYTES) for length in lengths] == [0, 3, 3]


def test_values_that_never_change_wait_until_they_are_read() -> None:
    """A node reads a few chunks at a time. A state with such values costs it little when a snapshot begins."""
    bank = Bank()
    bank.balances = dict.fromkeys(map(str, range(10)), 1)
    made = state_of(bank).chunks()
    bank.balances["0"] = "no number"  # type: ignore[assignment]
    assert b"no number" not in b"".join(made)


def test_two_services_have_their_own_parts() -> None:
    one, two = Bank(), Bank()
    one.balances, two.balances = {"ann": 1}, {"bob": 2}
    both = ServicesState([(definition_of(Bank, "one"), one), (definition_of(Bank, "two"), two)])
    chunks = list(both.chunks())
    one.balances, two.balances = {}, {}
    both.load(iter(chunks))
    assert (one.balances, two.balances) == ({"ann": 1}, {"bob": 2})


def chunk_of(*parts: Any) -> bytes:
    return msgspec.msgpack.encode(parts)


@pytest.mark.parametrize(
    ("chunks", "line"),
    [
        ([], "the snapshot has format None of a service's state, and not 1"),
        ([b"\x02"], "the snapshot has format 2 of a service's state, and not 1"),
        (
            [b"\x01", chunk_of("Bank", "cash", [1])],
            "the snapshot has 'cash' of a service 'Bank', which is not declared",
        ),
        ([b"\x01", chunk_of("Jobs", "all", [1])], "the snapshot has 'all' of a service 'Jobs', which is not declared"),
        ([b"\x01", chunk_of("Bank", "balances", [["ann", "5"]])], "Expected `bool | int`, got `str` - at `$[0][1]`"),
        ([b"\x01", b"\x93"], "Input data was truncated"),
        ([b"\x01", chunk_of("Bank", "balances", [["bob", 1]]), b"\x93"], "Input data was truncated"),
    ],
)
def test_a_snapshot_of_something_else_changes_nothing(chunks: Iterable[bytes], line: str) -> None:
    bank = Bank()
    bank.balances = {"ann": 5}
    with pytest.raises((ConfigError, msgspec.MsgspecError)) as caught:
        state_of(bank).load(iter([*chunks]))
    assert str(caught.value).startswith(line)
    assert bank.balances == {"ann": 5}
