"""Checks of an application before its node starts. Each error is one line, and says what to do.

Without them the faults would show late. A service without ``restore`` would run until it is restarted, one with a
misspelt field until its first snapshot.
"""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Callable
from typing import TypeVar

from txpaxos.application import Application
from txpaxos.errors import ConfigError
from txpaxos.fields import check_fields
from txpaxos.log_lines import described

A = TypeVar("A", bound=Application)

HOOKS = tuple(name for name, value in vars(Application).items() if inspect.isfunction(value))


def check_class(kind: type[Application]) -> None:
    """Check the class of an application: its hooks, their signatures, and its snapshots.

    :raises ConfigError: with one line that says what to do.
    """
    name = kind.__name__
    for hook in HOOKS:
        function = inspect.unwrap(getattr(kind, hook)) if callable(getattr(kind, hook)) else None
        if function is None:
            raise ConfigError(f"{name}.{hook} is no function: write def {hook}(self, ...)")
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            may_wait = "it may return Deferred.fromCoroutine(...)"
            hint = may_wait if hook == "query" else "what takes time has no place in it"
            raise ConfigError(f"{name}.{hook} is an async function: it must be a plain one (def {hook}); {hint}")
        if inspect.isgeneratorfunction(function) and hook != "snapshot":
            raise ConfigError(f"{name}.{hook} has a yield in it, so that its body would never run: return the result")
        _check_signature(kind, hook)
    # A class of this package, or one that only watches subjects, has no apply on purpose.
    wants_commands = kind.apply is not Application.apply or kind.value_chosen is not Application.value_chosen
    if not wants_commands and not _is_ours_class(kind):
        raise ConfigError(f"{name} has no apply: write def apply(self, slot, command), which is what a service does")
    _check_snapshots(kind)
    if any("_node" in vars(one) for one in kind.__mro__ if not _is_ours_class(one)):
        raise ConfigError(f"{name}._node: that name is for the node that {name} runs on; give yours another")


def check_object(application: Application) -> None:
    """Check an application before a node uses it: it must be unused, and have all its state fields.

    :raises ConfigError: with one line that says what to do.
    """
    kind = type(application)
    if application._node is not None:
        raise ConfigError(
            f"this {kind.__name__} has a node already, and what that applied: make a new one for each node and each"
            f" start (self._node is for the node; if {kind.__name__} sets it, give yours another name)"
        )
    for field in kind.state_fields:
        if not hasattr(application, field):
            raise ConfigError(
                f"{kind.__name__}.state_fields names {field!r}, and {kind.__name__} has no such attribute when it has"
                " been made: is it misspelt? Else give it a value in __init__"
            )
    if kind.snapshot is Application.snapshot:
        try:
            check_fields(application, kind.state_fields)
        except TypeError as error:
            raise ConfigError(f"{kind.__name__}.state_fields: {error}; correct its value or its annotation") from None


def make_application(application: A | Callable[[], A]) -> A:
    """Return ``application`` itself, or make one if it is a class or function.

    :raises ConfigError: one line that says why it cannot be made, and where in its own source that is.
    """
    if isinstance(application, Application):
        return application
    name = getattr(application, "__name__", "the application")
    if isinstance(application, type):
        try:
            inspect.signature(application).bind()
        except ValueError:  # Its signature is not known.
            pass
        except TypeError:
            raise ConfigError(
                f"{name}.__init__ wants arguments, and a node makes its application without any: give them defaults, or"
                f" start {name} in a program of your own"
            ) from None
    try:
        made = application()
    except ConfigError:
        raise
    except BaseException as error:  # Also SystemExit and KeyboardInterrupt: it is a line all the same.
        raise ConfigError(f"{name} cannot be made: {described_with_source(error)}") from None
    if not isinstance(made, Application):
        raise ConfigError(f"{name} makes a {type(made).__name__}, which is no subclass of txpaxos.PaxosProtocol")
    return made


def described_with_source(error: BaseException) -> str:
    """An exception in one line, with the file and line that raised it, unless that is in this package."""
    words = " ".join(described(error).split())
    if isinstance(error, SyntaxError):
        return words  # Its text names the file and line already.
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    theirs = [(file, line) for file, line in frames if not _is_ours(file)]
    return f"{words} ({theirs[-1][0]}, line {theirs[-1][1]})" if theirs else words


def _is_ours(file: str) -> bool:
    """Whether the file is one of this package, or of Python's import system."""
    package = sys.modules[Application.__module__].__file__ or ""
    return file.startswith(("<frozen", os.path.dirname(package) + os.sep)) or "importlib" in file.split(os.sep)


def _check_signature(kind: type[Application], hook: str) -> None:
    """Check that a hook accepts the arguments with which a node calls it.

    :raises ConfigError: with one line that says what to do.
    """
    wanted = list(inspect.signature(getattr(Application, hook)).parameters)
    has_self = not isinstance(inspect.getattr_static(kind, hook), staticmethod | classmethod)
    try:
        inspect.signature(getattr(kind, hook)).bind(*wanted[0 if has_self else 1 :])
    except ValueError:  # Its signature is not known.
        pass
    except TypeError:
        raise ConfigError(
            f"{kind.__name__}.{hook} does not take what it is called with: write def {hook}({', '.join(wanted)})"
        ) from None


def _check_snapshots(kind: type[Application]) -> None:
    name, fields = kind.__name__, kind.state_fields
    if isinstance(fields, str) or not isinstance(fields, (tuple, list)) or not all(type(one) is str for one in fields):
        raise ConfigError(f'{name}.state_fields is {fields!r:.100}: it must be names in a tuple, as in ("total",)')
    writes, reads = kind.snapshot is not Application.snapshot, kind.restore is not Application.restore
    if writes and not reads:
        raise ConfigError(
            f"{name} has snapshot and no restore, so it could not start again after its first snapshot: write"
            " def restore(self, chunks)"
        )
    if reads and not writes and not fields:
        raise ConfigError(
            f"{name} has restore and no snapshot, so there is nothing to restore: write def snapshot(self)"
        )


def _is_ours_class(kind: type) -> bool:
    """Whether a class is one of this package, or of the libraries that it builds on."""
    return kind.__module__.partition(".")[0] in ("txpaxos", "twisted", "builtins", "zope")
