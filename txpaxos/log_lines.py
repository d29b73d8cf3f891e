"""What comes in from outside, on its way into the log: escaped, cut, and not again and again.

A log is read by people on terminals, and by programs that take each line for an event. So no text of a client, a peer
or an exception brings line breaks or control characters there, or megabytes; and what a client or a peer can cause
again and again is counted, and written now and then.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import attrs
from twisted.logger import ILogObserver, jsonFileLogObserver
from twisted.python.failure import Failure

TEXT_CHARACTERS_MAX = 200
REASON_CHARACTERS_MAX = 1000
FRAMES_MAX = 20
LINES_MAX = 5
INTERVAL_SECONDS = 60.0


def printable(text: str, characters_max: int = TEXT_CHARACTERS_MAX) -> str:
    """``text`` in one line, with nothing in it that a terminal obeys, and no more than so many of its characters."""
    start = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text[:characters_max])
    return start if len(text) <= characters_max else f"{start}... ({len(text)} characters)"


def text_of(error: BaseException) -> str:
    """What an exception says. Some say nothing, and raise another when they are asked."""
    try:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return ""


def described(error: BaseException) -> str:
    """The class of an exception, and what it says, if it says something."""
    text = text_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class _LoggedError(Exception):
    """Stands for an exception in the log, with what that says made printable."""


def for_log(failure: Failure | None = None) -> Failure:
    """``failure``, or the exception that is handled just now, for the log: where it was raised, and what it says, made
    printable."""
    failure = failure or Failure()
    assert failure.value is not None
    said = _LoggedError(printable(text_of(failure.value), REASON_CHARACTERS_MAX))
    shown = Failure(said, failure.type, failure.tb)
    shown.frames = failure.frames[-FRAMES_MAX:]
    return shown


@attrs.define
class _LineCount:
    """Lines that are alike, since the first of them, ``begun_at``."""

    begun_at: float
    written: int = 0
    left_out: int = 0


class LineLimiter:
    """Of lines that are alike, lets the first :data:`LINES_MAX` in every :data:`INTERVAL_SECONDS` into the log.

    :param monotonic: monotonic seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._alike: dict[str, _LineCount] = {}

    def admits(self, kind: str) -> str | None:
        """Whether a line of this ``kind`` is to be written now. If so, what is to stand at its end: how many were left
        out before it, or nothing if none were."""
        now = self._monotonic()
        alike = self._alike.setdefault(kind, _LineCount(now))
        left_out = 0
        if now - alike.begun_at >= INTERVAL_SECONDS:
            left_out = alike.left_out
            self._alike[kind] = alike = _LineCount(now)
        if alike.written >= LINES_MAX:
            alike.left_out += 1
            return None
        alike.written += 1
        return f" ({left_out} lines like this were left out before it)" if left_out else ""


def json() -> ILogObserver:
    """A log observer for twistd's ``--logger``: one JSON object a line, on standard output."""
    return jsonFileLogObserver(sys.stdout, "")
