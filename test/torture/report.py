"""The result of a run, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import attrs

from test.torture.plan import Kind
from txpaxos.cli.printing import table
from txpaxos.core.config import Timing

STABLE_SECONDS_MAX = 4 * Timing().liveness_window_seconds[1]
"""By then a scenario must have a leader that stays. No client may wait longer for an answer."""

STALL_SECONDS = 0.2
"""If the run itself waited this long for a processor, a late scenario proves nothing."""

CHECKED = ("key-value store", "subjects")
SEVERAL = "two at once"
SILENCE_NOTE = "(seconds without an answer to any client, while there was a quorum; in rounds with nothing else)"


@attrs.frozen
class Silence:
    """What the clients noticed of one round.

    :ivar kinds: the kinds of its faults.
    :ivar kept_quorum: whether there was a quorum all the time, so that ``seconds`` covers the whole round.
    :ivar seconds: the longest time without an answer to any client, while there was a quorum.
    """

    kinds: tuple[Kind, ...]
    kept_quorum: bool
    seconds: float

    @property
    def name(self) -> str:
        """The name of its row."""
        return self.kinds[0].value if len(self.kinds) == 1 else SEVERAL


@attrs.frozen
class Stability:
    """The result of a scenario.

    :ivar leader_seconds: from the cut until a leader led that stayed; ``None`` if there was none at the end.
    :ivar silence_seconds: the longest time without an answer to any client.
    :ivar lag_seconds: the longest time that the run itself waited for a processor.
    """

    kind: Kind
    leader_seconds: float | None
    silence_seconds: float
    lag_seconds: float

    @property
    def is_in_time(self) -> bool:
        """Whether there was soon a leader that stayed, and answers."""
        return self.leader_seconds is not None and max(self.leader_seconds, self.silence_seconds) <= STABLE_SECONDS_MAX

    @property
    def is_void(self) -> bool:
        """Whether it was late while the machine was too slow to blame the nodes."""
        return not self.is_in_time and self.lag_seconds >= STALL_SECONDS

    def __str__(self) -> str:
        leader = "no leader that stayed" if self.leader_seconds is None else f"leader after {self.leader_seconds:.2f} s"
        return f"{self.kind.value}: {leader}, {self.silence_seconds:.2f} s without an answer"


@attrs.frozen
class Report:
    """The result for one cluster.

    :ivar operations: how many operations on the store, without local reads.
    :ivar unknown: how many of them have an outcome that no client learned.
    :ivar answers: how many of each kind were answered.
    :ivar asks: how many questions about subjects.
    :ivar snapshots: how many snapshots the nodes have taken.
    :ivar transfers: how often a node has installed another node's snapshot.
    :ivar verdict: what became of the commands, in one line.
    :ivar recordings: what came of the recordings, in one line; empty if nothing was recorded.
    :ivar linearizable: the checker's results for the histories of the store and of the subjects.
    :ivar violations: what is wrong; empty if nothing is.
    :ivar configurations: how often the members have changed.
    :ivar change_counts: how often a change went another way than the first.
    :ivar without: kinds that were left out, and why.
    :ivar kept: the folder with histories, logs and data, if it was kept.
    """

    seed: int
    nodes: int
    seconds: float
    operations: int
    unknown: int
    answers: Counter[str]
    asks: int
    snapshots: int
    transfers: int
    faults: Counter[Kind]
    silences: Sequence[Silence]
    stabilities: Sequence[Stability]
    verdict: str
    linearizable: Sequence[str]
    violations: Sequence[str]
    lag_seconds: float
    hash_seeds: int
    configurations: int = 0
    change_counts: Mapping[str, int] = attrs.field(factory=dict)
    without: Sequence[str] = ()
    kept: str = ""
    recordings: str = ""

    def as_text(self) -> str:
        """The report as text."""
        rate = self.operations / self.seconds if self.seconds else 0
        lines = [
            f"{self.nodes} nodes, seed {self.seed}: {self.seconds:.0f} s, {self.faults.total()} faults,"
            f" {self.operations} operations ({rate:.0f}/s, {self.unknown} of unknown outcome), {self.asks} asks,"
            f" {self.hash_seeds} values of PYTHONHASHSEED",
            ", ".join(f"{count} {what}" for what, count in self._tried().items()),
            *self._change_lines(),
            *(f"left out: {one}" for one in self.without),
            *(f"not tried, since there were none: {one}" for one in self.untried),
            "",
            *self._silence_lines(),
            *self._stability_lines(),
            f"the run itself was late by {self.lag_seconds:.2f} s at most, for lack of a processor",
            "",
            self.verdict,
            *([self.recordings] if self.recordings else []),
            *(f"{name}: {line.splitlines()[0]}" for name, line in zip(CHECKED, self.linearizable, strict=True)),
            *(f"VIOLATION: {one}" for one in self.violations),
            "nothing lost, nothing doubled, linearizable" if not self.violations else "FAILED",
        ]
        return "\n".join(lines + ([f"kept in {self.kept}"] if self.kept else []))

    @property
    def untried(self) -> list[str]:
        """What a run is meant to test, and what did not happen."""
        return [what for what, count in self._tried().items() if not count]

    def as_json(self) -> dict[str, Any]:
        """The report as JSON."""
        report = attrs.asdict(self, recurse=False, filter=lambda field, _: field.name not in ("silences", "faults"))
        silences = {
            name: {"kept_quorum": _times(kept), "after_no_quorum": _times(lost)}
            for name, (kept, lost) in self._by_name().items()
        }
        stabilities = [
            {**attrs.asdict(one), "kind": one.kind.value, "in_time": one.is_in_time, "void": one.is_void}
            for one in self.stabilities
        ]
        faults = {kind.value: count for kind, count in self.faults.items()}
        return {
            **report,
            "untried": self.untried,
            "faults": faults,
            "unavailability_seconds": silences,
            "stabilities": stabilities,
        }

    def _tried(self) -> dict[str, int]:
        reads = {"linearizable reads": "get", "local reads": "local", "watches": "watch"}
        counts = {what: self.answers[kind] for what, kind in reads.items()}
        return {**counts, "snapshots": self.snapshots, "transfers of a snapshot": self.transfers}

    def _change_lines(self) -> list[str]:
        if not self.configurations:
            return []
        details = ", ".join(f"{count} {what}" for what, count in self.change_counts.items())
        return [f"the members changed {self.configurations} times ({details})"]

    def _by_name(self) -> dict[str, tuple[list[float], list[float]]]:
        """For each row, the seconds of rounds that kept a quorum, and of those that did not."""
        rows: dict[str, tuple[list[float], list[float]]] = {}
        order = [kind.value for kind in Kind]
        for one in sorted(self.silences, key=lambda one: order.index(one.name) if one.name in order else len(order)):
            rows.setdefault(one.name, ([], []))[0 if one.kept_quorum else 1].append(one.seconds)
        return rows

    def _silence_lines(self) -> list[str]:
        counts = {kind.value: count for kind, count in self.faults.items()}
        rows = []
        for name, (kept, lost) in self._by_name().items():
            rows.append((name, str(counts.get(name, "-")), len(kept), *_cells(kept), len(lost), *_cells(lost)))
        head = ("fault", "times", "rounds", "longest", "median", "no quorum", "longest after", "median after")
        return [table(head, rows), SILENCE_NOTE, ""]

    def _stability_lines(self) -> list[str]:
        rows = []
        for kind in Kind:
            seen = [one for one in self.stabilities if one.kind is kind]
            good = [one for one in seen if not one.is_void]
            if seen:
                leaders = [one.leader_seconds for one in good if one.leader_seconds is not None]
                silences = [one.silence_seconds for one in good]
                in_time = sum(one.is_in_time for one in good)
                rows.append(
                    (kind.value, in_time, len(good), *_cells(leaders), *_cells(silences), len(seen) - len(good))
                )
        if not rows:
            return []
        head = ("scenario", "in time", "of", "leader longest", "median", "silence longest", "median", "void")
        limit = f"(in time: a leader that stays, and answers, within {STABLE_SECONDS_MAX:.1f} s; void: machine stalled)"
        return [table(head, rows), limit, ""]


def stable_after(leaders: Sequence[tuple[float, str | None]]) -> float | None:
    """When the last leader of ``leaders`` (seconds and name) had begun to lead for good; ``None`` if the last is
    none."""
    last = leaders[-1][1]
    if last is None:
        return None
    changed = [number for number, (_, leader) in enumerate(leaders) if leader != last]
    return leaders[changed[-1] + 1 if changed else 0][0]


def _times(seconds: Sequence[float]) -> dict[str, Any] | None:
    return {"rounds": len(seconds), "longest": max(seconds), "median": median(seconds)} if seconds else None


def _cells(seconds: Iterable[float]) -> tuple[str, str]:
    """The longest and the median, as text."""
    times = list(seconds)
    return (f"{max(times):.2f}", f"{median(times):.2f}") if times else ("-", "-")
