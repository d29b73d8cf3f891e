"""``txpaxos status``: how every node is, by its own word."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import click

from txpaxos.cli.options import cluster_option, timeout_option
from txpaxos.cli.printing import table
from txpaxos.cli.running import request, run, together
from txpaxos.cluster import Cluster
from txpaxos.core.drops import Drop
from txpaxos.core.essential import quorum_size
from txpaxos.errors import PaxosError
from txpaxos.log_lines import printable
from txpaxos.node.counts import Count

Statuses: TypeAlias = Mapping[str, dict[str, Any] | None]
"""Node to what it says of itself, ``None`` if it did not answer."""

UNHEARD = 3
DIFFERENT = 4
"""The exit status when not all nodes run the same application."""
UP_SECONDS_MIN = 3.0
"""A node that has run for less may be heard any moment."""

HEAD = ("node", "address", "role", "ballot", "chosen", "applied", "lag", "waiting", "snapshot", "application")


@click.command("status")
@cluster_option
@timeout_option(1.0, "How long each node may take to answer; all are asked at once.")
@click.option("--json", "wants_json", is_flag=True, help="All that the nodes say, as JSON.")
@click.option("--counts", "wants_counts", is_flag=True, help="Also what each node counted since its start, and why.")
def command(cluster: Cluster, timeout_seconds: float, wants_json: bool, wants_counts: bool) -> None:
    """Show how every node is.

    \b
    role         leader, or follower of one; pre-candidate: it hears no leader, and
                 asks whether it may stand for one; candidate: it stands;
                 starting: it reads its disk; unreachable if it did not answer; or
                 newcomer: it does not vote yet, since its data folder is new; or
                 for how long its disk has hung
    ballot       of the leader that the node follows
    chosen       slots of the log that the node knows to be chosen, without a gap
    applied      slots that it has applied
    lag          slots that it has yet to apply, of those that any node knows to be chosen
    waiting      commands that it has taken and not yet seen applied
    snapshot     slot of its newest snapshot, 0 if it has none
    application  what it runs, MODULE:CLASS; it must be the same on every node
    transfer     how far another node's snapshot is on its way to it; only if there is one

    Below the table stands whether the nodes run different applications, and
    who does not hear whom, and why. With --counts, what each node dropped or
    refused stands below that. A few of most counts are normal. Titles in
    quotes are those of docs/operations.rst.

    Exits with 0 if a quorum of the nodes answers and follows a leader that answers, with 1 if not; with 4 if so, but
    not all nodes run the same application; else with 3 if the leader does not hear a node that runs.
    """
    statuses = run(lambda reactor: ask_nodes(reactor, cluster, timeout_seconds))
    leader = leader_of(cluster, statuses)
    click.echo(as_json(cluster, statuses, leader) if wants_json else as_text(cluster, statuses, leader))
    if wants_counts and not wants_json:
        click.echo("\n".join(["", *counts(statuses)]))
    if leader is None:
        raise SystemExit(1)
    if len(applications(statuses)) > 1:
        raise SystemExit(DIFFERENT)
    raise SystemExit(UNHEARD if unheard(statuses, leader) else 0)


async def ask_nodes(
    reactor: Any, cluster: Cluster, timeout_seconds: float, nodes: Iterable[str] | None = None
) -> Statuses:
    """Ask ``nodes``, or all, at once how they are."""

    async def ask(node: str) -> dict[str, Any] | None:
        try:
            return await request(reactor, cluster, timeout_seconds, lambda client: client.status(), [node])
        except PaxosError:
            return None

    asked = list(cluster.members if nodes is None else nodes)
    return dict(zip(asked, await together(*map(ask, asked)), strict=True))


def leader_of(cluster: Cluster, statuses: Statuses) -> str | None:
    """The leader that a quorum follows, if it is among those that answered."""
    ballots = [status["ballot"] for status in statuses.values() if status is not None and status["role"] != "newcomer"]
    quorum = quorum_size(len(cluster.members))
    for node, status in statuses.items():
        if status is not None and status["role"] == "leader" and ballots.count(status["ballot"]) >= quorum:
            return node
    return None


def chosen_through(statuses: Statuses) -> int:
    """The last slot that any node knows to be chosen, with all before it."""
    return max((status["chosen_through"] for status in statuses.values() if status is not None), default=0)


def unheard(statuses: Statuses, leader: str | None) -> list[str]:
    """The nodes that run, and that ``leader`` ought to hear and does not: they answer, or it refuses what they say."""
    leading = (None if leader is None else statuses.get(leader)) or {}
    refused = leading.get("refuses") or {}
    return [
        node
        for node in leading.get("unheard", ())
        if ((statuses.get(node) or {}).get("up_seconds", 0.0) > UP_SECONDS_MIN) or node in refused
    ]


def applications(statuses: Statuses) -> dict[str, list[str]]:
    """Each application that a node says it runs, and the nodes that do. A node of an older release does not say it."""
    found: dict[str, list[str]] = {}
    for node, status in statuses.items():
        name = (status or {}).get("application")
        if name:
            found.setdefault(name, []).append(node)
    return found


def notes(statuses: Statuses, leader: str | None) -> list[str]:
    """Whether nodes run different applications, and who does not hear whom, and why: a line each."""
    lines = []
    running = applications(statuses)
    if len(running) > 1:
        told = "; ".join(f"{', '.join(nodes)}: {printable(name)}" for name, nodes in running.items())
        lines.append(f"the nodes run different applications, so their states become different ({told})")
    for node, status in statuses.items():
        for peer, reason in ((status or {}).get("refuses") or {}).items():
            lines.append(f"{node} does not hear {peer}: {reason}")
    for node in unheard(statuses, leader):
        line = f"{leader} does not hear {node}"
        if not any(other.startswith(f"{line}: ") for other in lines):
            lines.append(f"{line}, which runs: see whether UDP passes between the two, and their logs")
    return lines


def counts(statuses: Statuses) -> list[str]:
    """What each node counted, the most frequent first: a line each, with the sentence of the reason."""
    sentences = {reason.metric_name: reason.value for reason in (*Drop, *Count)}
    lines = []
    for node, status in statuses.items():
        counted = {**((status or {}).get("dropped") or {}), **((status or {}).get("counters") or {})}
        for name, count in sorted(counted.items(), key=lambda one: -one[1]):
            sentence = sentences.get(name.split(":")[0], "This release of txpaxos does not know what that is.")
            lines.append(f"{node}  {count}  {name}: {sentence}")
    return lines or ["nothing was counted"]


def as_text(cluster: Cluster, statuses: Statuses, leader: str | None) -> str:
    """The table, and a line below it."""
    chosen = chosen_through(statuses)
    transfers = {node: status.get("transfer") for node, status in statuses.items() if status is not None}
    head = (*HEAD, "transfer") if any(transfers.values()) else HEAD
    rows = []
    for node, status in statuses.items():
        row = [node, str(cluster.members[node].client)]
        if status is None:
            row += ["unreachable"] + ["-"] * (len(head) - 3)
        else:
            slots = [status["chosen_through"], status["applied_through"], chosen - status["applied_through"]]
            hangs = status.get("disk_hangs_seconds")
            role = status["role"] if hangs is None else f"disk hangs ({hangs:.0f} s)"
            row += [role, status["ballot"], *slots, status["waiting"], status["snapshot_slot"]]
            row.append(printable(status.get("application") or "-"))
            row += [transfers[node] or "-"] * (len(head) - len(HEAD))
        rows.append(row)
    answered = sum(status is not None for status in statuses.values())
    verdict = "no leader with a quorum" if leader is None else f"{leader} leads"
    verdict = f"cluster {cluster.name}: {verdict}, {answered} of {len(rows)} nodes answer"
    return "\n".join([table(head, rows), "", verdict, *notes(statuses, leader)])


def as_json(cluster: Cluster, statuses: Statuses, leader: str | None) -> str:
    """All that the nodes said."""
    nodes = {
        node: {"address": str(cluster.members[node].client), "reachable": status is not None, **(status or {})}
        for node, status in statuses.items()
    }
    return json.dumps({"cluster": cluster.name, "leader": leader, "nodes": nodes}, indent=2)
