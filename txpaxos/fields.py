"""An application's state as bytes, for applications whose state is a few attributes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from copy import copy
from typing import Any, get_type_hints

import attrs
import msgspec

_encode = msgspec.msgpack.Encoder().encode
LEAVES = frozenset({type(None), bool, int, float, str, bytes})


def dump_fields(owner: object, names: Sequence[str]) -> bytes:
    """The values of the attributes ``names``. Equal states give equal bytes on every node: a set is sorted. The order
    of a dictionary is a part of the state, since who goes through it sees it.

    :raises TypeError: if one holds what MessagePack cannot carry (:exc:`OverflowError`: an integer that is too big).
    """
    return _encode([without_sets(getattr(owner, name)) for name in names])


def load_fields(owner: object, names: Sequence[str], data: bytes) -> None:
    """Set the attributes ``names`` to what :func:`dump_fields` told. Annotations of the class say of which types.

    :raises msgspec.MsgspecError: if ``data`` does not hold such values. Nothing is set then.
    """
    hints: dict[str, Any] = get_type_hints(type(owner))
    types = tuple(hints.get(name, Any) for name in names)
    values = msgspec.msgpack.decode(data, type=tuple[types])  # type: ignore[valid-type]
    for name, value in zip(names, values, strict=True):
        setattr(owner, name, value)


def without_sets(value: Any) -> Any:
    """``value``, with a sorted list for each set in it: MessagePack knows no sets, and their order differs from process
    to process."""
    kind = type(value)
    if kind in LEAVES:
        return value
    if isinstance(value, dict):
        return {key: without_sets(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_sets(one) for one in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(without_sets, value), key=_encode)
    if attrs.has(kind):
        return {field.name: without_sets(getattr(value, field.name)) for field in attrs.fields(kind)}
    if dataclasses.is_dataclass(kind):
        return {field.name: without_sets(getattr(value, field.name)) for field in dataclasses.fields(kind)}
    if isinstance(value, msgspec.Struct):
        sorted_too = copy(value)
        for name in kind.__struct_fields__:
            msgspec.structs.force_setattr(sorted_too, name, without_sets(getattr(value, name)))
        return sorted_too
    return value
