"""A histogram with fixed buckets, which costs little to fill."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of the buckets of a time, in seconds: from the sync of a fast disk to what no client waits for."""


class Histogram:
    """How often something took how long.

    :param bounds: the upper bounds of the buckets, rising. What is above the last one has a bucket of its own.
    :ivar sum: of all that was observed.
    """

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Count ``value``, ``count`` times."""
        self._counts[bisect_left(self._bounds, value)] += count
        self.sum += value * count

    @property
    def total(self) -> int:
        """How much was observed."""
        return sum(self._counts)

    def buckets(self) -> list[tuple[str, int]]:
        """Each upper bound as Prometheus writes it, with how much was at most that."""
        bounds = [*map(repr, self._bounds), "+Inf"]
        return list(zip(bounds, accumulate(self._counts), strict=True))

    def quantile(self, part: float) -> float | None:
        """The upper bound of the bucket that holds this part of all; the last bound if it is above that; ``None`` if
        nothing was observed."""
        wanted = part * self.total
        if not wanted:
            return None
        at = next(index for index, count in enumerate(accumulate(self._counts)) if count >= wanted)
        return self._bounds[min(at, len(self._bounds) - 1)]
