"""What every benchmark here computes from what it measured: percentiles, medians of repeated runs, ratios of pairs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import attrs


@attrs.frozen
class Latencies:
    """How long operations took, in seconds."""

    p50_seconds: float
    p99_seconds: float
    p999_seconds: float
    worst_seconds: float


@attrs.frozen
class Sample:
    """One measured run of one system under one load.

    :ivar operations: answered in the measured window of ``seconds``.
    :ivar cpu_seconds: what each process took for one operation, by what it is: ``leader``, ``followers`` (all
        together), ``client``. Warm-up included, in the seconds and in the operations.
    :ivar datagrams: sent for one operation, on the whole machine.
    :ivar operations_total: answered in all, warm-up included.
    """

    operations: int
    seconds: float
    latencies: Latencies
    cpu_seconds: Mapping[str, float] = {}
    datagrams: float = 0.0
    operations_total: int = 0

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """The smallest of ``ordered`` (ascending, not empty) that ``fraction`` of them do not exceed: the nearest rank."""
    rank = math.ceil(round(fraction * len(ordered), 9))  # 0.999 * 1000 is a little more than 999.
    return ordered[min(max(rank, 1), len(ordered)) - 1]


def latencies_of(seconds: Sequence[float]) -> Latencies:
    """Sum up.

    :raises ValueError: if there are none.
    """
    if not seconds:
        raise ValueError("nothing was answered in the measured time")
    ordered = sorted(seconds)
    return Latencies(percentile(ordered, 0.5), percentile(ordered, 0.99), percentile(ordered, 0.999), ordered[-1])


def median_sample(samples: Sequence[Sample]) -> Sample:
    """Of several runs of the same, the median of each figure by itself."""

    def of(values: Sequence[float]) -> float:
        return statistics.median(values)

    latencies = [one.latencies for one in samples]
    roles = samples[0].cpu_seconds
    rate, seconds = of([one.rate for one in samples]), of([one.seconds for one in samples])
    return Sample(
        round(rate * seconds),
        seconds,
        Latencies(
            of([one.p50_seconds for one in latencies]),
            of([one.p99_seconds for one in latencies]),
            of([one.p999_seconds for one in latencies]),
            of([one.worst_seconds for one in latencies]),
        ),
        {role: of([one.cpu_seconds[role] for one in samples]) for role in roles},
        of([one.datagrams for one in samples]),
        sum(one.operations_total for one in samples),
    )


def ratio_of_pairs(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of runs that were made right after one another."""
    return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))
