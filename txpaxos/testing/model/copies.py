"""Copies of the core's objects, as ``copy.deepcopy`` makes them but faster, and keys to compare them."""

from __future__ import annotations

import enum
from functools import cache, partial
from types import BuiltinFunctionType, CellType, FunctionType, MappingProxyType, MethodType
from typing import Any

import attrs

SHARED = frozenset({"_rng", "_timing", "_limits", "_admits", "_change_of", "part", "replica", "replicas"})
"""Attributes of the core's classes, and of the model's own, that are the same in all copies."""

CONSTANT = SHARED | {"_log", "_membership"}
"""Attributes that never change after they were set, or that are compared elsewhere."""

ATOMS = frozenset({type(None), bool, int, float, str, bytes})

UNCHANGING = (frozenset, enum.Enum, type, BuiltinFunctionType, MappingProxyType)
"""Objects of these classes never change."""


_PLAIN: set[type[Any]] = set(ATOMS)
"""The classes found so far whose objects need no copy, since they never change."""


def clone(thing: Any, clones: dict[int, Any] | None = None) -> Any:
    """A copy that shares with ``thing`` only what cannot change.

    :param clones: the copies made so far, by the ``id`` of their originals, so that an object which is referenced twice
        is copied once.
    """
    kind: Any = type(thing)
    if kind in _PLAIN:
        return thing
    clones = {} if clones is None else clones
    if kind is list or kind is tuple:
        return kind([item if type(item) in _PLAIN else clone(item, clones) for item in thing])
    if isinstance(thing, dict):
        copy = kind()
        for key, value in thing.items():
            copy[key] = value if type(value) in _PLAIN else clone(value, clones)
        return copy
    if kind is set:
        return set(thing)  # Of what can be hashed, so it is frozen.
    if kind is MethodType:
        return MethodType(thing.__func__, clone(thing.__self__, clones))
    if kind is FunctionType:
        return _clone_function(thing, clones)
    if kind is partial:
        return partial(clone(thing.func, clones), *[clone(argument, clones) for argument in thing.args])
    known = clones.get(id(thing))
    if known is None:
        if _is_frozen(kind):
            _PLAIN.add(kind)
            return thing
        known = clones[id(thing)] = object.__new__(kind)
        names = _names(kind)
        if not names:
            attributes = known.__dict__
            for name, value in thing.__dict__.items():
                plain = type(value) in _PLAIN or name in SHARED
                attributes[name] = value if plain else clone(value, clones)
        for name in names:
            value = getattr(thing, name)
            object.__setattr__(known, name, value if type(value) in _PLAIN else clone(value, clones))
    return known


def freeze(thing: Any) -> object:
    """A hashable key that is equal for two objects exactly if they hold the same."""
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
    """Whether objects of that class never change. (attrs makes no mutable class hashable.)"""
    frozen_attrs = attrs.has(kind) and kind.__hash__ is not None
    frozen_tuple = issubclass(kind, tuple) and kind is not tuple
    says_so = getattr(kind, "NEVER_CHANGES", False)
    return frozen_attrs or frozen_tuple or says_so or issubclass(kind, UNCHANGING)


def _clone_function(function: FunctionType, clones: dict[int, Any]) -> FunctionType:
    """The function, with copies of what it closes over."""
    if function.__closure__ is None:
        return function
    cells = tuple(CellType(clone(cell.cell_contents, clones)) for cell in function.__closure__)
    return FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, cells)


@cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    """The fields of an attrs class, or the slots of a class that has them; nothing for other classes."""
    if attrs.has(kind):
        return tuple(field.name for field in attrs.fields(kind))
    return tuple(getattr(kind, "__slots__", ()))
