"""Checks of the arguments of ``submit``, ``read``, ``ask`` and so on, for nodes and for clients.

A wrong type is a mistake in the calling program. So it is raised at the call, where the traceback names the line. A
failing Deferred would hide it from a caller that drops the Deferred. The checks return a plain ``bytes`` or ``str``,
which the wire and the disk can hold. A ``bytearray`` or ``memoryview`` is refused and not copied: it may change while
the command is on its way, and its owner may believe that the change is sent, too.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping

from txpaxos.cluster import Cluster
from txpaxos.reading import Consistency

CHANGE_ACTIONS = ("promote", "remove", "replace", "move", "priority")
"""The changes of members that there are."""

CHANGE_TEXT_CHARACTERS_MAX = 300
"""The longest name or address in a change of members."""


def checked_bytes(value: object, what: str) -> bytes:
    """``value`` as plain bytes.

    :param what: what the value is in the request, for the error text.
    :raises TypeError: if it is not bytes.
    """
    if type(value) is bytes:
        return value
    if isinstance(value, bytes):
        return bytes(memoryview(value))
    hint = ""
    if isinstance(value, str):
        hint = ": encode it"
    elif isinstance(value, bytearray | memoryview):
        hint = ": pass bytes(...), which does not change on its way"
    raise TypeError(f"{what} must be bytes, not {type(value).__name__}{hint}")


def checked_value(value: object) -> bytes | None:
    """``value``, which is proposed for a subject, as plain bytes; ``None`` stays ``None``.

    :raises TypeError: if it is neither bytes nor ``None``.
    """
    if value is None or isinstance(value, bytes):
        return None if value is None else checked_bytes(value, "a value")
    raise TypeError(f"a value must be bytes or None, not {type(value).__name__}")


def checked_node(node: object) -> str:
    """The id of a node as a plain str.

    :raises TypeError: if it is not a str.
    :raises ValueError: if it cannot be encoded in UTF-8, and so cannot be sent.
    """
    if not isinstance(node, str):
        raise TypeError(f"a node's id must be a str, not {type(node).__name__}")
    return _with_utf_8(node, "a node's id")


def checked_subject(subject: object) -> str:
    """The name of a subject as a plain str.

    :raises TypeError: if it is not a str.
    :raises ValueError: if it cannot be encoded in UTF-8, and so cannot be sent.
    """
    if not isinstance(subject, str):
        raise TypeError(f"a subject must be a str, not {type(subject).__name__}")
    return _with_utf_8(subject, "a subject")


def checked_timers(names: object, name_bytes_max: int, timers_max: int) -> tuple[str, ...]:
    """The names of timers as plain strs.

    :param name_bytes_max: how many bytes each may have.
    :param timers_max: how many there may be.
    :raises TypeError: if they are no list of strs.
    :raises ValueError: if there is none, or there are too many, or one is too long or cannot be encoded in UTF-8.
    """
    if isinstance(names, str | bytes) or not isinstance(names, Iterable):
        hint = f": write [{names!r}]" if isinstance(names, str) else ""
        raise TypeError(f"the names of timers must be a list of str, not {type(names).__name__}{hint}")
    checked = []
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"the name of a timer must be a str, not {type(name).__name__}")
        checked.append(_with_utf_8(name, "the name of a timer"))
        if len(name.encode()) > name_bytes_max:
            raise ValueError(f"the name of a timer has {len(name.encode())} bytes and may have {name_bytes_max}")
    if not 0 < len(checked) <= timers_max:
        raise ValueError(f"{len(checked)} timers: one call keeps 1 to {timers_max} alive")
    return tuple(checked)


def check_consistency(consistency: object) -> Consistency:
    """Check how fresh the answer to a query must be.

    :raises TypeError: if it is not a str.
    :raises ValueError: if there is no such consistency.
    """
    if not isinstance(consistency, str):
        raise TypeError(f"consistency must be 'linearizable' or 'local', not {type(consistency).__name__}")
    if consistency == "linearizable":
        return "linearizable"
    if consistency == "local":
        return "local"
    raise ValueError(f"consistency {consistency!r}: there are 'linearizable' and 'local'")


def check_reactor(reactor: object, what: str = "the first argument") -> None:
    """See that ``reactor`` is one.

    :param what: which argument it is.
    :raises TypeError: if it is none.
    """
    if not callable(getattr(reactor, "callLater", None)):
        raise TypeError(
            f"{what} must be the reactor (from twisted.internet import reactor), not {type(reactor).__name__}"
        )


def check_cluster(cluster: object) -> None:
    """See that ``cluster`` is one, and not the path of its file.

    :raises TypeError: if it is none.
    """
    if not isinstance(cluster, Cluster):
        hint = f": load it, Cluster.load({str(cluster)!r})" if isinstance(cluster, str | os.PathLike) else ""
        raise TypeError(f"cluster must be a Cluster, not {type(cluster).__name__}{hint}")


def check_cluster_or_seeds(cluster: object) -> None:
    """See that ``cluster`` is one, or a list of addresses, or a dict of them by the ids of their nodes.

    :raises TypeError: if it is neither.
    """
    if isinstance(cluster, list | tuple) and all(isinstance(one, str) for one in cluster):
        return
    if isinstance(cluster, dict) and all(isinstance(one, str) for item in cluster.items() for one in item):
        return
    if isinstance(cluster, str) and ":" in cluster and ("/" not in cluster or cluster.startswith("unix:")):
        raise TypeError(f"cluster must be a Cluster or a list of addresses, not str: write [{cluster!r}]")
    check_cluster(cluster)


def check_change(action: object, texts: Mapping[str, object], priority: object) -> None:
    """Check the arguments of a change of members.

    :param texts: the names and addresses, by the names of their parameters.
    :raises TypeError: if one is of a wrong type.
    :raises ValueError: if there is no such action, a text is too long or has no UTF-8, or the priority is negative.
    """
    if action not in CHANGE_ACTIONS:
        raise ValueError(f"action {action!r}: there are {', '.join(map(repr, CHANGE_ACTIONS))}")
    for name, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"{name} must be a str, not {type(text).__name__}")
        if len(text) > CHANGE_TEXT_CHARACTERS_MAX:
            raise ValueError(f"{name} has {len(text)} characters, and may have {CHANGE_TEXT_CHARACTERS_MAX}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{name} must have UTF-8: {error}") from None
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise TypeError(f"priority must be an int, not {type(priority).__name__}")
    if not 0 <= priority < 2**32:
        raise ValueError(f"priority {priority}: it is 0 or more")


def checked_nodes(nodes: object) -> list[str]:
    """The names of nodes.

    :raises TypeError: if they are none, or a single one that is not in a list.
    """
    if isinstance(nodes, str | bytes) or not isinstance(nodes, Iterable):
        hint = f": write [{nodes!r}]" if isinstance(nodes, str) else ""
        raise TypeError(f"nodes must be a list of names, or None for all of them, not {type(nodes).__name__}{hint}")
    names = list(nodes)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"nodes must be a list of names, and one of them is {type(name).__name__}")
    return names


def check_deadline(deadline_seconds: object) -> float | None:
    """Check how many seconds a request may take; ``None``: no limit.

    :raises TypeError: if it is neither a number nor ``None``.
    :raises ValueError: if it is not finite, or not above zero.
    """
    if deadline_seconds is None:
        return None
    return _finite_seconds(deadline_seconds, "deadline_seconds", " or None", ", or None for no limit")


def check_seconds(seconds: object, what: str) -> float:
    """Check a number of seconds.

    :param what: the name of the argument.
    :raises TypeError: if it is no number.
    :raises ValueError: if it is not finite, or not above zero.
    """
    return _finite_seconds(seconds, what, "", "")


def check_timeout(timeout_seconds: object) -> float | None:
    """Check how long to wait for something; ``None`` for as long as it takes.

    :raises TypeError: if ``timeout_seconds`` is neither a number nor ``None``.
    :raises ValueError: if it is not finite, or not above zero.
    """
    return None if timeout_seconds is None else check_seconds(timeout_seconds, "timeout_seconds")


def _finite_seconds(value: object, what: str, or_none: str, or_no_limit: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} must be a number{or_none}, not {type(value).__name__}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not (math.isfinite(seconds) and seconds > 0):
        shown = "it is too long" if seconds == math.inf else repr(value)
        raise ValueError(f"{what} must be finite and above zero{or_no_limit}: {shown}")
    return seconds


def _with_utf_8(text: str, what: str) -> str:
    plain = str.__str__(text)
    try:
        plain.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} must have UTF-8: {error}") from None
    return plain
