"""The bytes of calls, results and errors: made and checked where they are made, and read where they come in.

===============  =====================================================================================================
what             its MessagePack
===============  =====================================================================================================
a call           an array: ``"Bank.transfer"``, and the arguments in the order of the parameters
a result         what the method returned
an error         an extension of type 0x65, which holds an array: the name of the class, and what it was made with
===============  =====================================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import reduce
from operator import or_
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
from msgspec.structs import astuple

from txpaxos.fields import LEAVES, without_sets
from txpaxos.service.annotations import as_kept
from txpaxos.service.declaration import ServiceError
from txpaxos.service.definition import ERROR_CODE, Call, ErrorDefinition, MethodDefinition

UNUSABLE = (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError)
"""What encoding a value raises that cannot be sent, and decoding one that does not fit."""

FAILED_CODE = 0x66
"""The type of the MessagePack extension that holds the name of an error that a kept query has raised by mistake."""

_encode = msgspec.msgpack.Encoder().encode
_OURS = "_txpaxos_"
"""The beginning of names that no parameter has."""
_AT_ARGUMENT = re.compile(r" - at `\$\[(\d+)\](.*)`$")


def encoder_of(call: Call) -> Callable[..., bytes]:
    """A function that makes the bytes of a call of its arguments. It has the parameters of the method.

    What it makes is decoded again, as every node will do, so that a call that a node would refuse is not sent: the
    function raises TypeError for one. Arguments whose types are plain, and just what the annotations say, need not be
    decoded to know that.
    """
    shape, decode = call.shape, msgspec.msgpack.Decoder(call.shape).decode

    def checked(*values: Any) -> bytes:
        try:
            data = _encode(shape(*values))
            decode(data)
        except UNUSABLE as error:
            raise TypeError(_what_is_wrong(call, error)) from None
        return data

    names = {f"{_OURS}default_{one.name}": one.default for one in call.parameters}
    names |= {f"{_OURS}kinds_{one.name}": _plain_types(one.hint) for one in call.parameters}
    names |= {f"{_OURS}{name}": value for name, value in {"type": type, "encode": _encode, "checked": checked}.items()}
    exec(_source_of_encoder(call), names)
    encode: Callable[..., bytes] = names["encode"]
    encode.__qualname__ = call.tag
    return encode


def _source_of_encoder(call: Call) -> str:
    """The source of a function with the parameters of a method: Python itself checks their number and their names."""
    parameters: list[str] = []
    for one in call.parameters:
        if one.by_name_only and "*" not in parameters:
            parameters.append("*")
        parameters.append(f"{one.name}={_OURS}default_{one.name}" if one.has_default else one.name)
    values = "".join(f", {one.name}" for one in call.parameters)
    checked = f"return {_OURS}checked({values[2:]})"
    lines = [f"def encode({', '.join(parameters)}):"]
    if all(_plain_types(one.hint) for one in call.parameters):
        conditions = [f"{_OURS}type({one.name}) in {_OURS}kinds_{one.name}" for one in call.parameters]
        lines += [f"    if {' and '.join(conditions) or 'True'}:"]
        lines += ["        try:", f"            return {_OURS}encode(({call.tag!r}{values},))"]
        lines += ["        except (OverflowError, ValueError):", f"            {checked}"]
    return "\n".join([*lines, f"    {checked}"])


def _plain_types(hint: Any) -> tuple[type, ...]:
    """The types of values for which nothing needs to be decoded to know that they fit; none if there may be others."""
    hints = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    types = tuple(type(None) if one is None else one for one in hints)
    return types if all(isinstance(one, type) and one in LEAVES for one in types) else ()


def decoder_of(shapes: list[type[msgspec.Struct]]) -> Callable[[bytes], Any]:
    """A function that decodes calls of these shapes, and raises one of :data:`UNUSABLE` for all other bytes."""
    if not shapes:
        return _decode_none
    return msgspec.msgpack.Decoder(reduce(or_, shapes)).decode


def _decode_none(data: bytes) -> Any:
    raise ValueError("there is nothing to call")


class WrongResult(Exception):
    """A result that is not what the method says. So the node runs another release of the service."""


def error_as_result(error: ServiceError, errors: Mapping[str, ErrorDefinition]) -> msgspec.msgpack.Ext:
    """What stands in place of a result when a method has raised ``error`` on purpose.

    :raises ServiceError: that error itself, if the method does not name its class in ``raises``.
    :raises TypeError: if it was made with what its class does not say.
    """
    definition = errors.get(type(error).__name__)
    if definition is None or definition.kind is not type(error):
        raise error
    args, kwargs = error.__dict__["_made_with"]
    return msgspec.msgpack.Ext(ERROR_CODE, encoder_of(definition.call)(*args, **kwargs))


class ResultReader:
    """Reads results of one method: turns what MessagePack carried into what the method returned or raised.

    :param method: the method.
    :ivar plain: a result of one of these types is what the method returned, and need not be read.
    """

    def __init__(self, method: MethodDefinition) -> None:
        self._tag = method.call.tag
        self._kept = as_kept(method.returns)
        self.plain = _plain_types(method.returns)
        self._errors = method.errors
        self._decode_error = decoder_of([error.call.shape for error in method.errors.values()])

    def __call__(self, result: Any) -> Any:
        """What the method returned.

        :raises ServiceError: what it raised on purpose.
        :raises WrongResult: if the result is not what the method says.
        """
        if isinstance(result, msgspec.msgpack.Ext):
            raise self._error(result)
        try:
            return msgspec.convert(result, self._kept)
        except UNUSABLE as error:
            raise WrongResult(f"{self._tag} returned what its annotation does not say: {error}") from None

    def _error(self, result: msgspec.msgpack.Ext) -> Exception:
        try:
            call = self._decode_error(bytes(result.data))
        except UNUSABLE as error:
            return WrongResult(f"{self._tag} raised what it does not name in raises: {error}")
        definition = self._errors[call.__struct_config__.tag]
        return call_with(definition.call, definition.kind)(call)  # type: ignore[no-any-return]


def call_with(call: Call, function: Callable[..., Any]) -> Callable[[Any], Any]:
    """A function that calls ``function`` with the arguments of a decoded call."""
    positional_max = call.positional_max
    if positional_max == len(call.parameters):
        return lambda decoded: function(*astuple(decoded))
    names = [parameter.name for parameter in call.parameters[positional_max:]]

    def with_names(decoded: Any) -> Any:
        values = astuple(decoded)
        return function(*values[:positional_max], **dict(zip(names, values[positional_max:], strict=True)))

    return with_names


def plain(value: object) -> Any:
    """A value as it is after it was sent: without its classes, and sharing nothing with the value itself."""
    return value if type(value) in LEAVES else msgspec.msgpack.decode(_encode(without_sets(value)))


def _what_is_wrong(call: Call, error: BaseException) -> str:
    """One line on arguments that cannot be sent, with the name of the parameter."""
    reason = " ".join(str(error).split()) or type(error).__name__
    found = _AT_ARGUMENT.search(reason)
    if found is not None:
        number, rest = int(found[1]) - 1, found[2]
        return f"{call.tag}(): {call.parameters[number].name}{rest}: {reason[: found.start()]}"
    return f"{call.tag}(): {reason}"
