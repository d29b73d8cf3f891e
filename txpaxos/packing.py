"""attrs classes to bytes and back: one kind byte, then the fields as MessagePack.

msgspec decodes strictly by type, but a union may hold only one attrs class, so each class has a kind number and a
decoder of its own. Numbers are never used again for something else: they stand on disks and in other versions' wires.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


class Packing(Generic[T]):
    """The kinds of one family of attrs classes.

    :param kinds: number (1 to 255) to class.
    """

    def __init__(self, kinds: Mapping[int, type[T]]) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._kinds: dict[type[Any], int] = {cls: kind for kind, cls in kinds.items()}
        self._decoders = {kind: msgspec.msgpack.Decoder(cls).decode for kind, cls in kinds.items()}

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
            return decode(body)
        except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"kind {kind}: {error}") from None
