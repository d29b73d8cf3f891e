"""What ``twistd paxos`` writes to its log: lines for people, or a JSON object a line for programs, from a level on.

Where the lines go is twistd's to say (``--logfile``, ``--syslog``, standard output), and stays as it says.
"""

from __future__ import annotations

import json
import math
import re
import syslog
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from twisted.application.app import ServerOptions
from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LegacyLogObserverWrapper,
    LogEvent,
    LogLevel,
    formatEvent,
)
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.scripts._twistd_unix import UnixAppLogger
from zope.interface import directlyProvides

from txpaxos.errors import ConfigError
from txpaxos.log_lines import REASON_CHARACTERS_MAX, described, printable, text_of

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warn", "error", "critical")

TEXT_OF_EVENT_CHARACTERS_MAX = 2000
TRACEBACK_CHARACTERS_MAX = 4000
FIELDS_MAX = 32
ITEMS_MAX = 32

OWN_KEYS = ("time", "level", "namespace", "event", "text", "error", "traceback")
"""The keys that this module gives an object. A field of the event with one of these names is left out."""

_NOT_FIELDS = frozenset({
    *("format", "isError", "message", "system", "failure", "why", "logLevel"),  # What Twisted's older API adds.
    *("line", "more"),  # Parts of the text.
})  # fmt: skip

_SAYS_NOTHING = frozenset({"reactor class: {reactor}.", "Main loop terminated."})
_PORT = re.compile(r".* starting on (\d+|b?'.*')|\(\w+ Port \S+ Closed\)")
"""What Twisted says of each port. The node says in one line where it listens."""

_LISTS = (list, tuple, set, frozenset)
"""What becomes a list, if it is just that: a ballot is a tuple, too, and has a text of its own."""

_ORDER = {level: rank for rank, level in enumerate(LEVELS)}
_PRIORITIES = dict(
    zip(LEVELS, (syslog.LOG_DEBUG, syslog.LOG_INFO, syslog.LOG_WARNING, syslog.LOG_ERR, syslog.LOG_CRIT), strict=True)
)


def check_log_output(options: Mapping[str, Any], form: str | None, level: str | None) -> None:
    """Check what was given to ``--log-format`` and ``--log-level``.

    :param options: the options of twistd, or of another program that runs its plugins.
    :param form: one of :data:`FORMATS`; ``None`` if it was not given.
    :param level: one of :data:`LEVELS`; ``None`` if it was not given.
    :raises ConfigError: one line that says what is wrong.
    """
    _check("--log-format", form, FORMATS)
    _check("--log-level", level, LEVELS)
    if options.get("logger") and (form or level):
        given = "--log-format" if form else "--log-level"
        raise ConfigError(f"{given} and --logger: twistd's --logger decides what is written; leave one out")


def set_log_output(application: Componentized, options: object, form: str | None, level: str | None) -> None:
    """Have ``application``, which twistd is about to run, log in ``form`` and from ``level`` on. A ``--logger`` of the
    user's comes before it, and other programs than twistd log as they like.

    :param options: the options of twistd.
    """
    if isinstance(options, ServerOptions) and not options.get("logger"):
        application.setComponent(ILogObserver, _observer(options, form or "text", level or "info"))


def _check(option: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise ConfigError(f"{option} {ascii(value)[:100]}: must be {', '.join(known[:-1])} or {known[-1]}")


def _observer(options: Mapping[str, Any], form: str, level: str) -> ILogObserver:
    """A log observer that writes where twistd would. That opens the file, so it is made when twistd would do so."""
    own = UnixAppLogger(options)._getLogObserver()
    if isinstance(own, FileLogObserver):
        write = json_line if form == "json" else own.formatEvent
        return FileLogObserver(own._outFile, filtered(write, level))
    return _syslog_observer(own, form, level)


def _syslog_observer(own: Callable[[dict[str, Any]], None], form: str, level: str) -> ILogObserver:
    """A log observer for the system's log. With JSON each object is one message, with the priority of its level."""
    as_text = LegacyLogObserverWrapper(own)  # type: ignore[arg-type]  # It is one of the older kind.

    def observe(event: LogEvent) -> None:
        if not _is_admitted(event, level):
            return
        if form == "json":
            syslog.syslog(_PRIORITIES[_level_of(event)], json_line(event).rstrip("\n"))
        else:
            as_text(event)

    directlyProvides(observe, ILogObserver)
    return observe  # type: ignore[return-value]


def filtered(write: Callable[[LogEvent], str | None], level: str) -> Callable[[LogEvent], str | None]:
    """``write``, which writes nothing of events below ``level``."""
    return lambda event: write(event) if _is_admitted(event, level) else None


def _is_admitted(event: LogEvent, level: str) -> bool:
    return _ORDER[_level_of(event)] >= _ORDER[level]


def _level_of(event: LogEvent) -> str:
    """The level of an event. What Twisted says of each start, and what tells an operator nothing, is ``debug``."""
    level = event.get("log_level")
    if not isinstance(level, type(LogLevel.info)):
        return "critical" if event.get("isError") else "info"
    if level is LogLevel.info and _says_nothing(event):
        return "debug"
    return str(level.name)


def _says_nothing(event: LogEvent) -> bool:
    namespace = event.get("log_namespace")
    if namespace == "log_legacy":
        return _PORT.fullmatch(formatEvent(event)) is not None
    return str(namespace).startswith("twisted.") and event.get("log_format") in _SAYS_NOTHING


def json_line(event: LogEvent) -> str:
    """``event`` as a JSON object in one line. An event that cannot be written becomes a line that says so."""
    try:
        return json.dumps(as_object(event), allow_nan=False) + "\n"
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        told = {"level": "error", "namespace": __name__, "event": "event_not_written"}
        return json.dumps({**told, "text": f"an event could not be written: {type(error).__name__}"}) + "\n"


def as_object(event: LogEvent) -> dict[str, Any]:
    """What an operator and a program want of ``event``, without what Twisted keeps in it for itself."""
    at = datetime.fromtimestamp(event["log_time"], UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    shown = {"time": at, "level": _level_of(event), "namespace": str(event.get("log_namespace", ""))}
    if isinstance(event.get("event"), str):
        shown["event"] = printable(event["event"])
    shown["text"] = _cut(formatEvent(event), TEXT_OF_EVENT_CHARACTERS_MAX)
    fields = {
        printable(name): _value(value)
        for name, value in event.items()
        if not name.startswith("log_") and name not in _NOT_FIELDS and name not in OWN_KEYS
    }
    shown |= dict(list(fields.items())[:FIELDS_MAX])
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        shown |= _described_failure(failure)
    elif "error" in event:
        shown["error"] = _value(event["error"])
    return shown


def _described_failure(failure: Failure) -> dict[str, str]:
    """The error in one line, and the end of its traceback: the end says where it was raised."""
    name = getattr(failure.type, "__name__", str(failure.type))
    text = "" if failure.value is None else printable(text_of(failure.value), REASON_CHARACTERS_MAX)
    traceback = failure.getTraceback(elideFrameworkCode=True)
    if len(traceback) > TRACEBACK_CHARACTERS_MAX:
        traceback = "..." + traceback[-TRACEBACK_CHARACTERS_MAX:]
    return {"error": f"{name}: {text}" if text else name, "traceback": _cut(traceback, len(traceback))}


def _cut(text: str, characters_max: int) -> str:
    """``text`` with no more than ``characters_max`` of its characters. Half a character of two halves is escaped, as
    not every reader of JSON takes it."""
    start = text[:characters_max].encode(errors="backslashreplace").decode()
    return start if len(text) <= characters_max else f"{start}... ({len(text)} characters)"


def _value(value: object) -> Any:
    """A field's value as JSON has it, or as text."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list | tuple | set | frozenset) and type(value) in _LISTS:
        return [_value(one) for one in list(value)[:ITEMS_MAX] if type(one) not in _LISTS]
    if isinstance(value, BaseException):
        return printable(described(value), REASON_CHARACTERS_MAX)
    return printable(value if isinstance(value, str) else str(value), REASON_CHARACTERS_MAX)
