"""What can be wrong with an application, looked for before its node starts: one line each, that says what to do.

None of it would show at once otherwise. A service without ``restore`` runs until it is started again; one with a
misspelt field, until its first snapshot; one whose attribute has the name of one of its node's, until the node needs
that.
"""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, TypeVar

from twisted.internet.protocol import DatagramProtocol

from txpaxos.application import Application
from txpaxos.errors import ConfigError

Node = TypeVar("Node", bound=Application)

HOOKS = tuple(name for name, value in vars(Application).items() if inspect.isfunction(value))

INITIALISER = "def __init__(self, *args, **kwargs): super().__init__(*args, **kwargs), and then what is its own"


def check_class(kind: type[Application], base: type[Application]) -> None:
    """Look at the class of an application.

    :param base: the node's class, of which it is a subclass.
    :raises ConfigError: one line.
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
    # The node's class itself, and one that only watches subjects, want no commands on purpose.
    if kind is not base and kind.apply is Application.apply and kind.value_chosen is Application.value_chosen:
        raise ConfigError(f"{name} has no apply: write def apply(self, slot, command), which is what a service does")
    _check_snapshots(kind)
    for one in _own_classes(kind, base):
        for attribute, value in vars(one).items():
            if _is_taken(attribute, value, base):
                raise ConfigError(
                    f"{one.__name__}.{attribute}: the node that {name} is uses that name for itself; give it another"
                )


def check_object(node: Application, base: type[Application], made: dict[str, Any] | None) -> None:
    """Look at an application before it starts.

    :param made: the node's own attributes, as it has made them; ``None`` if it never did.
    :raises ConfigError: one line.
    """
    kind = type(node)
    if made is None:
        raise _not_made(kind.__name__)
    for attribute, value in vars(node).items():
        if attribute == "_made":
            continue
        if attribute in made:
            taken = made[attribute] is not value
        else:  # What Twisted sets by itself is not in the way.
            taken = attribute not in dir(DatagramProtocol) and _is_taken(attribute, value, base)
        if taken:
            raise ConfigError(
                f"self.{attribute} of {kind.__name__}: the node that it is uses that name for itself; give it another"
            )
    for field in kind.state_fields:
        if not hasattr(node, field):
            raise ConfigError(
                f"{kind.__name__}.state_fields names {field!r}, and {kind.__name__} has no such attribute when it has"
                " been made: is it misspelt? Else give it a value in __init__"
            )


def make_application(kind: Callable[..., Node], *args: Any, **kwargs: Any) -> Node:
    """The application, made as a node is.

    :raises ConfigError: one line that says why it cannot be made, and where in its own source that is.
    """
    name = getattr(kind, "__name__", "the application")
    try:
        inspect.signature(kind).bind(*args, **kwargs)
    except ValueError:  # Its signature is not known.
        pass
    except TypeError:
        raise ConfigError(f"{name}.__init__ does not take what a node is made with: write {INITIALISER}") from None
    try:
        made = kind(*args, **kwargs)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{name} cannot be made: {described(error)}") from None
    if getattr(made, "_made", None) is None:
        raise _not_made(name)
    return made


def _not_made(name: str) -> ConfigError:
    return ConfigError(f"{name} has not been made as a node: write {INITIALISER}")


def described(error: BaseException) -> str:
    """An exception in one line, with the file and the line of the source that it came from, if it is not ours."""
    words = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, SyntaxError):
        return words  # Python has said where in it already.
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    theirs = [(file, line) for file, line in frames if not _is_ours(file)]
    return f"{words} ({theirs[-1][0]}, line {theirs[-1][1]})" if theirs else words


def _is_ours(file: str) -> bool:
    """Whether the file is one of this package, or a part of Python that imports."""
    package = sys.modules[Application.__module__].__file__ or ""
    return file.startswith(("<frozen", os.path.dirname(package) + os.sep)) or "importlib" in file.split(os.sep)


def _check_signature(kind: type[Application], hook: str) -> None:
    """See that a hook can be called as a node calls it.

    :raises ConfigError: one line."""
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


def _own_classes(kind: type, base: type) -> Iterable[type]:
    """The classes that the application's author wrote: those that come before the node's own."""
    return [one for one in kind.__mro__ if one not in base.__mro__ and not one.__module__.startswith("txpaxos.")]


def _is_taken(attribute: str, value: object, base: type) -> bool:
    """Whether ``value`` takes the place of something that the node needs. A method may be replaced by one that calls
    what was there with ``super``."""
    if attribute.startswith("__") or attribute in HOOKS or attribute == "state_fields" or not hasattr(base, attribute):
        return False
    return not (isinstance(value, FunctionType) and "__class__" in value.__code__.co_freevars)
