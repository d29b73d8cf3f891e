"""``txpaxos status``: the status of every node, as the node reports it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import click

from txpaxos.cli.options import cluster_option, keys_option, node_option, timeout_option
from txpaxos.cli.printing import table
from txpaxos.cli.running import Seeds, request, run, together
from txpaxos.cluster import Address, Cluster, Member
from txpaxos.core.drops import Drop
from txpaxos.core.essential import quorum_size
from txpaxos.errors import NotAllowed, PaxosError
from txpaxos.log_lines import printable
from txpaxos.node.counts import Count
from txpaxos.node.secured_peers import WARN_DAYS

if TYPE_CHECKING:
    from txpaxos.keys.folder import Keys

Statuses: TypeAlias = Mapping[str, dict[str, Any] | None]
"""The status of each node, ``None`` if the node did not answer."""

Report: TypeAlias = Mapping[str, Any]
"""What a node reports of the members: see :meth:`Client.members <txpaxos.client.client.Client.members>`."""

UNHEARD = 3
"""The exit status when the leader does not hear a node that runs."""
DIFFERENT = 4
"""The exit status when not all nodes run the same application."""
UP_SECONDS_MIN = 3.0
"""A node counts as unheard only if it has run for longer: the leader needs some time to hear a new one."""

EXPIRES_SOON_SECONDS = WARN_DAYS * 86_400.0

CLOCK_OFFSET_SECONDS_MAX = 1.0
"""Clocks that are further apart are reported."""

HEAD = ("node", "address", "role", "ballot", "chosen", "applied", "lag", "waiting", "snapshot", "application")


@click.command("status")
@node_option
@cluster_option
@keys_option
@timeout_option(1.0, "How long each node may take to answer; all are asked at once.")
@click.option("--json", "wants_json", is_flag=True, help="The whole status of the nodes, as JSON.")
@click.option("--counts", "wants_counts", is_flag=True, help="Also what each node counted since its start, and why.")
def command(cluster: Cluster | Seeds, timeout_seconds: float, wants_json: bool, wants_counts: bool) -> None:
    """Show the status of every node.

    \b
    role         leader; follower; pre-candidate: it hears no leader, and asks
                 whether it may become a candidate; candidate: it asks for votes;
                 newcomer: it does not vote yet, since its data folder is new;
                 learner: it is no voter, and only learns what is chosen;
                 unreachable: it did not answer; or how long its disk has hung
    ballot       the ballot of the leader that the node follows
    chosen       slots of the log that the node knows to be chosen, without a gap
    applied      slots that it has applied
    lag          slots that some node knows to be chosen and this one has not applied
    waiting      commands that it has taken and not yet applied
    snapshot     slot of its newest snapshot, 0 if it has none
    application  the application that it runs, MODULE:CLASS; the same on every node
    transfer     how much of another node's snapshot it has received; only if it
                 receives one

    Below the table it says how many more voters may fail until the cluster
    stops, and there is a line if the nodes run different applications,
    and one for each node that another node does not hear, with the reason.
    With --counts, the messages that each node dropped or refused follow, by
    reason. Small counts of most reasons are normal. Titles in quotes are those
    of docs/operations.rst.

    The nodes are the members, once a node of the cluster file has told them; see `txpaxos members`.

    Exits with 0 if a quorum of the nodes answers and follows a leader that answers, with 1 if not; with 4 if so, but
    not all nodes run the same application; else with 3 if the leader does not hear a node that runs.
    """
    members, voters, statuses = run(lambda reactor: ask_members(reactor, cluster, timeout_seconds))
    leader = leader_of(voters, {node: statuses.get(node) for node in voters.members})
    click.echo(as_json(members, statuses, leader) if wants_json else as_text(members, statuses, leader))
    if wants_counts and not wants_json:
        click.echo("\n".join(["", *counts(statuses)]))
    if leader is None:
        raise SystemExit(1)
    if len(applications(statuses)) > 1:
        raise SystemExit(DIFFERENT)
    raise SystemExit(UNHEARD if unheard(statuses, leader) else 0)


async def ask_nodes(
    reactor: Any,
    cluster: Cluster,
    timeout_seconds: float,
    nodes: Iterable[str] | None = None,
    keys: Keys | None = None,
) -> Statuses:
    """Ask ``nodes``, by default all, for their status, all at once.

    :param keys: see :func:`~txpaxos.cli.running.new_client`.

    :raises NotAllowed: if all are asked, nodes refuse that, and none answers.
    """
    refusals: list[NotAllowed] = []

    async def ask(node: str) -> dict[str, Any] | None:
        try:
            return await request(reactor, cluster, timeout_seconds, lambda client: client.status(), [node], keys)
        except NotAllowed as error:
            refusals.append(error)
        except PaxosError:
            pass
        return None

    asked = list(cluster.members if nodes is None else nodes)
    statuses = dict(zip(asked, await together(*map(ask, asked)), strict=True))
    if nodes is None and refusals and not any(statuses.values()):
        raise refusals[0]
    return statuses


async def ask_members(
    reactor: Any, cluster: Cluster | Seeds, timeout_seconds: float
) -> tuple[Cluster, Cluster, Statuses]:
    """Ask all members for their status. A node of the cluster file tells which these are; if none answers, they are
    taken to be the nodes of the file.

    :returns: the members, the voters among them, and what each member answered.
    :raises PaxosError: if there is no cluster file, and no node tells who the members are.
    """
    if isinstance(cluster, Seeds):
        answer = await request(reactor, cluster, timeout_seconds, lambda client: client.members())
        cluster = cluster_of(answer)
    statuses = await ask_nodes(reactor, cluster, timeout_seconds)
    answered = [node for node, status in statuses.items() if status is not None]
    if not answered:
        return cluster, cluster, statuses
    newest = max(answered, key=lambda node: chosen_through({node: statuses[node]}))
    try:
        report = await request(reactor, cluster, timeout_seconds, lambda client: client.members(), [newest])
    except PaxosError:
        return cluster, cluster, statuses
    told = cluster_of(report)
    members = {node: cluster.members[node] if node in answered else one for node, one in told.members.items()}
    others = [node for node, one in members.items() if node not in answered and cluster.members.get(node) != one]
    found = await ask_nodes(reactor, told, timeout_seconds, others)
    voters = {node: one for node, one in members.items() if report["members"][node]["role"] == "voter"}
    all_statuses = {node: found.get(node) or statuses.get(node) for node in members}
    return attrs.evolve(cluster, members=members), attrs.evolve(cluster, members=voters), all_statuses


def cluster_of(report: Report) -> Cluster:
    """The members of ``report`` as a cluster, whose nodes can be asked."""
    members = {
        node: Member(Address.parse(one["address"]), Address.parse(one["client"]))
        for node, one in report["members"].items()
    }
    return Cluster(report["cluster"], members)


def leader_of(cluster: Cluster, statuses: Statuses) -> str | None:
    """The leader that a quorum of the nodes follows, if the leader and the quorum answered; else ``None``."""
    without_vote = ("newcomer", "learner")
    ballots = [one["ballot"] for one in statuses.values() if one is not None and one["role"] not in without_vote]
    quorum = quorum_size(len(cluster.members))
    for node, status in statuses.items():
        if status is not None and status["role"] == "leader" and ballots.count(status["ballot"]) >= quorum:
            return node
    return None


def chosen_through(statuses: Statuses) -> int:
    """The last slot up to which some node knows all slots to be chosen."""
    return max((status["chosen_through"] for status in statuses.values() if status is not None), default=0)


def unheard(statuses: Statuses, leader: str | None) -> list[str]:
    """The nodes that run and that ``leader`` does not hear: they answer, or the leader refuses their messages."""
    leading = (None if leader is None else statuses.get(leader)) or {}
    refused = leading.get("refuses") or {}
    return [
        node
        for node in leading.get("unheard", ())
        if ((statuses.get(node) or {}).get("up_seconds", 0.0) > UP_SECONDS_MIN) or node in refused
    ]


def applications(statuses: Statuses) -> dict[str, list[str]]:
    """The applications that the nodes run, each with its nodes. A node of an older release does not report its own."""
    found: dict[str, list[str]] = {}
    for node, status in statuses.items():
        name = (status or {}).get("application")
        if name:
            found.setdefault(name, []).append(node)
    return found


def notes(statuses: Statuses, leader: str | None) -> list[str]:
    """The lines below the table: whether the nodes run different applications, which node does not hear which other,
    and why."""
    lines = []
    running = applications(statuses)
    if len(running) > 1:
        told = "; ".join(f"{', '.join(nodes)}: {printable(name)}" for name, nodes in running.items())
        lines.append(f"the nodes run different applications, so their states become different ({told})")
    for node, status in statuses.items():
        for peer, reason in ((status or {}).get("refuses") or {}).items():
            lines.append(f"{node} does not hear {peer}: {reason}")
    hung = {node: seconds for node, status in statuses.items() if (seconds := (status or {}).get("disk_hangs_seconds"))}
    lines += [f"the disk of {node} hangs: a save has been under way for {hung[node]:.0f} s" for node in hung]
    for node, status in statuses.items():
        seconds = (status or {}).get("keys_expire_in_seconds")
        if seconds is not None and seconds < EXPIRES_SOON_SECONDS:
            when = "has expired" if seconds <= 0 else f"expires in {seconds / 86400:.0f} days"
            lines.append(f"the certificate of {node} {when}: issue a new one, and load it")
    clocks = (statuses.get(leader) if leader else None) or {}
    for node, seconds in (clocks.get("clock_offsets_seconds") or {}).items():
        if abs(seconds) > CLOCK_OFFSET_SECONDS_MAX:
            way = "ahead of" if seconds > 0 else "behind"
            lines.append(f"the clock of {node} is {abs(seconds):.1f} s {way} that of {leader}: set them")
    if (refused := clocks.get("clock_jump_refused_seconds") or 0.0) > 0:
        lines.append(
            f"the clocks say it is {refused / 3600:.1f} hours later than it should be: if they are right, run txpaxos"
            " clock accept"
        )
    for node in unheard(statuses, leader):
        line = f"{leader} does not hear {node}"
        if node not in hung and not any(other.startswith(f"{line}: ") for other in lines):
            lines.append(f"{line}, which runs: check that UDP passes between the two, and read their logs")
    return lines


def counts(statuses: Statuses) -> list[str]:
    """The counts of each node, the highest first: a line each, with a sentence that explains the reason."""
    sentences = {reason.metric_name: reason.value for reason in (*Drop, *Count)}
    lines = []
    for node, status in statuses.items():
        counted = {**((status or {}).get("dropped") or {}), **((status or {}).get("counters") or {})}
        for name, count in sorted(counted.items(), key=lambda one: -one[1]):
            sentence = sentences.get(name.split(":")[0], "This release of txpaxos does not know what that is.")
            lines.append(f"{node}  {count}  {name}: {sentence}")
    return lines or ["nothing was counted"]


def as_text(cluster: Cluster, statuses: Statuses, leader: str | None) -> str:
    """The table, and the lines below it."""
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
    summary = "no leader with a quorum" if leader is None else f"{leader} leads"
    summary = f"cluster {cluster.name}: {summary}, {answered} of {len(rows)} nodes answer"
    return "\n".join([table(head, rows), "", summary, *_tolerance(statuses, leader), *notes(statuses, leader)])


def _tolerance(statuses: Statuses, leader: str | None) -> list[str]:
    """Whether the next node may fail, in a line, if the leader says so."""
    left = (statuses.get(leader) or {}).get("failure_tolerance") if leader else None
    if left is None:
        return []
    if left < 1:
        return ["no voter may fail: the next one that does stops the cluster" if left == 0 else "there is no quorum"]
    return [f"{left} more voter{'s' * (left > 1)} may fail"]


def as_json(cluster: Cluster, statuses: Statuses, leader: str | None) -> str:
    """The whole status of all nodes, as JSON."""
    nodes = {
        node: {"address": str(cluster.members[node].client), "reachable": status is not None, **(status or {})}
        for node, status in statuses.items()
    }
    tolerance = -1 if leader is None else (statuses[leader] or {}).get("failure_tolerance")
    whole = {"cluster": cluster.name, "leader": leader, "failure_tolerance": tolerance, "nodes": nodes}
    return json.dumps(whole, indent=2)
