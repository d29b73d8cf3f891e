"""Converts attributes of an application to bytes and back, for an application whose state is a few attributes."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any, get_type_hints

import attrs
import msgspec

_encode = msgspec.msgpack.Encoder().encode
LEAVES = frozenset({type(None), bool, int, float, str, bytes})


def dump_fields(owner: object, names: Sequence[str]) -> bytes:
    """The values of the attributes ``names`` of ``owner``, as bytes.

    Equal states give equal bytes on every node, so sets are sorted, also in the keys of a dictionary. The order of a
    dictionary is kept: it is part of the state, since a program that iterates over the dictionary sees it.

    :raises TypeError: if a value cannot be encoded as MessagePack, or if a dictionary has a key that
        :func:`load_fields` could not restore.
    :raises OverflowError: if a value holds an integer of 2**64 or more.
    """
    odd_keys: list[Any] = []
    data = _encode([without_sets(getattr(owner, name), odd_keys) for name in names])
    if odd_keys:
        _check_keys(owner, names, data)
    return data


def load_fields(owner: object, names: Sequence[str], data: bytes) -> None:
    """Set the attributes ``names`` of ``owner`` to the values in ``data``, which :func:`dump_fields` returned.

    The annotations of the class give the types of the values.

    :raises msgspec.MsgspecError: if ``data`` does not hold values of these types. No attribute is set then.
    """
    for name, value in zip(names, _loaded(owner, names, data), strict=True):
        setattr(owner, name, value)


def check_fields(owner: object, names: Sequence[str]) -> None:
    """Check that the current values of the attributes ``names`` can be saved and loaded again.

    :raises TypeError: one line that names an attribute that cannot, and says why.
    """
    for name in names:
        try:
            setattr(owner, name, getattr(owner, name))
        except AttributeError as error:
            raise TypeError(f"{name} cannot be set: {error}") from None
        try:
            _loaded(owner, (name,), dump_fields(owner, (name,)))
        except NameError as error:
            raise TypeError(f"the annotations of {type(owner).__name__} cannot be looked up: {error}") from None
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
            reason = " ".join(str(error).split()).replace(" - at `$[0]`", "")
            raise TypeError(f"the value of {name} cannot be saved and loaded again: {reason}") from None


def without_sets(value: Any, odd_keys: list[Any] | None = None) -> Any:
    """``value`` with each set in it replaced by a sorted list: MessagePack has no sets, and the order of a set differs
    from process to process.

    :param odd_keys: a list that gets the keys of dictionaries that are neither plain values nor tuples of plain values.
        Without the right annotation such a key is loaded as another type, or not at all.
    :raises TypeError: if two keys of a dictionary are the same in MessagePack, as a tuple and a set may be.
    """
    kind = type(value)
    if kind in LEAVES:
        return value
    if isinstance(value, dict):
        plain = {}
        for key, one in value.items():
            if type(key) not in LEAVES:
                return _plain_map(value, odd_keys)
            plain[key] = one if type(one) in LEAVES else without_sets(one, odd_keys)
        return plain
    if isinstance(value, (list, tuple)):
        return [one if type(one) in LEAVES else without_sets(one, odd_keys) for one in value]
    if isinstance(value, (set, frozenset)):
        return sorted((without_sets(one, odd_keys) for one in value), key=_encode)
    if attrs.has(kind) or dataclasses.is_dataclass(kind):
        return {name: without_sets(getattr(value, name), odd_keys) for name in _names_of_fields(kind)}
    if isinstance(value, msgspec.Struct):
        sorted_too = copy(value)
        for name in kind.__struct_fields__:
            msgspec.structs.force_setattr(sorted_too, name, without_sets(getattr(value, name), odd_keys))
        return sorted_too
    return value


def _plain_map(value: dict[Any, Any], odd_keys: list[Any] | None) -> msgspec.Raw:
    """A dictionary without sets in its keys and values, encoded. A key may become a list, which no dictionary of Python
    can have as a key, so the dictionary is encoded here."""
    encoded: dict[bytes, bytes] = {}
    for key, one in value.items():
        if odd_keys is not None and not _is_plain_key(key):
            odd_keys.append(key)
        encoded[_encode(without_sets(key))] = _encode(without_sets(one, odd_keys))
    if len(encoded) != len(value):
        raise TypeError("a dictionary has two keys that are the same in MessagePack, such as a tuple and a set")
    return msgspec.Raw(_map_head(len(value)) + b"".join(part for entry in encoded.items() for part in entry))


def _is_plain_key(key: object) -> bool:
    """Whether ``key`` is loaded again as it is, without an annotation."""
    return type(key) in LEAVES or (type(key) is tuple and all(map(_is_plain_key, key)))


def _map_head(length: int) -> bytes:
    """The head of a MessagePack map with ``length`` entries."""
    if length < 16:
        return bytes([0x80 | length])
    return struct.pack(">BH", 0xDE, length) if length < 2**16 else struct.pack(">BI", 0xDF, length)


def _loaded(owner: object, names: Sequence[str], data: bytes) -> Sequence[Any]:
    """The values in ``data``, which :func:`dump_fields` returned, with the types of the annotations of ``owner``."""
    hints: dict[str, Any] = get_type_hints(type(owner))
    types = tuple(hints.get(name, Any) for name in names)
    values: Sequence[Any] = msgspec.msgpack.decode(data, type=tuple[types])  # type: ignore[valid-type]
    return values


def _check_keys(owner: object, names: Sequence[str], data: bytes) -> None:
    """Check that every dictionary in the attributes ``names`` would get its keys back from ``data``.

    :raises TypeError: one line that says what is wrong, and what to annotate."""
    hint = "annotate the attribute with the types of its keys, as in dict[frozenset[str], int]"
    try:
        loaded = _loaded(owner, names, data)
    except (msgspec.MsgspecError, TypeError, ValueError, NameError) as error:
        raise TypeError(f"what state_fields names could not be loaded again: {error}; {hint}") from None
    for name, after in zip(names, loaded, strict=True):
        if not _has_same_keys(getattr(owner, name), after):
            raise TypeError(f"{name} has a dictionary whose keys would come back as others; {hint}")


def _has_same_keys(before: Any, after: Any) -> bool:
    """Whether each dictionary in ``before`` has the same keys as the dictionary at its place in ``after``."""
    if isinstance(before, dict):
        if not (isinstance(after, dict) and before.keys() == after.keys()):
            return False
        return all(_has_same_keys(one, after[key]) for key, one in before.items())
    if isinstance(before, (list, tuple)):
        return all(map(_has_same_keys, before, after))
    kind = type(before)
    if type(after) is not kind:
        return True  # Without an annotation, the value is loaded with MessagePack's own type.
    return all(_has_same_keys(getattr(before, name), getattr(after, name)) for name in _names_of_fields(kind))


def _names_of_fields(kind: type[Any]) -> Iterable[str]:
    """The names of the fields of an attrs class, a dataclass or a Struct; none of any other class."""
    if attrs.has(kind):
        return [field.name for field in attrs.fields(kind)]
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    return kind.__struct_fields__ if issubclass(kind, msgspec.Struct) else ()
