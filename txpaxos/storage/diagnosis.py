"""What the contents of a data folder mean to an operator: whether a node may start with it, and what is safe to do."""

from __future__ import annotations

import enum
import os

import attrs

from txpaxos.storage.discarded import DISCARDED
from txpaxos.storage.inspection import FolderReport
from txpaxos.storage.replacement import MARKER

_REPLACE = "replace the node (docs/operations.rst, Replacing a node), and keep this folder until then"
_KEEP = "do not remove, edit or copy anything in the folder while it is in use"


class Verdict(enum.Enum):
    """What is to be done with a data folder."""

    HEALTHY = "healthy"
    """A node starts with it, and everything in it is sound."""
    STARTS = "needs attention"
    """A node starts with it, but something in it is damaged that is not needed at the start."""
    SNAPSHOT_DAMAGED = "snapshot damaged"
    """A node starts with it when the damaged snapshot is moved away."""
    REFUSED = "refused"
    """A node does not start with it, and nothing shows that anything is lost."""
    LOST = "damaged"
    """What its node acknowledged may be lost, so it must not vote again."""
    DIVERGED = "diverged"
    """The state in its snapshots is not that of the other nodes."""
    REMOVED = "removed"
    """Its node was removed from its cluster."""
    NOTHING = "no data"
    """It holds nothing that a node has saved."""


@attrs.frozen
class Diagnosis:
    """What is to be done with a data folder.

    :ivar summary: one sentence that explains the verdict.
    :ivar advice: what is safe to do, a line each.
    """

    verdict: Verdict
    summary: str
    advice: tuple[str, ...] = ()


def diagnose(report: FolderReport) -> Diagnosis:
    """What to do with the folder that ``report`` describes."""
    if report.kind != "store":
        return _without_store(report)
    diagnosis = _of_store(report)
    if report.used_by is None:
        return diagnosis
    advice = (_KEEP, *(f"stop the node first: {line}" for line in diagnosis.advice))
    return attrs.evolve(diagnosis, advice=advice)


def _without_store(report: FolderReport) -> Diagnosis:
    lost = "if a node had its data here, they are lost: " + _REPLACE
    match report.kind:
        case "empty":
            summary = "the folder is empty: a node that starts here is new, and votes only once the others have met it"
            return Diagnosis(Verdict.NOTHING, summary, (lost,))
        case "absent":
            return Diagnosis(Verdict.NOTHING, "there is no such folder", (f"correct the path; {lost}",))
        case "file":
            return Diagnosis(Verdict.NOTHING, "this is not a folder", ("correct the path",))
        case _:
            summary = f"this is not the data folder of a node: it holds {', '.join(map(ascii, report.others))}"
            return Diagnosis(Verdict.NOTHING, summary, ("correct the path; do not let a node use this folder",))


def _of_store(report: FolderReport) -> Diagnosis:
    if MARKER in report.marker:
        summary = f"{report.marker[MARKER]}: the next start of its node, or the same recovery again, completes it"
        return Diagnosis(Verdict.REFUSED, summary, ("run txpaxos recover again, as before",))
    if "removed" in report.marker:
        summary = f"the node was removed from its cluster: {report.marker['removed']}"
        return Diagnosis(Verdict.REMOVED, summary, ("the folder may be removed: no node needs it again",))
    if "diverged" in report.marker and report.complete_snapshots:
        return Diagnosis(Verdict.DIVERGED, report.marker["diverged"], _after_divergence(report))
    if report.refusal is None:
        return _that_starts(report)
    if report.start_without:
        (path,) = report.start_without
        return Diagnosis(Verdict.SNAPSHOT_DAMAGED, report.refusal.line, (_move(path),))
    if report.refusal.path:
        return Diagnosis(Verdict.LOST, report.refusal.line, (f"do not start the node with this folder; {_REPLACE}",))
    return Diagnosis(Verdict.REFUSED, report.refusal.line, ("do what the line above says; nothing else is needed",))


def _that_starts(report: FolderReport) -> Diagnosis:
    if not report.faults:
        return Diagnosis(Verdict.HEALTHY, _what_a_start_does(report))
    summary = f"a node starts with this folder, but {len(report.faults)} of its files are damaged"
    damaged = {one.path for one in report.complete_snapshots if one.fault is not None}
    advice = [f"{path} may be moved away: the newer snapshot takes its place" for path in sorted(damaged)]
    if len(damaged) < len(report.faults):
        advice.append("let the node take its next snapshots: then the damaged part of the journal is not needed")
    return Diagnosis(Verdict.STARTS, summary, (*advice, "check the disk: it has changed bytes that were synced"))


def _what_a_start_does(report: FolderReport) -> str:
    log = report.log
    if log is None or report.identity is None or not report.identity.complete:
        return "the folder is new and not complete: a start completes it, and nothing was acknowledged from it"
    if log.lost_through:
        return (
            f"a node starts with this folder, and promises nothing about the slots up to {log.lost_through} before it"
            " has their state from the other nodes"
        )
    if any(segment.torn_bytes for segment in report.segments):
        return "a node starts with this folder, and removes a save that a crash interrupted: nothing acknowledged it"
    return "a node starts with this folder as it is"


def _after_divergence(report: FolderReport) -> tuple[str, ...]:
    why = "first find out why the state differs (docs/operations.rst, Diverged nodes)"
    return (why, *(_move(path) for path in report.start_without))


def _move(path: str) -> str:
    """How to start without ``path``, which is a snapshot or the folder of all snapshots."""
    if path.endswith(".snapshot"):
        return f"move {path} away, then start the node: what is older takes its place, and nothing is lost"
    target = f"{os.path.dirname(path)}/{DISCARDED}"
    return f"rename {path} to {target}, then start the node: it takes the state from the other nodes, which must run"
