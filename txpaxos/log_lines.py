"""Text from outside in lines of the log: escaped, shortened, and limited in rate.

A log is read by people on terminals, and by programs that take each line for one event. So a text of a client, a peer
or an exception must not contain line breaks or control characters there, or be megabytes long. Lines that a client or a
peer can cause as often as it likes are counted, and written only now and then.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs
from twisted.python.failure import Failure

TEXT_CHARACTERS_MAX = 200
REASON_CHARACTERS_MAX = 1000
FRAMES_MAX = 20
LINES_MAX = 5
INTERVAL_SECONDS = 60.0


def printable(text: str, characters_max: int = TEXT_CHARACTERS_MAX) -> str:
    """``text`` in one line, without control characters, and with no more than ``characters_max`` of its characters."""
    start = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text[:characters_max])
    return start if len(text) <= characters_max else f"{start}... ({len(text)} characters)"


def text_of(error: BaseException) -> str:
    """The text of an exception; empty if it has none, or if making it raises another exception."""
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
    """Replaces an exception in the log. Its text is the printable text of that exception."""


def for_log(failure: Failure | None = None) -> Failure:
    """A copy of ``failure`` for the log, with a printable text and a traceback of bounded length.

    :param failure: the failure; the exception that is being handled if not given.
    """
    failure = failure or Failure()
    assert failure.value is not None
    said = _LoggedError(printable(text_of(failure.value), REASON_CHARACTERS_MAX))
    shown = Failure(said, failure.type, failure.tb)
    shown.frames = failure.frames[-FRAMES_MAX:]
    return shown


@attrs.define
class _LineCount:
    """The number of lines of one kind, written and left out, since ``begun_at``, in monotonic seconds."""

    begun_at: float
    written: int = 0
    left_out: int = 0


class LineLimiter:
    """Limits the rate of similar lines: up to :data:`LINES_MAX` of a kind in every :data:`INTERVAL_SECONDS`.

    :param monotonic: the clock, in monotonic seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._alike: dict[str, _LineCount] = {}

    def admits(self, kind: str) -> str | None:
        """Whether a line of this ``kind`` may be written now.

        :returns: ``None`` if it may not. Otherwise the text to append to the line: how many such lines were left out
            before it, or an empty text if none were.
        """
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
