"""What each driver does: a number of workers that go on with the next operation once the last one is answered."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from time import monotonic

import attrs

from bench.figures import latencies_of

Operation = Callable[[], Awaitable[None]]
"""One operation of one worker."""


@attrs.frozen
class Window:
    """The time that counts."""

    begins_at: float
    ends_at: float

    def __contains__(self, span: tuple[float, float]) -> bool:
        return self.begins_at <= span[0] and span[1] <= self.ends_at


def window(warm_up_seconds: float, seconds: float) -> Window:
    """From ``warm_up_seconds`` from now on, for ``seconds``."""
    begins_at = monotonic() + warm_up_seconds
    return Window(begins_at, begins_at + seconds)


async def work(operation: Operation, counted: Window, taken: list[float]) -> None:
    """One worker: note the seconds of each operation that began and ended within the time that counts."""
    while True:
        begin = monotonic()
        if begin >= counted.ends_at:
            return
        await operation()
        end = monotonic()
        if (begin, end) in counted:
            taken.append(end - begin)


def told(taken: list[float], counted: Window) -> str:
    """What a driver prints: its figures, for the program that started it."""
    seconds = counted.ends_at - counted.begins_at
    return json.dumps({"operations": len(taken), "seconds": seconds, **attrs.asdict(latencies_of(taken))})
