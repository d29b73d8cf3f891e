"""The bytes of calls, results and errors."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from test.service.services import Bank, Colour, Everything, Late, NotEnough, Point, Refused
from txpaxos import encode_call
from txpaxos.errors import ConfigError
from txpaxos.service.application import application_of
from txpaxos.service.calls import ResultReader, WrongResult, call_with, decoder_of, encoder_of, plain
from txpaxos.service.definition import ERROR_CODE, definition_of

BANK, EVERYTHING = definition_of(Bank), definition_of(Everything)

INTEGERS = st.integers(-(2**63), 2**64 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
POINTS = st.builds(Point, INTEGERS, st.frozensets(TEXTS, max_size=3))


def arguments_of(data: bytes) -> Any:
    """What the method ``take`` is called with."""
    take = EVERYTHING.commands["take"].call
    return call_with(take, lambda *args, **kwargs: (args, kwargs))(decoder_of([take.shape])(data))


@given(
    POINTS,
    st.integers(0, 2**64 - 1),
    st.lists(st.floats(allow_nan=False)),
    st.sampled_from(Colour),
    st.none() | TEXTS,
)
def test_a_call_comes_in_as_it_was_made(a: Point, b: int, c: list[float], colour: Colour, d: str | None) -> None:
    data = encode_call(Everything, Everything.take, a, b, c, colour=colour, d=d)
    assert arguments_of(data) == ((a, b, c), {"colour": colour, "d": d})
    assert encode_call(Everything, Everything.take, b=b, a=a, d=d, c=c, colour=colour) == data


@given(INTEGERS, TEXTS)
def test_plain_arguments_make_the_bytes_that_a_hand_would_make(amount: int, account: str) -> None:
    wanted = msgspec.msgpack.encode(["Bank.deposit", account, amount])
    assert encode_call(Bank, Bank.deposit, account, amount) == wanted
    assert encode_call(Bank, Bank.deposit, amount=amount, account=account) == wanted


def test_the_caller_writes_the_defaults() -> None:
    """So a call in the log keeps its meaning."""
    assert msgspec.msgpack.decode(encode_call(Bank, Bank.deposit, "ann")) == ["Bank.deposit", "ann", 1]
    assert arguments_of(encode_call(Everything, Everything.take, Point(1))) == (
        (Point(1), 1, []),
        {"colour": Colour.RED, "d": None},
    )


def test_a_call_of_before_gets_the_defaults_of_parameters_that_it_does_not_have() -> None:
    call = definition_of(Bank).commands["deposit"].call
    assert arguments_of(msgspec.msgpack.encode(["Everything.take", {"x": 1, "tags": []}]))[0] == (Point(1), 1, [])
    assert call_with(call, lambda *args: args)(
        decoder_of([call.shape])(msgspec.msgpack.encode(["Bank.deposit", "a"]))
    ) == (
        "a",
        1,
    )


WRONG: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("deposit", (), {}, "Bank.deposit() missing 1 required positional argument: 'account'"),
    ("deposit", ("a", 1, 2), {}, "Bank.deposit() takes from 1 to 2 positional arguments but 3 were given"),
    ("deposit", ("a",), {"account": "b"}, "Bank.deposit() got multiple values for argument 'account'"),
    ("deposit", ("a",), {"cash": 5}, "Bank.deposit() got an unexpected keyword argument 'cash'"),
    ("deposit", (b"a",), {}, "Bank.deposit(): account: Expected `str`, got `bytes`"),
    ("deposit", ("a", "5"), {}, "Bank.deposit(): amount: Expected `int`, got `str`"),
    ("deposit", ("a", 2.0), {}, "Bank.deposit(): amount: Expected `int`, got `float`"),
    ("deposit", ("a", True), {}, "Bank.deposit(): amount: Expected `int`, got `bool`"),
    ("deposit", ("a", None), {}, "Bank.deposit(): amount: Expected `int`, got `None`"),
    ("deposit", ("a", 2**64), {}, "Bank.deposit(): "),
    ("deposit", ("\ud800", 1), {}, "Bank.deposit(): 'utf-8' codec can't encode character"),
    ("deposit", (object(), 1), {}, "Bank.deposit(): Encoding objects of type object is unsupported"),
    ("take", (Point(1), -1), {}, "Everything.take(): b: Expected `int` >= 0"),
    ("take", (Point("x"),), {}, "Everything.take(): a.x: Expected `int`, got `str`"),  # type: ignore[arg-type]
    ("take", (Point(1), 1, [1.0, "2"]), {}, "Everything.take(): c[1]: Expected `float`, got `str`"),
    ("take", (Point(1),), {"colour": "green"}, "Everything.take(): colour: Invalid enum value 'green'"),
    ("take", (Point(1), 1, [], Colour.RED), {}, "Everything.take() takes from 1 to 3 positional arguments but 4 were"),
]


@pytest.mark.parametrize(("name", "args", "kwargs", "line"), WRONG)
def test_a_wrong_call_is_a_type_error(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], line: str) -> None:
    definition = BANK if name == "deposit" else EVERYTHING
    with pytest.raises(TypeError, match="^" + re.escape(line)) as caught:
        encoder_of(definition.commands[name].call)(*args, **kwargs)
    assert "\n" not in str(caught.value)


def test_arguments_that_contain_themselves_are_a_type_error() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(TypeError):
        encoder_of(EVERYTHING.commands["take"].call)(Point(1), 1, circle)


def test_only_methods_can_be_encoded() -> None:
    with pytest.raises(ConfigError, match="take is no command or query of Bank"):
        encode_call(Bank, Everything.take, Point(1))


def test_parameters_may_have_any_name() -> None:
    from txpaxos import Service, command

    class Names(Service):
        @command
        def do(self, type: str, encode: int, checked: bool = False) -> None:
            pass

    data = encoder_of(definition_of(Names).commands["do"].call)("a", encode=1)
    assert msgspec.msgpack.decode(data) == ["Names.do", "a", 1, False]


# ------------------------------------------------------------------ results


def carried(result: object) -> Any:
    """A result as a client has it from the network."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(result))


def raised_by(kind: str) -> Any:
    bank = application_of(Bank)()
    return carried(bank.apply(1, encode_call(Bank, Bank.fail, kind)))


def test_errors_arrive_as_what_they_are() -> None:
    read = ResultReader(BANK.commands["fail"])
    with pytest.raises(Refused) as refused:
        read(raised_by("refused"))
    assert (type(refused.value), refused.value.args) == (Refused, ("no",))
    with pytest.raises(NotEnough) as missing:
        read(raised_by("not enough"))
    assert (missing.value.account, missing.value.missing) == ("ann", 5)
    with pytest.raises(Late) as late:
        read(raised_by("late"))
    assert (late.value.by_seconds, late.value.words, str(late.value)) == (2.5, ("a", "b"), "2.5 too late")
    assert read(raised_by("nothing")) is None


@given(TEXTS, INTEGERS)
def test_an_error_comes_with_what_it_was_made_with(account: str, missing: int) -> None:
    error = NotEnough(account, missing)
    data = encoder_of(BANK.commands["fail"].errors["NotEnough"].call)(account, missing=missing)
    with pytest.raises(NotEnough) as caught:
        ResultReader(BANK.commands["fail"])(carried(msgspec.msgpack.Ext(ERROR_CODE, data)))
    assert (caught.value.account, caught.value.missing) == (error.account, error.missing)


@pytest.mark.parametrize("data", [b"", b"\xc1", msgspec.msgpack.encode(["Unknown", 1]), b"\x91\xa7Refused\x05"])
def test_an_error_that_is_not_known_is_a_wrong_result(data: bytes) -> None:
    with pytest.raises(WrongResult, match=r"Bank\.fail raised what it does not name in raises"):
        ResultReader(BANK.commands["fail"])(msgspec.msgpack.Ext(ERROR_CODE, data))
    with pytest.raises(
        WrongResult, match=r"Bank\.deposit raised what it does not name in raises: there is nothing to call"
    ):
        ResultReader(BANK.commands["deposit"])(msgspec.msgpack.Ext(ERROR_CODE, data))


@given(POINTS, st.integers(0, 2**64 - 1), st.sampled_from(Colour))
def test_a_result_is_what_the_annotation_says(point: Point, number: int, colour: Colour) -> None:
    everything = application_of(Everything)()
    result = everything.apply(1, encode_call(Everything, Everything.take, point, number, colour=colour))
    again = ResultReader(EVERYTHING.commands["take"])(plain(result))
    assert again == (point, colour, number)
    assert type(again[2]) is int


@pytest.mark.parametrize("result", ["5", None, 2.5, [5]])
def test_a_result_of_another_type_is_wrong(result: object) -> None:
    with pytest.raises(WrongResult, match=r"Bank\.deposit returned what its annotation does not say: Expected `"):
        ResultReader(BANK.commands["deposit"])(result)
