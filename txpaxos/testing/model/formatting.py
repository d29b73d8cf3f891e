"""Messages and records as text."""

from __future__ import annotations

from typing import Any

import attrs

from txpaxos.core.messages import Ballot


def show(thing: Any) -> str:
    """A message or a record: its kind, and its fields by name."""
    if isinstance(thing, Ballot):
        return str(thing)
    if attrs.has(type(thing)):
        fields = [(field.name, getattr(thing, field.name)) for field in attrs.fields(type(thing))]
    elif hasattr(thing, "_fields"):
        fields = list(zip(thing._fields, thing, strict=True))
    elif isinstance(thing, tuple):
        return f"({', '.join(map(show, thing))})"
    else:
        return repr(thing)
    return f"{type(thing).__name__}({', '.join(f'{name}={show(value)}' for name, value in fields)})"
