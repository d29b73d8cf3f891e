"""Copies of the core's objects, as ``copy.deepcopy`` makes them but faster, and what tells two of them apart."""

from __future__ import annotations

import enum
from functools import cache
from types import MethodType
from typing import Any

import attrs

SHARED = frozenset({"_rng", "_timing", "_limits", "_admits"})
"""Attributes of the core's classes that are the same in all copies."""

CONSTANT = SHARED | {"_handlers", "_log"}
"""Those that never change once they are made, or are looked at elsewhere, too."""

ATOMS = frozenset({type(None), bool, int, float, str, bytes})


def clone(thing: Any, clones: dict[int, Any] | None = None) -> Any:
    """A copy that shares nothing with ``thing`` that could change.

    :param clones: those made so far, by the ``id`` of their originals: what was one object stays one.
    """
    kind: Any = type(thing)
    if kind in ATOMS or _is_frozen(kind):
        return thing
    clones = {} if clones is None else clones
    if kind is list:
        return [clone(item, clones) for item in thing]
    if isinstance(thing, dict):
        copy = kind()
        for key, value in thing.items():
            copy[key] = clone(value, clones)
        return copy
    if kind is set:
        return set(thing)  # Of what can be hashed, so it is frozen.
    if kind is MethodType:
        return MethodType(thing.__func__, clone(thing.__self__, clones))
    if id(thing) not in clones:
        copy = clones[id(thing)] = object.__new__(kind)
        for name in _names(kind) or vars(thing):
            value = getattr(thing, name)
            object.__setattr__(copy, name, value if name in SHARED else clone(value, clones))
    return clones[id(thing)]


def freeze(thing: Any) -> object:
    """The same for two objects exactly if they hold the same; hashable."""
    kind: Any = type(thing)
    if kind in ATOMS or isinstance(thing, enum.Enum):
        return thing
    if isinstance(thing, dict):
        return tuple(sorted((key, freeze(value)) for key, value in thing.items()))
    if kind is set or kind is frozenset:
        return frozenset(map(freeze, thing))
    if isinstance(thing, list | tuple):
        return tuple(map(freeze, thing))
    names = _names(kind) or sorted(vars(thing))
    return (kind.__name__, *(freeze(getattr(thing, name)) for name in names if name not in CONSTANT))


@cache
def _is_frozen(kind: type[Any]) -> bool:
    """Whether what is of that class never changes. (attrs gives no hash to what does.)"""
    frozen_attrs = attrs.has(kind) and kind.__hash__ is not None
    return frozen_attrs or issubclass(kind, tuple | frozenset | enum.Enum)


@cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    """The fields of a class of attrs; of any other, none."""
    return tuple(field.name for field in attrs.fields(kind)) if attrs.has(kind) else ()
