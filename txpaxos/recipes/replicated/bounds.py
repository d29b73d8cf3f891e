"""What all recipes have bounds for: the length of names, the size of values, and how many there may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, TypeAlias, TypeVar

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
"""What a contender or a member says of itself, of at most 4,096 characters, which count with their bytes."""

OWN_BYTES_MAX = 2**28
"""How many bytes the names, and the texts about themselves, of all contenders or all members may have together."""

ANSWER_BYTES_MAX = 2**20
"""How many bytes of values one answer lists, about. The rest is left out."""

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
"""A number of something."""

SPAN_MS_MAX = 100 * 366 * 86_400_000

SpanMs: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=SPAN_MS_MAX)]
"""Milliseconds, of at most a hundred years: no sum of them and of the elapsed time is beyond what a timer may have."""


T = TypeVar("T")


def bytes_of(*texts: str) -> int:
    """How many bytes names have, which count like values: a million of the longest would have a gigabyte."""
    return sum(len(text) if text.isascii() else len(text.encode(errors="replace")) for text in texts)


def within_an_answer(found: Iterable[T], text_of: Callable[[T], str]) -> Iterator[T]:
    """The first of what was found, as much as one answer may have, and at least one.

    :param text_of: the text in each that may be long.
    """
    size = 0
    for one in found:
        yield one
        size += bytes_of(text_of(one))
        if size > ANSWER_BYTES_MAX:
            return


class LimitReached(ServiceError):
    """There is as much of something as there may be. Nothing was changed."""


class RequestMismatch(ServiceError):
    """The session has a request of this name already, which is for something else. Nothing was changed."""


class SessionOver(ServiceError):
    """The session that was named is not open: it was closed, its time is over, or it never was. Nothing was changed."""
