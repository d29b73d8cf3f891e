"""Recordings without the values: what stands for a value is its length and a digest of it.

The core looks at a value's first byte, at its length, and at whether two values are equal. All of that is kept, so such
a recording replays as any other. Values that say who the members are stay as they are, and so does the empty value.

The digest has a key that is made anew at each start of a node and is never stored. So a value of few possibilities
cannot be found by trying them all, and the same value has another digest in the recording of another node.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import TypeAlias

from txpaxos.core.messages import MEMBERS_BYTE

_MARK = b"\0"
_HEAD = struct.Struct("<cQ")
_DIGEST_BYTES = 16
_KNOWN_MAX = 64
_STORED_BYTES = _HEAD.size + _DIGEST_BYTES

Value: TypeAlias = Callable[[bytes], bytes]
"""A function that returns what stands for a value."""


def redactor(key: bytes) -> Value:
    """The function that returns what stands for a value.

    :param key: a secret of up to 64 bytes."""
    known: dict[int, tuple[bytes, bytes]] = {}  # The same object comes several times: proposed, voted for, chosen.

    def stored(value: bytes) -> bytes:
        if not value or value[:1] == MEMBERS_BYTE:
            return value
        before = known.get(id(value))
        if before is not None and before[0] is value:  # Another object may have had that id.
            return before[1]
        if len(known) >= _KNOWN_MAX:
            known.clear()
        found = _HEAD.pack(_MARK, len(value)) + hashlib.blake2b(value, key=key, digest_size=_DIGEST_BYTES).digest()
        known[id(value)] = value, found
        return found

    return stored


class RedactedValue(bytes):
    """What stands for a value. It is as long as that value, and equal where that value was."""

    def __len__(self) -> int:
        """The length of the value that it stands for."""
        return int(_HEAD.unpack_from(self)[1])


def restored(stored: bytes) -> bytes:
    """What a core is given for what stands for a value.

    :raises ValueError: if it does not stand for one.
    """
    if not stored or stored[:1] == MEMBERS_BYTE:
        return stored
    if stored[:1] != _MARK or len(stored) != _STORED_BYTES:
        raise ValueError("it stands for no value")
    return RedactedValue(stored)


def stored_again(value: bytes) -> bytes:
    """What :func:`restored` was given."""
    return value[:] if isinstance(value, RedactedValue) else value
