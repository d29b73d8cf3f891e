"""What clients ask of the key-value store, as histories and apply logs record it, and as bytes.

Each value is a text that is put only once. At some keys it is padded with dots, so that some commands do not fit a
datagram, and a snapshot has several parts. Records have the text alone.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import msgspec

APP = Path(__file__).parents[2] / "examples" / "kv.py"

VALUE_BYTES = {f"short-{number}": 0 for number in range(8)} | {"long": 2_000} | {f"huge-{n}": 40_000 for n in range(3)}
"""The length of the values at each key. There are few keys, so that clients compete."""

_WEIGHTS = {0: 20, 2_000: 10, 40_000: 1}

Input: TypeAlias = tuple[Any, ...]
"""``("put", key, text)``, and all else that :class:`txpaxos.testing.linearizability.models.KeyValue` knows."""

Item: TypeAlias = tuple[str | None, int] | None
"""The text of a key's value, and its revision; nothing for a key that is not there."""

_encode, _decode = msgspec.msgpack.encode, msgspec.msgpack.decode


def draw_key(rng: Random) -> str:
    """Draw one of the keys. Keys with long values are drawn less often."""
    return rng.choices(list(VALUE_BYTES), [_WEIGHTS[size] for size in VALUE_BYTES.values()])[0]


def value_of(key: str, text: str | None) -> bytes | None:
    """The value that ``text`` stands for at ``key``."""
    return None if text is None else text.encode().ljust(VALUE_BYTES[key], b".")


def text_of(key: str, value: bytes | None) -> str | None:
    """The text that ``value`` stands for at ``key``; another text, if it is not padded as it should be."""
    if value is None:
        return None
    text = value.rstrip(b".").decode(errors="backslashreplace")
    return text if value == value_of(key, text) else f"{text} in {len(value)} bytes"


def command_of(input: Input) -> bytes:
    """The command that ``input`` stands for."""
    kind, key, *texts = input
    return _encode([kind, key, *(value_of(key, text) for text in texts)])


def input_of(command: bytes) -> Input:
    """The input that ``command`` stands for."""
    kind, key, *values = _decode(command)
    return (kind, key, *(text_of(key, value) for value in values))


def item_of(key: str, answer: Any) -> Item:
    """The item in a query's answer about ``key``."""
    return None if answer is None else (text_of(key, answer[0]), answer[1])


def query_of(*query: Any) -> bytes:
    """A query: ``"get", key`` or ``"watch", key, revision``."""
    return _encode(query)
