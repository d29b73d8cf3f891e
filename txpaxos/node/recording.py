"""What a node needs of what records its core. :mod:`txpaxos.recording` implements it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from txpaxos.core.ready import Ready
from txpaxos.core.replica import Replica


class CoreRecording(Protocol):
    """Records all that enters the core of one node. It never raises, and never waits for a disk while the node runs."""

    def make_core(self, *arguments: Any, **named: Any) -> Replica:
        """Make a core whose calls are recorded. The arguments are those of Replica."""

    def around(self, release: Callable[[Ready], Ready | None]) -> Callable[[Ready], Ready | None]:
        """A function that does what ``release`` does, which performs a Ready whose records are on disk, and records
        when."""

    def close(self) -> None:
        """End the recording: the node has stopped."""
