"""``txpaxos doctor``: what is in the data folder of a node, and what is safe to do with it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import attrs
import click

from txpaxos.cli.progress import Progress, size_text
from txpaxos.log_lines import printable
from txpaxos.node.snapshots.taking import SnapshotHead
from txpaxos.storage.diagnosis import Diagnosis, Verdict, diagnose
from txpaxos.storage.inspection import FolderReport, SegmentReport, SnapshotReport, inspect_folder

ATTENTION = 1
"""The exit status if the folder needs attention."""
SLOTS_SHOWN_MAX = 8
"""The number of slots that are listed one by one."""


@click.command("doctor", short_help="What a data folder holds, and what is safe to do.")
@click.argument("directory", metavar="DIR", type=click.Path())
@click.option("--json", "wants_json", is_flag=True, help="The whole report, as JSON.")
def command(directory: str, wants_json: bool) -> None:
    """Examine the data folder DIR of a node, and say what is safe to do.

    Everything in the folder is read and checked: the identity, the journal, the snapshots, the registers. Nothing is
    opened for writing, and no lock is taken, so the node may run meanwhile; but the report is then of one moment. Run
    it as the user of the node, or as root.

    \b
    txpaxos doctor /var/lib/counter/a

    Exit status: 0 if a node starts with the folder and everything in it is sound; 1 if something needs attention, or
    the folder holds nothing that a node has saved.
    """
    progress = Progress(f"reading {directory}")
    try:
        report = inspect_folder(directory, lambda path, size_bytes: progress.add(size_bytes))
    finally:
        progress.end()
    diagnosis = diagnose(report)
    click.echo(json.dumps(as_json(report, diagnosis), indent=2) if wants_json else as_text(report, diagnosis))
    raise SystemExit(0 if diagnosis.verdict is Verdict.HEALTHY else ATTENTION)


def head_of(snapshot: SnapshotReport) -> SnapshotHead | None:
    """What ``snapshot`` is of; ``None`` if its head is not sound."""
    try:
        return SnapshotHead.unpack(snapshot.first_chunk)
    except ValueError:
        return None


# ---------------------------------------------------------------------- as JSON


def as_json(report: FolderReport, diagnosis: Diagnosis) -> dict[str, Any]:
    """The whole report, of types that JSON has. Big numbers are text, as JSON readers round them."""
    found = attrs.asdict(report)
    if report.identity is not None:
        found["identity"]["incarnation"] = f"{report.identity.incarnation:x}"
        found["identity"].pop("voter")
        found["identity"]["votes_among"] = [] if report.identity.voter is None else [*report.identity.voter.members]
    if report.mark is not None:
        found["mark"].pop("names")
    for snapshot, its in zip(report.snapshots, found["snapshots"], strict=True):
        its.pop("first_chunk")
        head = head_of(snapshot)
        its["head"] = None if head is None else {**attrs.asdict(head), "log_hash": head.log_hash.hex()}
    found["met"] = {peer: f"{incarnation:x}" for peer, incarnation in report.met.items()}
    if report.registers is not None:
        found["registers"] = dict(zip(("files", "chosen"), report.registers, strict=True))
    verdict = {"verdict": diagnosis.verdict.value, "summary": diagnosis.summary, "advice": [*diagnosis.advice]}
    return {**verdict, **found}


# ---------------------------------------------------------------------- as text


def as_text(report: FolderReport, diagnosis: Diagnosis) -> str:
    """The report for people: a line for each part of the folder, what is wrong, and the verdict."""
    lines = [printable(report.directory)]
    if report.kind == "store":
        rows = [*_rows(report)]
        width = max(len(name) for name, _ in rows)
        lines += [f"  {name.ljust(width)}  {text}" for name, text in rows]
    others = [fault for fault in report.faults if fault.line != diagnosis.summary]
    if others:
        lines += ["", *(f"  {printable(fault.line, 1000)}" for fault in others)]
    lines += ["", f"{diagnosis.verdict.value}: {printable(diagnosis.summary, 1000)}"]
    lines += [f"  * {printable(line, 1000)}" for line in diagnosis.advice]
    return "\n".join(lines)


def _rows(report: FolderReport) -> Iterator[tuple[str, str]]:
    identity = report.identity
    if identity is None:
        yield "identity", "none that can be read"
    else:
        voter = identity.voter
        votes = "does not vote yet" if voter is None else f"votes among {', '.join(voter.members)}"
        yield "node", printable(f"{identity.node} of cluster {identity.cluster}, {votes}")
        yield "incarnation", f"{identity.incarnation:x}"
    if report.application:
        yield "application", printable(report.application)
    if report.used_by is not None:
        yield "in use", f"by process {report.used_by}" if report.used_by else "by a process"
    yield "journal", _journal(report.segments)
    if report.mark is not None:
        yield "acknowledged", f"{report.mark.position} saves"
    for snapshot in report.snapshots:
        yield "snapshot", _snapshot(snapshot)
    if not report.snapshots:
        yield "snapshot", "none"
    if report.log is not None:
        yield "promised", report.log.promised
        yield "chosen", f"through slot {report.log.chosen_through}{_votes(report.log.votes)}"
    if report.registers is not None:
        yield "registers", f"{report.registers[0]}, {report.registers[1]} of them with a known value"
    if report.met:
        yield "has met", printable(", ".join(sorted(report.met)))
    for name in report.discarded:
        yield "moved away", f"{printable(name)}: the node does not have its state again yet"
    for name in report.replaced:
        yield "moved away", f"{printable(name)}: not needed any more, may be removed"


def _journal(segments: list[SegmentReport]) -> str:
    if not segments:
        return "no segment"
    frames, records = (sum(getattr(one, name) for one in segments) for name in ("frames", "records"))
    text = f"{len(segments)} {'segment' if len(segments) == 1 else 'segments'}, {frames} saves with {records} records"
    torn = sum(one.torn_bytes for one in segments)
    return text + (f", and {size_text(torn)} of one that a crash interrupted" if torn else "")


def _snapshot(snapshot: SnapshotReport) -> str:
    text = f"at slot {snapshot.slot}, {size_text(snapshot.size_bytes)}"
    if not snapshot.is_complete:
        return f"{text} of which {size_text(snapshot.sound_bytes)} are sound: a part of another node's"
    if snapshot.fault is not None:
        return f"{text}, damaged ({os.path.basename(snapshot.path)}, offset {snapshot.fault.offset})"
    head = head_of(snapshot)
    members = "" if head is None else f", members {', '.join(head.members)}"
    return f"{text}, sound{printable(members)}"


def _votes(votes: dict[int, str]) -> str:
    if not votes:
        return ", no votes above"
    shown = ", ".join(f"{slot} in {ballot}" for slot, ballot in [*votes.items()][:SLOTS_SHOWN_MAX])
    more = len(votes) - SLOTS_SHOWN_MAX
    return f"; votes above: {printable(shown)}" + (f", and {more} more" if more > 0 else "")
