"""``txpaxos members``: who the members of the cluster are, and changes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from txpaxos.cli.options import CommandWithJson, cluster_option, json_option, keys_option, node_option, timeout_option
from txpaxos.cli.printing import table
from txpaxos.cli.running import CommandError, Seeds, request, run
from txpaxos.cli.status import Report, Statuses, ask_nodes, chosen_through, cluster_of
from txpaxos.cluster import Address, Cluster
from txpaxos.core.essential import quorum_size
from txpaxos.errors import MembersRefused
from txpaxos.log_lines import printable

HEAD = ("node", "role", "address", "client", "incarnation", "priority", "leads", "lag", "heard")
STATUS_SECONDS = 1.0
INCARNATION_DIGITS = 8
CHANGE_SECONDS = 60.0

change_timeout = timeout_option(CHANGE_SECONDS, "How long the change may take until it is complete.")
change_json = json_option("The outcome as JSON; an error, too.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Only say what would happen. Nothing is changed.")


@click.group("members", invoke_without_command=True, short_help="Show who the members are, or change them.")
@cluster_option
@keys_option
@node_option
@timeout_option(5.0, "How long a node may take to answer.")
@json_option("The members as JSON.")
@click.pass_context
def command(ctx: click.Context, cluster: Cluster | Seeds, timeout_seconds: float, wants_json: bool) -> None:
    """Show the members of the cluster, as the cluster itself has decided them.

    \b
    role         voter; learner: it learns what is chosen, and does not vote;
                 joining: a learner that becomes a voter when it has caught up
    incarnation  the first digits of the number of its data folder; - of a founder
    priority     the higher, the rather it leads; 0: it never leads
    leads        yes, if it does
    lag          slots that some node knows to be chosen and this one has not
                 applied; - if it did not answer
    heard        how many seconds ago the leader heard it

    A node joins by itself: see `txpaxos members add --help`. With a subcommand, the members are changed, one at a time.

    \b
    txpaxos members
    txpaxos members --node b.example.org:5001 --json
    txpaxos members remove c --dry-run
    """
    if ctx.invoked_subcommand is not None:
        return
    report, statuses = run(lambda reactor: look(reactor, cluster, timeout_seconds))
    click.echo(as_json(report, statuses) if wants_json else as_text(report, statuses))


@command.command("add", short_help="Say how a node joins: it does so by itself.")
@click.argument("node")
@click.option("--address", metavar="HOST:PORT", help="Where the other nodes will reach it.")
@click.option("--client", "client_address", metavar="HOST:PORT", help="Where clients will reach it.")
def add(node: str, address: str | None, client_address: str | None) -> None:
    """Say how NODE becomes a member.

    A member is bound to its data folder, so only the node itself can ask to join. It is a learner then, and becomes a
    voter when it has caught up. This command changes nothing.
    """
    raise CommandError(
        f"a node joins by itself, since it is bound to its data folder: on its machine, start {printable(node)} with an"
        " empty folder and `twistd paxos --join HOST:PORT` (the client port of any member) `--address HOST:PORT"
        " --client HOST:PORT` (its own), and look at `txpaxos members` then"
    )


@command.command("promote", cls=CommandWithJson, short_help="Make a learner a voter.")
@click.argument("node")
@cluster_option
@keys_option
@node_option
@change_timeout
@change_json
def promote(node: str, cluster: Cluster | Seeds, timeout_seconds: float, wants_json: bool) -> None:
    """Make the learner NODE a voter. It must have caught up."""
    _change(cluster, timeout_seconds, wants_json, "promote", node)


@command.command("remove", cls=CommandWithJson, short_help="Make a node no member any more.")
@click.argument("node")
@dry_run_option
@cluster_option
@keys_option
@node_option
@change_timeout
@change_json
def remove(node: str, dry_run: bool, cluster: Cluster | Seeds, timeout_seconds: float, wants_json: bool) -> None:
    """Make NODE no member any more, and wait until it may be switched off.

    Its id is never used again. A leader hands over first.
    """
    if dry_run:
        _foresee(cluster, timeout_seconds, wants_json, lambda report: remaining(report, node))
    else:
        _change(cluster, timeout_seconds, wants_json, "remove", node)


@command.command("replace", cls=CommandWithJson, short_help="Put a learner in the place of a voter.")
@click.argument("node")
@click.option("--with", "other", metavar="NODE", required=True, help="The learner that becomes a voter.")
@dry_run_option
@cluster_option
@keys_option
@node_option
@change_timeout
@change_json
def replace(
    node: str, other: str, dry_run: bool, cluster: Cluster | Seeds, timeout_seconds: float, wants_json: bool
) -> None:
    """Make a learner a voter in the place of NODE, in one step, and wait until NODE may be switched off."""
    if dry_run:
        _foresee(cluster, timeout_seconds, wants_json, lambda report: remaining(report, node, other))
    else:
        _change(cluster, timeout_seconds, wants_json, "replace", node, other=other)


@command.command("move", cls=CommandWithJson, short_help="Give a member other addresses.")
@click.argument("node")
@click.option("--address", metavar="HOST:PORT", required=True, help="Where the other nodes reach it.")
@click.option("--client", "client_address", metavar="HOST:PORT", required=True, help="Where clients reach it.")
@cluster_option
@keys_option
@node_option
@change_timeout
@change_json
def move(
    node: str,
    address: str,
    client_address: str,
    cluster: Cluster | Seeds,
    timeout_seconds: float,
    wants_json: bool,
) -> None:
    """Give NODE other addresses. It keeps its name, its folder and its role.

    Stop NODE before, and start it at its new address after.
    """
    for option, text in (("--address", address), ("--client", client_address)):
        try:
            Address.parse(text)
        except ValueError as error:
            raise click.BadParameter(f"{text!r}: {error}.", param_hint=option) from None
    _change(cluster, timeout_seconds, wants_json, "move", node, address=address, client=client_address)


@command.command("priority", cls=CommandWithJson, short_help="Say how much a node is to lead.")
@click.argument("node")
@click.argument("priority", type=click.IntRange(0, 1000))
@cluster_option
@keys_option
@node_option
@change_timeout
@change_json
def priority(node: str, priority: int, cluster: Cluster | Seeds, timeout_seconds: float, wants_json: bool) -> None:
    """Give NODE the PRIORITY: the higher, the rather it leads; 0: it never leads. The default of a node is 1."""
    _change(cluster, timeout_seconds, wants_json, "priority", node, priority=priority)


# ----------------------------------------------------------------- who they are


async def look(reactor: Any, cluster: Cluster | Seeds, seconds: float) -> tuple[Report, Statuses]:
    """Ask a node who the members are, and each member how it is."""
    report = await request(reactor, cluster, seconds, lambda client: client.members())
    members = cluster_of(report)
    return report, await ask_nodes(reactor, members, min(seconds, STATUS_SECONDS))


def as_text(report: Report, statuses: Statuses) -> str:
    """The table of members, and a line below it."""
    chosen, leader, rows = chosen_through(statuses), report["leader"], []
    heard = (statuses.get(leader or "") or {}).get("heard") or {}
    for node, one in report["members"].items():
        status, ago = statuses.get(node), heard.get(node)
        lag = "-" if status is None else str(chosen - status["applied_through"])
        incarnation = (one["incarnation"] or "-")[:INCARNATION_DIGITS]
        cells = [node, one["role"], one["address"], one["client"], incarnation, one["priority"]]
        rows.append([*cells, "yes" if node == leader else "no", lag, "-" if ago is None else f"{ago:.1f}"])
    voters, slot = voters_of(report), report["slot"]
    since = "the founders" if not slot else f"since slot {slot}"
    line = (
        f"cluster {report['cluster']}: {len(voters)} voters of {len(rows)} members, {since};"
        f" {tolerated(voters)} of the voters may fail"
    )
    return "\n".join([table(HEAD, rows), "", line])


def as_json(report: Report, statuses: Statuses) -> str:
    """What the members are and how they are, as JSON."""
    chosen = chosen_through(statuses)
    heard = (statuses.get(report["leader"] or "") or {}).get("heard") or {}
    members = {}
    for node, one in report["members"].items():
        status = statuses.get(node)
        lag = None if status is None else chosen - status["applied_through"]
        members[node] = {**one, "reachable": status is not None, "lag": lag, "heard_seconds": heard.get(node)}
    return json.dumps({**report, "members": members}, indent=2)


def voters_of(report: Report) -> list[str]:
    """The ids of the voters."""
    return [node for node, one in report["members"].items() if one["role"] == "voter"]


def tolerated(voters: list[str]) -> int:
    """How many of ``voters`` may fail while a majority is left."""
    return len(voters) - quorum_size(len(voters))


# --------------------------------------------------------------- changes of them


def remaining(report: Report, node: str, other: str = "") -> list[str]:
    """The voters after ``node`` has left, and ``other`` is a voter, if it is given.

    :raises MembersRefused: if such a change would be refused whichever nodes are up.
    """
    members, voters = report["members"], voters_of(report)
    if node in report["retired"] and (not other or other in voters):
        return voters  # It was made already, and may be asked for again.
    for one in (node, other) if other else (node,):
        if one not in members:
            raise MembersRefused(f"there is no member {printable(one)}: there are {', '.join(members)}")
    if other and node not in voters:
        raise MembersRefused(f"{node} is no voter: remove it instead")
    if other in voters:
        raise MembersRefused(f"{other} is a voter already: remove {node} instead")
    after = [one for one in voters if one != node] + ([other] if other else [])
    if not after:
        raise MembersRefused(f"{node} is the only voter: add another member first")
    return after


def foreseen(report: Report, statuses: Statuses, after: list[str]) -> tuple[list[str], bool]:
    """What a change that leaves the voters ``after`` would mean, line by line, and whether it could be made now."""
    before = voters_of(report)
    up = [node for node in after if statuses.get(node) is not None]
    needed = quorum_size(len(after))
    lines = [
        f"voters    {', '.join(before)} -> {', '.join(after)}",
        f"may fail  {tolerated(before)} of {len(before)} -> {tolerated(after)} of {len(after)}",
        f"must be up  {needed} of {', '.join(after)}; up now: {', '.join(up) or 'none'}",
    ]
    if report["leader"] in before and report["leader"] not in after:
        lines.append(f"{report['leader']} leads, and hands over first")
    can_be_made = len(up) >= needed and all(node in up for node in after if node not in before)
    if not can_be_made:
        lines.append("the change would be refused now: start the nodes that must be up first")
    return lines, can_be_made


def _foresee(
    cluster: Cluster | Seeds, seconds: float, wants_json: bool, voters_after: Callable[[Report], list[str]]
) -> None:
    """Print what a change would mean."""
    report, statuses = run(lambda reactor: look(reactor, cluster, seconds))
    after = voters_after(report)
    lines, can_be_made = foreseen(report, statuses, after)
    if wants_json:
        voters = {"voters": voters_of(report), "voters_after": after}
        click.echo(json.dumps({"is_done": False, "can_be_made": can_be_made, **voters, "text": lines}, indent=2))
    else:
        click.echo("\n".join([*lines, "nothing was changed"]))
    if not can_be_made:
        raise SystemExit(1)


def _change(cluster: Cluster | Seeds, seconds: float, wants_json: bool, action: Any, node: str, **details: Any) -> None:
    """Have a change made, and print what has become of it. Progress goes to standard error."""

    def tell(line: str) -> None:
        click.echo(printable(line), err=True)

    line = run(
        lambda reactor: request(
            reactor, cluster, seconds, lambda client: client.change_members(action, node, progress=tell, **details)
        )
    )
    if wants_json:
        click.echo(json.dumps({"is_done": True, "action": action, "node": node, "text": line}))
    else:
        click.echo(printable(line))
