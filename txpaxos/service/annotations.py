"""What a service must know of the types in its annotations: whether values of them can be kept, and how.

A value is kept as MessagePack, by msgspec, and comes back in the type of its annotation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import reduce
from operator import or_
from types import UnionType
from typing import Any, Union, get_args, get_origin

import attrs
from msgspec import inspect

COLLECTIONS = (list, tuple, set, frozenset, dict)
_WIDER: dict[Any, tuple[Any, ...]] = {int: (bool, int), float: (bool, int, float)}


def check_value_type(hint: Any) -> None:
    """Check that values of a type can be sent.

    :raises TypeError: if they cannot; the text says why.
    """
    for info in _parts_of(_info(hint)):
        match info:
            case inspect.CustomType(cls):
                raise TypeError(f"{cls.__name__} is no type that MessagePack knows: write an attrs class")
            case inspect.ExtType() | inspect.RawType():
                raise TypeError("msgspec's Ext and Raw are not for services: write bytes")


def check_state_type(hint: Any) -> None:
    """Check that a value of a type comes back from a snapshot as it was.

    :raises TypeError: if it need not; the text says why.
    """
    check_value_type(hint)
    if any(isinstance(info, inspect.AnyType) for info in _parts_of(_info(hint))):
        raise TypeError("Any may hold a tuple or a set, which would come back as a list: write the type")


def has_sets(hint: Any) -> bool:
    """Whether there may be sets in a value of a type, whose order differs from process to process."""
    return any(isinstance(info, inspect.SetType | inspect.FrozenSetType) for info in _parts_of(_info(hint)))


def never_changes(hint: Any) -> bool:
    """Whether a value of a type can never be changed. Then it can be saved later, while commands are applied."""
    return all(map(_is_frozen, _parts_of(_info(hint))))


def as_kept(hint: Any) -> Any:
    """The type by which a value of the type ``hint`` is decoded.

    To Python, a bool is an int, and to type checkers an int is a float, too. So a value of a type may be of another
    one. It comes back as it was: otherwise a node that starts from a snapshot would not have what the others have.
    """
    while hasattr(hint, "__supertype__"):  # A NewType.
        hint = hint.__supertype__
    if isinstance(hint, type) and hint in _WIDER:
        return reduce(or_, _WIDER[hint])
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return reduce(or_, map(as_kept, arguments))
    if origin in COLLECTIONS and arguments:
        return origin[tuple(one if one is Ellipsis else as_kept(one) for one in arguments)]
    return hint


def _info(hint: Any) -> inspect.Type:
    try:
        return inspect.type_info(hint)
    except NameError as error:
        raise TypeError(f"an annotation in {hint} cannot be looked up: {error}") from None


def _parts_of(info: inspect.Type, seen: set[Any] | None = None) -> Iterator[inspect.Type]:
    """A type and all types in it. A class that is in itself comes once."""
    seen = set() if seen is None else seen
    kind = getattr(info, "cls", None)
    if kind is not None:
        if kind in seen:
            return
        seen.add(kind)
    yield info
    for part in parts_of_type(info):
        yield from _parts_of(part, seen)


def parts_of_type(info: inspect.Type) -> list[inspect.Type]:
    """The types that a type is directly made of."""
    match info:
        case inspect.UnionType(types) | inspect.TupleType(types):
            return list(types)
        case inspect.DictType(key_type, value_type):
            return [key_type, value_type]
        case inspect.CollectionType(item_type):
            return [item_type]
        case inspect.Metadata(inner):
            return [inner]
    return [field.type for field in fields_of_type(info)]


def fields_of_type(info: inspect.Type) -> tuple[inspect.Field, ...]:
    """The fields of a class; none of another type."""
    fields: tuple[inspect.Field, ...] = getattr(info, "fields", ())
    return fields


def _is_frozen(info: inspect.Type) -> bool:
    """Whether a value of this type can be changed itself, leaving out what is in it."""
    match info:
        case inspect.DictType() | inspect.ListType() | inspect.SetType() | inspect.AnyType() | inspect.TypedDictType():
            return False
        case inspect.ByteArrayType() | inspect.MemoryViewType():
            return False
        case inspect.StructType(cls):
            return cls.__struct_config__.frozen
        case inspect.DataclassType(cls):
            if attrs.has(cls):
                # Attrs says it nowhere else in all of its releases.
                return getattr(cls.__setattr__, "__name__", "") == "_frozen_setattrs"
            return dataclasses.is_dataclass(cls) and bool(cls.__dataclass_params__.frozen)  # type: ignore[attr-defined]
    return True
