"""Shows on a terminal how far a long command has come."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO

SECONDS = 0.2
"""The shortest time between two lines."""


def size_text(size_bytes: float) -> str:
    """A number of bytes with a unit that suits it: ``512 bytes``, ``1.5 MiB``."""
    if size_bytes < 1024:
        return f"{size_bytes:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB", "TiB"):  # pragma: no branch
        size_bytes /= 1024
        if size_bytes < 1024 or unit == "TiB":
            break
    return f"{size_bytes:.1f} {unit}"


class Progress:
    """One line on standard error, written over again and again; nothing at all where that is no terminal.

    :param doing: what is done, the beginning of the line.
    """

    def __init__(self, doing: str, file: IO[str] | None = None, seconds: Callable[[], float] = time.monotonic) -> None:
        self._doing = doing
        self._file = sys.stderr if file is None else file
        self._shows = self._file is not None and self._file.isatty()
        self._seconds = seconds
        self._began_at = seconds()
        self._shown_at = self._began_at
        self._done_bytes = 0
        self._width = 0

    def add(self, size_bytes: int, of_bytes: int = 0) -> None:
        """Note that ``size_bytes`` more are done.

        :param of_bytes: how many there are in all, 0 if that is not known."""
        self._done_bytes += size_bytes
        now = self._seconds()
        if not self._shows or now < self._shown_at + SECONDS:
            return
        self._shown_at = now
        rate = size_text(self._done_bytes / max(now - self._began_at, 0.001))
        total = f" of {size_text(of_bytes)}" if of_bytes else ""
        self._show(f"{self._doing}: {size_text(self._done_bytes)}{total}, {rate}/s")

    def end(self) -> None:
        """Remove the line."""
        if self._width:
            self._show("")
            self._width = 0

    def _show(self, line: str) -> None:
        with suppress(OSError):
            self._file.write("\r" + line.ljust(self._width) + ("" if line else "\r"))
            self._file.flush()
        self._width = len(line)
