"""Calls of a typed service from a client."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from twisted.internet.defer import CancelledError, Deferred

from test.helpers.fake_nodes import ManualNodes
from test.helpers.fakes import outcome_of
from test.service.services import Bank, Everything, Late, Point
from txpaxos import CommandFailed, ConfigError, NotChosen, Service
from txpaxos.service.calls import encoder_of
from txpaxos.service.definition import ERROR_CODE, definition_of
from txpaxos.wire.client_messages import Read, Submit


@pytest.fixture
def nodes() -> ManualNodes:
    return ManualNodes()


def test_a_command_and_its_result(nodes: ManualNodes) -> None:
    outcome = outcome_of(nodes.client.service(Bank).deposit("ann", amount=5))
    line = nodes.accept()
    session = nodes.client.session
    assert session is not None
    assert line.said() == [Submit(1, session, 1, 0, (b"\x93\xacBank.deposit\xa3ann\x05",))]
    line.answer(1, 5)
    assert outcome == [5]


def test_a_service_may_have_another_name_at_the_nodes(nodes: ManualNodes) -> None:
    outcome_of(nodes.client.service(Bank, "savings").deposit("ann"))
    (submit,) = nodes.accept().said()
    assert isinstance(submit, Submit)
    assert msgspec.msgpack.decode(submit.commands[0]) == ["savings.deposit", "ann", 1]
    nodes.client.close()


def test_a_wrong_call_is_raised_at_the_call_and_nothing_is_sent(nodes: ManualNodes) -> None:
    bank: Any = nodes.client.service(Bank)
    for wrong in (lambda: bank.deposit("ann", "5"), lambda: bank.deposit(), lambda: bank.balance(5)):
        with pytest.raises(TypeError, match=r"Bank\.\w+\(\)"):
            wrong()
    nodes.reactor.spend(1.0)
    assert nodes.calls == []


def answered(nodes: ManualNodes, deferred: Deferred[Any], result: object) -> list[Any]:
    """What becomes of a call that a node answers with ``result``."""
    outcome = outcome_of(deferred)
    nodes.accept().answer(1, result)
    return outcome


def test_results_come_in_the_types_of_the_annotations(nodes: ManualNodes) -> None:
    outcome = answered(nodes, nodes.client.service(Everything).take(Point(1)), [{"x": 1, "tags": ["a"]}, "blue", 2])
    (result,) = outcome
    assert result[0] == Point(1, frozenset(["a"]))
    assert (result[1].name, result[2]) == ("BLUE", 2)


def test_an_error_raised_on_purpose(nodes: ManualNodes) -> None:
    data = encoder_of(definition_of(Bank).commands["fail"].errors["Late"].call)(2.5)
    (failure,) = answered(nodes, nodes.client.service(Bank).fail("late"), msgspec.msgpack.Ext(ERROR_CODE, data))
    assert (type(failure.value), failure.value.by_seconds) == (Late, 2.5)


def test_a_result_of_another_release_is_said_to_be_one(nodes: ManualNodes) -> None:
    (failure,) = answered(nodes, nodes.client.service(Bank).deposit("ann"), "five")
    assert type(failure.value) is CommandFailed
    wanted = "applied, but Bank.deposit returned what its annotation does not say: Expected `bool | int`, got `str`"
    assert str(failure.value) == wanted


def query_sent(nodes: ManualNodes) -> Read:
    """The query that a client has sent."""
    (read,) = [message for message in nodes.accept().said() if isinstance(message, Read)]
    return read


def test_a_query_and_how_fresh_its_answer_must_be(nodes: ManualNodes) -> None:
    outcome_of(nodes.client.service(Bank, consistency="local").of_all(above=3))
    read = query_sent(nodes)
    assert (msgspec.msgpack.decode(read.query), read.local) == (["Bank.of_all", 3], True)
    nodes.client.close()


def test_the_deadline_counts_for_each_call(nodes: ManualNodes) -> None:
    bank = nodes.client.service(Bank, deadline_seconds=2.0)
    nodes.reactor.spend(5.0)
    outcome: Any = outcome_of(bank.deposit("ann"))
    nodes.reactor.spend(1.9)
    assert outcome == []
    nodes.reactor.spend(0.2)
    assert type(outcome[0].value) is NotChosen


def test_a_call_can_be_cancelled(nodes: ManualNodes) -> None:
    deferred = nodes.client.service(Bank).deposit("ann")
    outcome: Any = outcome_of(deferred)
    deferred.cancel()
    (failure,) = outcome
    assert type(failure.value) is CancelledError


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"deadline_seconds": 0}, ValueError),
        ({"deadline_seconds": "5"}, TypeError),
        ({"consistency": "fresh"}, ValueError),
        ({"name": "a b"}, ConfigError),
    ],
)
def test_wrong_options(nodes: ManualNodes, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        nodes.client.service(Bank, **options)


def test_only_services_can_be_called(nodes: ManualNodes) -> None:
    wrong: Any
    for wrong in (Service, int, Bank()):
        with pytest.raises(ConfigError, match=r"txpaxos\.Service"):
            nodes.client.service(wrong)


def test_a_name_that_is_no_method_is_told(nodes: ManualNodes) -> None:
    bank: Any = nodes.client.service(Bank)
    with pytest.raises(AttributeError, match="no command or query 'withdraw': it has deposit, fail, balance, of_all"):
        bank.withdraw("ann")
    with pytest.raises(AttributeError, match="'balances': balances is its state, which is on the nodes: write a query"):
        _ = bank.balances
    with pytest.raises(AttributeError, match="nothing can be set here: 'balances'"):
        bank.balances = {}
    assert repr(bank) == "<service Bank (test.service.services:Bank)>"
