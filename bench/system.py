"""What is compared: several processes on this machine that can be started, put under a load, and stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import attrs
from twisted.internet.utils import getProcessOutputAndValue

from bench.figures import Sample
from txpaxos.cli.running import CommandError

ROOT = Path(__file__).parent.parent
CONNECTIONS = 16
START_SECONDS_MAX = 60.0


@attrs.frozen
class Load:
    """Puts from one client process.

    :ivar outstanding: under way at any time, over all connections; of an open loop, the most.
    :ivar rate: puts sent per second, whether answered or not: an open loop. ``None``: a closed one.
    :ivar warm_up_seconds: before the window of ``seconds`` that counts.
    """

    outstanding: int
    seconds: float = 5.0
    warm_up_seconds: float = 1.0
    value_bytes: int = 100
    rate: float | None = None

    @property
    def connections(self) -> int:
        """How many the load is spread over."""
        return min(CONNECTIONS, self.outstanding)


class System(Protocol):
    """One of those that are compared."""

    name: str

    @property
    def folder(self) -> Path:
        """Where it saves, and its processes say what they have to say."""
        ...

    async def start(self) -> None:
        """Start all its processes, and wait until it has a leader.

        :raises CommandError: if it has none in time.
        """
        ...

    async def stop(self) -> None:
        """End what runs of it."""
        ...

    async def put(self, load: Load) -> Sample:
        """Put it under a load, and measure.

        :raises CommandError: if not every put was done.
        """
        ...


async def output_of(reactor: Any, program: str, arguments: list[str]) -> str:
    """Run a program to its end. What it printed.

    :raises CommandError: if it ended with an error.
    """
    environment = dict(os.environ)
    out: bytes
    out, err, code = await getProcessOutputAndValue(program, arguments, environment, str(ROOT), reactor)
    if code != 0:
        said = (err or out).decode(errors="replace").strip().splitlines()
        raise CommandError(f"{program} ended with {code}: {said[-1] if said else 'it said nothing'}")
    return out.decode()
