"""Values of a program's own type, as the bytes that recipes keep: encoded and checked at the door."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, is_typeddict

import msgspec

from txpaxos.errors import PaxosError
from txpaxos.service.annotations import check_value_type

T = TypeVar("T")

_UNUSABLE = (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError)


class WrongValue(PaxosError):
    """What is kept is no value of the type that this program has for it. Another program, or another release of this
    one, has put it there."""


class Values(Generic[T]):
    """Encodes and decodes the values of one type.

    :param kind: an attrs class, a dataclass, a type of Python as ``str`` and ``dict[str, int]``, or all else that
        msgspec knows.
    :param where: what the values are in, for the text of errors.
    :raises TypeError: if values of this type cannot be sent.
    """

    def __init__(self, kind: type[T], where: str) -> None:
        try:
            check_value_type(kind)
        except TypeError as error:
            raise TypeError(f"{where} cannot have values of {_name_of(kind)}: {error}") from None
        self.kind = kind
        self._where = where
        # To Python an int is no float, and to type checkers it is. A TypedDict and Any are no classes of anything.
        others: tuple[Any, ...] = (float, Any)
        self._is_class = isinstance(kind, type) and kind not in others and not is_typeddict(kind)
        # Equal values must be equal bytes, also those with sets and dictionaries.
        self._encode = msgspec.msgpack.Encoder(order="deterministic").encode
        self._decode: Any = msgspec.msgpack.Decoder(kind).decode

    def encoded(self, value: T) -> bytes:
        """The bytes of a value, as the declared type has it: the same for equal values.

        :raises TypeError: if it is none of this type. Nothing was sent.
        """
        try:
            self._check_class(value)
            # What was decoded is encoded: to a field that is a float, an int is the same number in other bytes.
            data: bytes = self._encode(self._decode(self._encode(value)))
        except _UNUSABLE as error:
            reason = " ".join(str(error).split())
            raise TypeError(
                f"{self._where} has values of {_name_of(self.kind)}, not {value!r:.100}: {reason}"
            ) from None
        return data

    def decoded(self, data: bytes) -> T:
        """The value of these bytes.

        :raises WrongValue: if they are none of this type.
        """
        try:
            value: T = self._decode(data)
        except _UNUSABLE as error:
            reason = " ".join(str(error).split())
            raise WrongValue(f"{self._where} has what is no {_name_of(self.kind)}: {reason}") from None
        return value

    def _check_class(self, value: T) -> None:
        """A dictionary may have the bytes of an attrs class, and is none."""
        if self._is_class and not isinstance(value, self.kind):
            raise TypeError(f"it is of the type {type(value).__name__}")


def _name_of(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)
