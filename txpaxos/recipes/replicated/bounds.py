"""What all recipes have bounds for: the length of names, the size of values, and how many there may be."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from txpaxos.service.declaration import ServiceError

NAME_CHARACTERS_MAX = 256
DATA_BYTES_MAX = 2**20
SMALL_BYTES_MAX = 2**12

Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARACTERS_MAX)]
"""The name of a queue, a map, a key, a counter, a set, or a request."""

MaybeName: TypeAlias = Annotated[str, msgspec.Meta(max_length=NAME_CHARACTERS_MAX)]
"""A name, or an empty text for none."""

Data: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=DATA_BYTES_MAX)]
"""A value, of at most a MiB."""

SmallData: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=SMALL_BYTES_MAX)]
"""A value that others are compared with, of at most 4 KiB."""

Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=SMALL_BYTES_MAX)]
"""What a contender or a member says of itself, of at most 4,096 characters."""

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
"""A number of something, or of milliseconds."""


class LimitReached(ServiceError):
    """There is as much of something as there may be. Nothing was changed."""


class SessionOver(ServiceError):
    """The session that was named is not open: it was closed, its time is over, or it never was. Nothing was changed."""
