"""The class of a service: its objects need no node, and have no attributes but their state."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from test.helpers.fakes import Recorder
from test.service.services import Bank, Everything, Late, NotEnough, Refused
from txpaxos import Service, command, query, state
from txpaxos.service.declaration import fields_of


def test_a_method_is_the_function_that_was_written() -> None:
    bank = Bank()
    assert bank.deposit("ann", 5) == 5
    assert bank.deposit(account="ann") == 6
    assert bank.balance("ann") == 6
    with pytest.raises(Refused):
        bank.fail("refused")


def test_each_object_has_a_state_of_its_own() -> None:
    one, two = Bank(), Bank()
    one.deposit("ann", 5)
    assert (one.balances, two.balances) == ({"ann": 5}, {})


def test_an_attribute_that_is_no_state_cannot_be_set() -> None:
    bank: Any = Bank()
    with pytest.raises(AttributeError, match="'Bank' object has no attribute 'cash'"):
        bank.cash = 5


def test_a_base_class_that_lets_attributes_in_is_refused() -> None:
    class Mixin:
        pass

    with pytest.raises(TypeError, match=r"Leaky: Mixin has attributes that are no state; write __slots__ = \(\) in it"):

        class Leaky(Mixin, Service):
            pass


def test_a_base_class_without_attributes_is_not() -> None:
    class Mixin:
        __slots__ = ()

        def doubled(self) -> int:
            return 2 * self.total  # type: ignore[attr-defined,no-any-return]

    class Fine(Mixin, Service):
        total: int = state(lambda: 4)

    assert Fine().doubled() == 8


def test_a_subclass_has_the_state_of_its_base_class_first() -> None:
    class More(Bank):
        extra: int = state(lambda: 7)

    assert list(fields_of(More)) == ["balances", "extra"]
    more = More()
    assert (more.deposit("ann", 3), more.extra) == (3, 7)
    assert list(fields_of(Bank)) == ["balances"]


def test_a_subclass_may_begin_otherwise() -> None:
    class Rich(Bank):
        balances: dict[str, int] = state(lambda: {"bank": 100})

    assert Rich().balances == {"bank": 100}
    assert Bank().balances == {}


def test_an_init_of_its_own_needs_no_super() -> None:
    class Begun(Service):
        total: int = state(int)
        other: int = state(int)

        def __init__(self) -> None:
            self.total = 5

    assert (Begun().total, Begun().other) == (5, 0)


async def waits(self: Any) -> None:
    """A coroutine."""


def yields(self: Any) -> Any:
    yield 1


@pytest.mark.parametrize("decorate", [command, query])
@pytest.mark.parametrize(
    ("thing", "why"),
    [
        (waits, "waits is an async function: a (command|query) must be a plain one; "),
        (yields, "yields has a yield in it, so that its body would never run: return the result"),
        (5, "@(command|query) is for functions in a service, not for 5"),
        (staticmethod(print), "is for functions in a service"),
    ],
)
def test_what_cannot_be_a_method(decorate: Any, thing: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        decorate(thing)


@pytest.mark.parametrize("raises", [ValueError, (Refused, ValueError), "Refused", Refused("x")])
def test_only_errors_of_services_can_be_named(raises: Any) -> None:
    with pytest.raises(TypeError, match="which is no subclass of ServiceError"):
        command(raises=raises)


def test_state_wants_what_makes_it() -> None:
    with pytest.raises(TypeError, match=r"state\(\) wants what makes the first value, as state\(dict\), not \{\}"):
        state({})  # type: ignore[arg-type]


def test_a_method_is_a_command_or_a_query() -> None:
    def total(self: Any) -> int:
        return 0

    marked: Any = query(total)
    with pytest.raises(TypeError, match=r"total is a query and a command: a method is one of them$"):
        command(marked)
    marked = command(raises=NotEnough)(lambda self: 0)
    with pytest.raises(TypeError, match=r"is a command and a query: a method is one of them$"):
        query(topic="x")(marked)


TWICE = {
    "command": """
        class Twice(Service):
            total: int = state(int)
            @command
            def total(self) -> int: ...
    """,
    "query": """
        class Twice(Service):
            @query
            def total(self) -> int: ...
            total: int = state(int)
    """,
    "command over a base class": """
        class Twice(WithState):
            @command
            def total(self) -> int: ...
    """,
    "command of a base class": """
        class Twice(Below):
            total: int = state(int)
    """,
    "command of one of two": """
        class Twice(WithState, Below):
            pass
    """,
}


@pytest.mark.parametrize("what", TWICE)
def test_a_name_is_of_the_state_or_of_a_method(what: str) -> None:
    class WithState(Service):
        total: int = state(int)

    class WithMethod(Service):
        @command
        def total(self) -> int:
            return 0

    class Below(WithMethod):
        pass

    line = rf"^Twice\.total is a part of the state and a {what.split()[0]}: give one of them another name$"
    with pytest.raises(TypeError, match=line):
        exec(textwrap.dedent(TWICE[what]), {**globals(), **locals()})


def test_errors_are_ordinary_exceptions() -> None:
    assert str(Refused("no")) == "no"
    assert str(Refused()) == ""
    assert (NotEnough("ann", missing=5).missing, NotEnough("ann").missing) == (5, 0)
    late = Late(2.5, words=("a",))
    assert (str(late), late.words, isinstance(late, ValueError)) == ("2.5 too late", ("a",), True)


def test_names_of_the_machinery_are_free() -> None:
    """What an application on bytes calls its own, a service may call otherwise."""

    class Odd(Service):
        apply: int = state(int)
        query: int = state(int)
        stop: int = state(int)

        @command
        def submit(self, snapshot: int) -> int:
            self.apply = self.stop = snapshot
            return self.apply

    assert Odd().submit(5) == 5


def test_a_service_is_no_application() -> None:
    assert not issubclass(Everything, Recorder.__mro__[1])
