"""An object that is in one block of ``async with`` at a time, and ends only what that block has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

R = TypeVar("R")


class AlreadyContending(RuntimeError):
    """This object holds what it is for, or waits for it, or is in a block of ``async with``, already. Objects are not
    re-entrant: make another one to contend once more. That one waits for this one, as any other does."""


class Block(Generic[R]):
    """The block of one object."""

    def __init__(self) -> None:
        self._is_entered = False
        self._has: R | None = None

    async def enter(self, begin: Callable[[], Awaitable[R]], busy: str) -> R:
        """Begin the block.

        :param begin: gets what the block is to have.
        :param busy: what to say if the object is in a block.
        :returns: what the block has.
        :raises AlreadyContending: if the object is in a block.
        """
        if self._is_entered:
            raise AlreadyContending(f"{busy}: make another one")
        self._is_entered = True
        try:
            self._has = await begin()
        except BaseException:
            self._is_entered = False
            raise
        return self._has

    def leave(self) -> R:
        """End the block.

        :returns: what it had.
        """
        had, self._has, self._is_entered = self._has, None, False
        assert had is not None, "a block that was not entered ends"
        return had
