"""When a process of ours made which system call, and from that, where the time of one put goes.

:class:`Trace` stands between this process and its sockets and files. :func:`steps_of` puts the traces of client and
nodes together; ``CLOCK_MONOTONIC`` is the same for all processes of a machine.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import statistics
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

SOCKET_CALLS = ("send", "sendto", "sendmsg", "recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg")
FILE_CALLS = ("pwrite", "pwritev", "writev", "fdatasync", "fsync")

Call: TypeAlias = tuple[float, float, str]
"""When it began, when it ended, and its name."""


class Trace:
    """Records this process's calls from when it is made. Those that fail, as when nothing is there to be read, it
    leaves out."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        for name in SOCKET_CALLS:
            setattr(socket.socket, name, self._watched(name, getattr(socket.socket, name)))
        for name in FILE_CALLS:
            setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **keywords: Any) -> Any:
            began = time.monotonic()
            result = call(*arguments, **keywords)
            self.calls.append((began, time.monotonic(), name))
            return result

        return watched

    def note(self, name: str) -> None:
        """Record something else that happens now."""
        now = time.monotonic()
        self.calls.append((now, now, name))

    def write(self, file: Path) -> None:
        """Write all there, as JSON."""
        file.write_text(json.dumps(self.calls))


def read(file: Path) -> list[Call]:
    """What a trace wrote."""
    return sorted((began, ended, name) for began, ended, name in json.loads(file.read_text()))


STEPS = (
    "client: from submit to its bytes being sent",
    "client to leader: TCP, and the leader waking",
    "leader: takes the command, makes an Accept, sends it",
    "leader to follower: UDP, and the follower waking",
    "follower: takes the Accept, writes its vote",
    "follower: sync",
    "follower: sends its vote",
    "leader: its own sync, which goes on after the vote was sent",
    "follower to leader: UDP, and the leader waking",
    "leader: its own sync, which goes on after the vote is there",
    "leader: counts, applies, sends the answer",
    "leader to client: TCP, and the client waking",
    "client: takes the answer",
)


def steps_of(client: Sequence[Call], leader: Sequence[Call], followers: Sequence[Sequence[Call]]) -> dict[str, float]:
    """Where the time of one put goes: the median seconds of each step, over all puts that could be followed.

    Only for puts one after the other. What was under way beside them, as a heartbeat, makes the puts near it longer or
    impossible to follow, and changes no median.

    :returns: nothing if no put could be followed.
    """
    submits = [began for began, _, name in client if name == "submit"]
    answers = [began for began, _, name in client if name == "answered"]
    found = []
    for submit, answered in zip(submits, answers, strict=False):
        of_client, of_leader, *of_followers = (_between(one, submit, answered) for one in (client, leader, *followers))
        points = _points(submit, answered, of_client, of_leader, of_followers)
        if points is not None and points == sorted(points):
            found.append([after - before for before, after in itertools.pairwise(points)])
    if not found:
        return {}
    return {step: statistics.median(one[number] for one in found) for number, step in enumerate(STEPS)}


def syncs_of(calls: Sequence[Call]) -> list[float]:
    """How long each sync took, in seconds."""
    return [ended - began for began, ended, name in calls if "sync" in name]


def _between(calls: Sequence[Call], begin: float, end: float) -> Sequence[Call]:
    return calls[bisect_left(calls, (begin,)) : bisect_left(calls, (end,))]


def _points(
    submit: float, answered: float, client: Sequence[Call], leader: Sequence[Call], followers: Sequence[Sequence[Call]]
) -> list[float] | None:
    """The moments between the steps, or nothing if a call is missing."""
    try:
        asked = _first(client, "send", submit)
        taken = _first(leader, "recv", asked[0], without="from")
        proposed = _first(leader, "sendto", taken[1])
        voted = min((_vote(calls, proposed[0]) for calls in followers if calls), key=lambda vote: vote[-1])
        counted = _first(leader, "recvfrom", voted[-1])
        told = _first(leader, "send", counted[1], without="to")
        heard = _first(client, "recv", told[0])
    except LookupError:
        return None
    own = [ended for began, ended, name in leader if name == "fdatasync" and taken[1] <= began <= told[0]]
    synced = max(own, default=0.0)
    before, after = max(voted[-1], min(synced, counted[1])), max(counted[1], min(synced, told[0]))
    return [submit, asked[0], taken[1], proposed[0], *voted, before, counted[1], after, told[0], heard[1], answered]


def _vote(calls: Sequence[Call], after: float) -> list[float]:
    """When a follower had the Accept, when its sync began and ended, and when it began to send its vote."""
    taken = _first(calls, "recvfrom", after)
    sync = _first(calls, "fdatasync", taken[1])
    return [taken[1], sync[0], sync[1], _first(calls, "sendto", sync[1])[0]]


def _first(calls: Sequence[Call], name: str, after: float, without: str | None = None) -> Call:
    """The first call of a kind that ended after a moment.

    :raises LookupError: if there is none.
    """
    for call in calls:
        if call[1] >= after and call[2].startswith(name) and not (without and without in call[2]):
            return call
    raise LookupError(name)
