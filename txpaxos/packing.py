"""attrs classes to bytes and back: one kind byte, then the fields as MessagePack.

msgspec decodes strictly by type, but a union may hold only one attrs class. So each class has a kind number and a
decoder of its own. A number is never used again for another class, since disks and other releases have it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Generic, TypeAlias, TypeVar, cast, get_type_hints

import attrs
import msgspec

T = TypeVar("T")

Decode: TypeAlias = Callable[[bytes | memoryview], Any]
"""A function that decodes the body of one kind."""


class Packing(Generic[T]):
    """Packs and unpacks the attrs classes of one family.

    :param kinds: the class of each kind number (1 to 255).
    :param decoders: decoders for some of the classes, in place of msgspec's own. They may raise what msgspec raises.
    """

    def __init__(self, kinds: Mapping[int, type[T]], decoders: Mapping[type[Any], Decode] | None = None) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._kinds: dict[type[Any], int] = {cls: kind for kind, cls in kinds.items()}
        own = decoders or {}
        self._decoders: dict[int, Decode] = {
            kind: own.get(cls) or msgspec.msgpack.Decoder(cls).decode for kind, cls in kinds.items()
        }

    def pack(self, item: T) -> tuple[int, bytes]:
        """The kind number and the body of ``item``.

        :raises KeyError: if its class is not of this family.
        :raises OverflowError: if it holds an integer of 2**64 or more.
        """
        return self._kinds[type(item)], self._encode(item)

    def kind_of(self, item: T) -> int:
        """The kind number of ``item``.

        :raises KeyError: if its class is not of this family.
        """
        return self._kinds[type(item)]

    def unpack(self, kind: int, body: bytes | memoryview) -> T:
        """The item of ``kind`` that :meth:`pack` was given.

        :raises ValueError: if there is no such kind, or the body is not exactly one item of it.
        """
        decode = self._decoders.get(kind)
        if decode is None:
            raise ValueError(f"unknown kind {kind}")
        try:
            return cast(T, decode(body))
        except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"kind {kind}: {error}") from None


def limited(cls: type[T], **lengths_max: int) -> Callable[[bytes | memoryview], T]:
    """A decoder of ``cls`` that limits the length of arrays. A longer array is refused before its items are decoded.

    The limits are given here because classes of the core do not import msgspec, and so cannot declare them.

    :param lengths_max: the longest array by field name.
    :raises msgspec.MsgspecError: (the decoder) if the body is not an item of ``cls``, or an array is too long."""
    hints = get_type_hints(cls, include_extras=True)
    fields: dict[str, Any] = {}
    for field in attrs.fields(cls):  # type: ignore[arg-type]  # attrs has no name for the type of its classes.
        kind = hints[field.name]
        if field.name in lengths_max:
            kind = Annotated[kind, msgspec.Meta(max_length=lengths_max[field.name])]
        fields[field.name] = attrs.field(type=kind, default=field.default)
    decode: Decode = msgspec.msgpack.Decoder(attrs.make_class(cls.__name__, fields)).decode

    def decoder(body: bytes | memoryview) -> T:
        twin = decode(body)
        return cls(**{name: getattr(twin, name) for name in fields})

    return decoder
