"""attrs classes to bytes and back: one kind byte, then the fields as MessagePack.

msgspec decodes strictly by type, but a union may hold only one attrs class, so each class has a kind number and a
decoder of its own. Numbers are never used again for something else: they stand on disks and in other versions' wires.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Generic, TypeAlias, TypeVar, cast, get_type_hints

import attrs
import msgspec

T = TypeVar("T")


Decode: TypeAlias = Callable[[bytes | memoryview], Any]


class Packing(Generic[T]):
    """The kinds of one family of attrs classes.

    :param kinds: number (1 to 255) to class.
    :param decoders: of some of these, what decodes them in place of msgspec alone. May raise what msgspec may.
    """

    def __init__(self, kinds: Mapping[int, type[T]], decoders: Mapping[type[Any], Decode] | None = None) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._kinds: dict[type[Any], int] = {cls: kind for kind, cls in kinds.items()}
        own = decoders or {}
        self._decoders: dict[int, Decode] = {
            kind: own.get(cls) or msgspec.msgpack.Decoder(cls).decode for kind, cls in kinds.items()
        }

    def pack(self, item: T) -> tuple[int, bytes]:
        """The kind number of ``item`` and its body.

        :raises KeyError: if its class is not of this family.
        :raises OverflowError: if it holds an integer of 2**64 or more.
        """
        return self._kinds[type(item)], self._encode(item)

    def unpack(self, kind: int, body: bytes | memoryview) -> T:
        """The item that :meth:`pack` was given.

        :raises ValueError: if there is no such kind or the body is not exactly one of it.
        """
        decode = self._decoders.get(kind)
        if decode is None:
            raise ValueError(f"unknown kind {kind}")
        try:
            return cast(T, decode(body))
        except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"kind {kind}: {error}") from None


def limited(cls: type[T], **lengths_max: int) -> Callable[[bytes | memoryview], T]:
    """A decoder of ``cls`` that refuses longer arrays in these fields than that, before it looks at what is in them.

    ``cls`` cannot say so itself if it must not know msgspec."""
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
