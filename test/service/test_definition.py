"""A mistake in the class of a service is found before its node starts, and one line says what to do."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import attrs
import msgspec
import pytest

from test.service.services import Bank, Everything, Refused
from txpaxos import ConfigError, Service, ServiceError, command, query, state
from txpaxos.service.definition import definition_of


class Opaque:
    """No type of MessagePack."""


class NoHint(Service):
    @command
    def do(self, a) -> None:  # type: ignore[no-untyped-def]
        pass


class NoResult(Service):
    @command
    def do(self, a: int):  # type: ignore[no-untyped-def]
        pass


class ManyArguments(Service):
    @command
    def do(self, *numbers: int) -> None:
        pass


class AnyNames(Service):
    @query  # type: ignore[arg-type]
    def do(self, **numbers: int) -> None:
        pass


class OddParameter(Service):
    @command
    def do(self, a: Opaque) -> None:
        pass


class OddResult(Service):
    @command
    def do(self) -> dict[str, Opaque]:
        return {}


class RawResult(Service):
    @command
    def do(self) -> msgspec.Raw:
        return msgspec.Raw()


class LostName(Service):
    @command
    def do(self, a: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
        pass


class WrongDefault(Service):
    @command
    def do(self, a: int = "5") -> None:  # type: ignore[assignment]
        pass


class MutableDefault(Service):
    @command
    def do(self, a: list[int] = [1]) -> None:  # noqa: B006
        pass


class DefaultFirst(Service):
    @command
    def do(self, a: int = 1, *, b: int) -> None:
        pass


class OpenError(ServiceError):
    def __init__(self, *parts: str) -> None:
        super().__init__(*parts)


class OpenRaises(Service):
    @command(raises=OpenError)
    def do(self) -> None:
        pass


class OtherRefused(ServiceError):
    pass


OtherRefused.__name__ = "Refused"


class TwoErrors(Service):
    @command(raises=(Refused, OtherRefused))
    def do(self) -> None:
        pass


class Undecorated(Bank):
    def deposit(self, account: str, amount: int = 1) -> int:
        return 0


class StateWithoutHint(Service):
    total = state(int)


class AnyState(Service):
    things: dict[str, Any] = state(dict)


class BareState(Service):
    things: dict = state(dict)  # type: ignore[type-arg]


class OpaqueState(Service):
    things: dict[str, Opaque] = state(dict)


class WrongFirst(Service):
    total: int = state(str)  # type: ignore[assignment]


class DefaultDict(Service):
    totals: dict[str, int] = state(lambda: defaultdict(int))


class TupleForList(Service):
    totals: list[int] = state(tuple)  # type: ignore[arg-type]


class TwoTypes(Service):
    either: Left | Right = state(lambda: Left(1))


@attrs.frozen
class Left:
    a: int


@attrs.frozen
class Right:
    a: int


CASES: list[tuple[Any, str]] = [
    (NoHint, "NoHint.do does not say of what type a is: annotate it, as in a: int"),
    (NoResult, "NoResult.do does not say what it returns: annotate it, as in -> int, or -> None"),
    (ManyArguments, "ManyArguments.do takes *numbers: write each parameter, or one that is a list"),
    (AnyNames, "AnyNames.do takes *numbers: "),
    (OddParameter, "OddParameter.do: a cannot be sent: Opaque is no type that MessagePack knows: write an attrs class"),
    (OddResult, "OddResult.do returns what cannot be sent: Opaque is no type"),
    (RawResult, "RawResult.do returns what cannot be sent: msgspec's Ext and Raw are not for services: write bytes"),
    (LostName, "LostName.do: its annotations cannot be looked up: name 'Nowhere' is not defined"),
    (WrongDefault, "WrongDefault.do: its parameters or their defaults cannot be sent: Expected `int`, got `str`"),
    (MutableDefault, "MutableDefault.do: its parameters or their defaults cannot be sent: "),
    (
        DefaultFirst,
        "DefaultFirst.do: its parameters or their defaults cannot be sent: Required field 'b' cannot follow",
    ),
    (OpenRaises, "OpenError takes *parts: "),
    (TwoErrors, "TwoErrors.do raises two classes of the same name"),
    (Undecorated, "Undecorated.deposit stands for a command or query of a base class and is none: decorate it, too"),
    (StateWithoutHint, "StateWithoutHint.total does not say of what type it is: annotate it"),
    (AnyState, "AnyState.things cannot be in a snapshot: Any may hold a tuple or a set"),
    (BareState, "BareState.things cannot be in a snapshot: Any may hold a tuple or a set"),
    (OpaqueState, "OpaqueState.things cannot be in a snapshot: Opaque is no type"),
    (WrongFirst, "WrongFirst.total begins as '', which is not what its annotation says: "),
    (
        DefaultDict,
        "DefaultDict.totals begins as defaultdict(<class 'int'>, {}), which is not what its annotation says: ",
    ),
    (TupleForList, "TupleForList.totals begins as (), which is not what its annotation says: it comes back as []"),
    (TwoTypes, "TwoTypes.either cannot be in a snapshot: "),
    (Service, "txpaxos.Service itself has no methods: write a subclass"),
    (Opaque, "<class 'test.service.test_definition.Opaque'> is no subclass of txpaxos.Service"),
]


@pytest.mark.parametrize(("kind", "line"), CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_a_mistake_is_one_line(kind: Any, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        definition_of(kind)
    assert str(caught.value).startswith(line), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a.b", "5", 5, b"Bank"])
def test_the_name_of_a_service_is_a_name(name: Any) -> None:
    with pytest.raises(ConfigError, match="is no name for a service: it must be a name of Python"):
        definition_of(Bank, name)


def test_what_a_class_declares() -> None:
    bank = definition_of(Bank)
    assert (bank.name, [*bank.commands], [*bank.queries]) == ("Bank", ["deposit", "fail"], ["balance", "of_all"])
    assert [*bank.commands["fail"].errors] == ["Refused", "NotEnough", "Late"]
    assert bank.commands["deposit"].call.tag == "Bank.deposit"
    assert definition_of(Bank, "savings").commands["deposit"].call.tag == "savings.deposit"
    assert definition_of(Bank) is bank


def test_each_type_of_state_may_be_declared() -> None:
    assert [*definition_of(Everything).state] == [*Everything.__slots__]


def test_a_subclass_has_the_methods_of_its_base_class_and_may_replace_them() -> None:
    class More(Bank):
        @command
        def deposit(self, account: str, amount: int = 2) -> int:
            return super().deposit(account, amount) + 100

        @command
        def clear(self) -> None:
            self.balances.clear()

    more = definition_of(More)
    assert [*more.commands] == ["deposit", "fail", "clear"]
    assert more.commands["deposit"].call.parameters[1].default == 2
    assert More().deposit("ann") == 102
