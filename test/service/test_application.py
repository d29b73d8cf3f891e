"""What a node runs of typed services: it calls their methods, and refuses bytes that are no call."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from test.helpers.fakes import alone, error_of, outcome_of
from test.service.services import Bank, Everything, LaterRefused, NotEnough, Open, Point, Refused
from txpaxos import CommandFailed, ConfigError, QueryFailed, Service, application_of, encode_call, query, state
from txpaxos.application import name_of
from txpaxos.application_checks import check_class, check_object
from txpaxos.errors import CallRefused

pack = msgspec.msgpack.encode
VALID = [
    encode_call(Bank, Bank.deposit, "ann", 5),
    encode_call(Bank, Bank.fail, "refused"),
    encode_call(Everything, Everything.take, Point(1), 2, [0.5], d="d"),
    encode_call(Everything, Everything.nothing),
]


def damaged(data: bytes, at: int, byte: int) -> bytes:
    """``data`` with one byte of it replaced."""
    return data[: at % len(data)] + bytes([byte]) + data[at % len(data) + 1 :]


HOSTILE = (
    st.binary(max_size=40)
    | st.builds(damaged, st.sampled_from(VALID), st.integers(0, 99), st.integers(0, 255))
    | st.builds(lambda data, length: data[: length % len(data)], st.sampled_from(VALID), st.integers(0, 99))
    | st.builds(lambda *parts: pack(parts), st.sampled_from(["Bank.deposit", "Everything.take", "x"]), st.text())
)


@given(HOSTILE)
@example(b"")
@example(pack(["Bank.deposit"]))
@example(pack(["Bank.deposit", "ann", 5, 6]))
@example(pack(["Bank.balance", "ann"]))  # A query is no command.
@example(pack(["deposit", "ann", 5]))
@example(pack(["Everything.take", {"x": 1, "tags": []}, -1]))
@example(pack({"Bank.deposit": "ann"}))
@example(VALID[0] + b"\x00")
@example(b"\x91" * 3000)
def test_bytes_that_are_no_call_are_refused_and_change_nothing(data: bytes) -> None:
    """On two nodes alike: what one of them applies, the other one does."""
    nodes = [application_of(Bank, Everything)() for _ in range(2)]
    outcomes: list[Any] = []
    for node in nodes:
        try:
            outcomes.append(("result", pack(node.apply(1, data))))
        except CallRefused as error:
            outcomes.append(("refused", str(error)))
            assert list(node.snapshot()) == [b"\x01"]
        except KeyError as error:
            outcomes.append(("raised", str(error)))
    assert outcomes[0] == outcomes[1]
    assert list(nodes[0].snapshot()) == list(nodes[1].snapshot())


REFUSED = [
    b"",
    b"Bank.deposit",
    pack(["Bank.deposit"]),
    pack(["Bank.deposit", "ann", 5, 6]),
    pack(["Bank.deposit", "ann", True]),
    pack(["Bank.balance", "ann"]),
    pack(["deposit", "ann", 5]),
    pack(["Other.deposit", "ann", 5]),
    pack({"Bank.deposit": "ann"}),
    pack(["Everything.take", {"x": 1, "tags": []}, -1]),
    VALID[0] + b"\x00",
    VALID[0][:-1],
]


@pytest.mark.parametrize("data", REFUSED, ids=range(len(REFUSED)))
def test_what_is_refused(data: bytes) -> None:
    node = application_of(Bank, Everything)()
    with pytest.raises(CallRefused):
        node.apply(1, data)
    assert list(node.snapshot()) == [b"\x01"]


def test_a_node_refuses_and_goes_on(logged_errors: list[dict[str, Any]]) -> None:
    harness = alone(application=application_of(Bank))
    refused = harness.application.submit(pack(["Bank.deposit", "ann", "5"]))
    applied = outcome_of(harness.application.submit(VALID[0]))
    harness.reactor.idle()
    error = error_of(refused)
    assert type(error) is CommandFailed
    assert str(error) == "CallRefused: Expected `int`, got `str` - at `$[2]`; is the caller of another release?"
    assert applied == [5]
    logged_errors.clear()


def test_a_call_on_the_node_itself() -> None:
    harness = alone(application=application_of(Bank))
    bank = harness.application.service(Bank, deadline_seconds=5.0)
    applied, failed = outcome_of(bank.deposit("ann", 5)), outcome_of(bank.fail("not enough"))
    harness.reactor.idle()
    failure: Any
    (failure,) = failed
    assert applied == [5]
    assert (type(failure.value), failure.value.missing) == (NotEnough, 5)
    balance = outcome_of(bank.balance("ann"))
    harness.reactor.idle()
    assert balance == [5]
    with pytest.raises(TypeError, match=r"Bank.deposit\(\): amount: Expected `int`, got `str`"):
        bank.deposit("ann", "5")


class Lists(Service):
    """A service whose query returns a part of its state."""

    lists: dict[str, list[int]] = state(lambda: {"a": [1]})
    points: list[Point] = state(lambda: [Point(1)])
    open: Open = state(lambda: Open([]))

    @query
    def of(self, name: str) -> list[int]:
        return self.lists[name]

    @query
    def all(self) -> list[Point]:
        return self.points

    @query
    def one(self) -> Open:
        return self.open

    @query
    def unsendable(self) -> list[int]:
        return [object()]  # type: ignore[list-item]

    @query
    def wrong(self) -> int:
        return "five"  # type: ignore[return-value]


def test_an_answer_shares_nothing_with_the_state() -> None:
    harness = alone(application=application_of(Lists))
    lists = harness.application.service(Lists, consistency="local")
    answers: Any = outcome_of(lists.of("a")), outcome_of(lists.all()), outcome_of(lists.one())
    harness.reactor.idle()
    (answer,), (points,), (one,) = answers
    assert (answer, points, one) == ([1], [Point(1)], Open([]))
    one.points.append(Point(5))
    answer.append(2)
    points.clear()
    assert harness.application.state_of(Lists).lists == {"a": [1]}
    assert harness.application.state_of(Lists).points == [Point(1)]
    assert harness.application.state_of(Lists).open == Open([])


def test_an_answer_of_another_type_and_an_error_that_is_no_answer() -> None:
    harness = alone(application=application_of(Lists))
    lists = harness.application.service(Lists, consistency="local")
    deferreds = lists.wrong(), lists.of("b"), lists.unsendable()
    harness.reactor.idle()
    wrong, missing, unsendable = map(error_of, deferreds)
    assert type(unsendable) is QueryFailed
    assert str(unsendable).startswith("what the query returned cannot be sent: ")
    assert (type(wrong), type(missing)) == (QueryFailed, QueryFailed)
    assert str(wrong) == "Lists.wrong returned what its annotation does not say: Expected `bool | int`, got `str`"
    assert str(missing) == "KeyError: 'b'"


def test_only_errors_that_a_method_names_arrive_as_what_they_are(logged_errors: list[dict[str, Any]]) -> None:
    harness = alone(application=application_of(Bank))
    bank = harness.application.service(Bank)
    deferreds = [bank.fail(kind) for kind in ("a subclass", "another")]
    harness.reactor.idle()
    assert [(type(error), str(error)) for error in map(error_of, deferreds)] == [
        (CommandFailed, "LaterRefused: no"),
        (CommandFailed, "KeyError: 'another'"),
    ]
    assert issubclass(LaterRefused, Refused)
    logged_errors.clear()


def test_several_services_have_their_own_commands_and_state() -> None:
    harness = alone(application=application_of(Everything, one=Bank, two=Bank))
    application = harness.application
    one, two = application.service(Bank, "one"), application.service(Bank, "two")
    calls = one.deposit("ann", 1), two.deposit("ann", 2), application.service(Everything).nothing()
    outcomes = [outcome_of(call) for call in calls]
    harness.reactor.idle()
    assert outcomes == [[1], [2], [None]]
    assert application.state_of(Bank, "one").balances == {"ann": 1}
    assert application.state_of(Bank, "two").balances == {"ann": 2}
    again = application_of(Everything, one=Bank, two=Bank)()
    again.restore(application.snapshot())
    assert again.state_of(Bank, "two").balances == {"ann": 2}
    assert again.state_of(Everything).count == 1


@pytest.mark.parametrize(("kind", "name"), [(Bank, "three"), (Bank, None), (Everything, "one"), (Lists, None)])
def test_a_service_that_the_node_does_not_run(kind: Any, name: str | None) -> None:
    with pytest.raises(ConfigError, match=r"this node runs no service '\w+' of \w+: it runs Bank as 'one'"):
        application_of(one=Bank)().service(kind, name)


def test_two_services_of_one_name_are_refused() -> None:
    for wrong in (lambda: application_of(Bank, Bank), lambda: application_of(Bank, Bank=Lists), application_of):
        with pytest.raises(ConfigError, match="the services of a node have names of their own, and these are"):
            wrong()


def test_the_application_is_called_as_the_service() -> None:
    """People compare the name, to see that all nodes run the same."""
    assert name_of(application_of(Bank)) == "test.service.services:Bank"
    both = "test.service.services:Bank[a]+test.service.services:Bank[b]+test.service.services:Everything[c]"
    assert name_of(application_of(a=Bank, b=Bank, c=Everything)) == both


def test_the_application_passes_the_checks_before_a_start() -> None:
    check_class(application_of(Bank, Everything))
    check_object(application_of(Bank, Everything)())


def test_a_service_without_commands_refuses_all() -> None:
    with pytest.raises(CallRefused, match="there is nothing to call"):
        application_of(Lists)().apply(1, VALID[0])
