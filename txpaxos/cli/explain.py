"""``txpaxos explain``: how a slot of the log came to hold what it holds, as its nodes remember it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
import click

from txpaxos.cli.drawings import drawing_options, write_drawings
from txpaxos.cli.options import CommandWithJson, NamedPath, cluster_option, keys_option, node_option, timeout_option
from txpaxos.cli.running import CommandError, Seeds, request, run, together
from txpaxos.cli.status import ask_members
from txpaxos.cluster import Cluster
from txpaxos.core.essential import quorum_size
from txpaxos.core.messages import LOWEST, Ballot
from txpaxos.drawing import as_text
from txpaxos.errors import NotAllowed, PaxosError
from txpaxos.explaining.facts import Fact
from txpaxos.explaining.recollection import Recollection, recollection_of
from txpaxos.explaining.recorded import recollect_recorded, recollect_recorded_ballot, recorded_slot
from txpaxos.explaining.story import Story, story_of
from txpaxos.explaining.values import CommandTold, ValueTold
from txpaxos.log_lines import printable
from txpaxos.recording.reading import located, recorded_nodes
from txpaxos.wire.commands import SESSION_BYTES_MAX, SESSION_BYTES_MIN

SLOT_MAX = 2**63 - 1


@attrs.frozen
class Subject:
    """What is to be explained: one of the four is given."""

    slot: int = 0
    ballot: str = ""
    command: tuple[bytes, int] | None = None
    register: str = ""

    def words(self) -> str:
        """What it is, in a few words."""
        if self.ballot:
            return f"ballot {self.ballot}"
        if self.command is not None:
            return f"command {self.command[1]} of session {self.command[0].hex()}"
        return f"register {self.register!a}" if self.register else f"slot {self.slot}"


def _parse_ballot(ctx: click.Context, parameter: click.Parameter, text: str) -> str:
    try:
        return str(Ballot.parse(text)) if text else ""
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


def _parse_command(ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[bytes, int] | None:
    if text is None:
        return None
    session, colon, sequence = text.partition(":")
    try:
        found = bytes.fromhex(session), int(sequence)
    except ValueError:
        found = b"", -1
    if not colon or not SESSION_BYTES_MIN <= len(found[0]) <= SESSION_BYTES_MAX or not 0 <= found[1] <= SLOT_MAX:
        raise click.BadParameter("write the session in hexadecimal digits, a colon, and the number of the command.")
    return found


@click.command("explain", cls=CommandWithJson, short_help="Why a slot of the log holds what it holds.")
@click.argument("slot", type=click.IntRange(1, SLOT_MAX), required=False)
@click.option("--ballot", default="", callback=_parse_ballot, help="Explain a ballot instead, as 3.a: who promised it.")
@click.option(
    "--command",
    "sent",
    metavar="SESSION:NUMBER",
    callback=_parse_command,
    help="Explain the slot of a command, by its session (in hexadecimal digits) and its number there.",
)
@click.option("--register", default="", help="Explain the slot that decided a register.")
@click.option(
    "--recording",
    "recordings",
    metavar="DIR",
    multiple=True,
    type=NamedPath(),
    help="Tell it from a recording, and ask no node. May be given more often, as for the folders of several machines.",
)
@node_option
@cluster_option
@keys_option
@timeout_option(2.0, "How long each node may take to answer; all are asked at once.")
@drawing_options("the story")
@click.option("--json", "wants_json", is_flag=True, help="The story as JSON.")
def command(
    slot: int | None,
    ballot: str,
    sent: tuple[bytes, int] | None,
    register: str,
    recordings: Sequence[str],
    cluster: Cluster | Seeds,
    timeout_seconds: float,
    svg: str | None,
    shiviz: str | None,
    wants_json: bool,
) -> None:
    """Explain why SLOT of the log holds what it holds.

    Asks each node what it remembers, and tells who proposed the value in which ballot, and why that one: the leader was
    free to, had to propose it again since a node had voted for it, or filled a gap. Then it tells who promised, who
    voted and when that was on disk, when each node knew that the value was chosen, and when it applied it.

    A node remembers the last 4096 slots and 64 ballots since its start. Its recording (`twistd paxos --record`), read
    with --recording, has all that it has kept. Times are by the clock of each node; no effect is told before its cause.

    \b
    txpaxos explain 4711
    txpaxos explain 4711 --svg 4711.svg
    txpaxos explain --ballot 3.a
    txpaxos explain --register owner
    txpaxos explain 4711 --recording a/recording --recording b/recording

    Exits with 1 if nothing of it is remembered.
    """
    subject = Subject(slot or 0, ballot, sent, register)
    if sum((slot is not None, bool(ballot), sent is not None, bool(register))) != 1:
        raise click.UsageError("give a slot, or one of --ballot, --command and --register.")
    if recordings:
        told = read_all(recordings, subject)
    else:
        told = run(lambda reactor: ask_all(reactor, cluster, timeout_seconds, subject))
    story, value = told_by(subject, told)
    if wants_json:
        click.echo(as_json(subject, story, value, told))
    else:
        click.echo(as_words(subject, story, value))
    write_drawings(story.diagram(), svg, shiviz)
    raise SystemExit(0 if story.facts else 1)


async def ask_all(
    reactor: Any, cluster: Cluster | Seeds, timeout_seconds: float, subject: Subject
) -> dict[str, Recollection | None]:
    """What each member remembers of ``subject``, ``None`` for one that does not answer.

    :raises CommandError: if none answers.
    :raises NotAllowed: if none answers, and one says that this client has no right to ask.
    """
    members, _, _ = await ask_members(reactor, cluster, timeout_seconds)
    refusals: list[PaxosError] = []

    async def ask(node: str, about: Subject) -> Recollection | None:
        try:
            return recollection_of(
                await request(
                    reactor,
                    members,
                    timeout_seconds,
                    lambda client: client.recall(
                        about.slot, ballot=about.ballot, command=about.command, register=about.register
                    ),
                    [node],
                )
            )
        except PaxosError as error:
            refusals.append(error)
            return None

    nodes = list(members.members)
    told = dict(zip(nodes, await together(*(ask(node, subject) for node in nodes)), strict=True))
    answered = [one for one in told.values() if one is not None]
    if not answered:
        raise next((error for error in refusals if isinstance(error, NotAllowed)), None) or CommandError(
            f"no node of cluster {cluster.name} answered within {timeout_seconds:g} s: {refusals[0]}"
        )
    found = max(one.slot for one in answered)
    if not subject.slot and found:  # Some nodes have it no more in their log, and remember its slot all the same.
        about = Subject(found)
        told = dict(zip(nodes, await together(*(ask(node, about) for node in nodes)), strict=True))
    return told


def read_all(recordings: Sequence[str], subject: Subject) -> dict[str, Recollection | None]:
    """What the recordings of all nodes in these folders tell of ``subject``.

    :raises RecordingError: if one cannot be read.
    """
    found: dict[str, str] = {}
    for directory in recordings:
        directory, own = located(directory)
        for node in recorded_nodes(directory) if own is None else [own]:
            if node in found:
                raise CommandError(f"{directory} and {found[node]} both have a recording of node {node}: leave one out")
            found[node] = directory
    if subject.ballot:
        ballot = Ballot.parse(subject.ballot)
        return {node: recollect_recorded_ballot(folder, node, ballot) for node, folder in found.items()}
    slot = subject.slot or max(
        recorded_slot(folder, node, subject.command, subject.register) for node, folder in found.items()
    )
    return {node: recollect_recorded(folder, node, [slot])[slot] for node, folder in found.items()}


def told_by(subject: Subject, told: dict[str, Recollection | None]) -> tuple[Story, ValueTold | None]:
    """The story that the nodes tell together, and what the slot holds, if one of them still has it."""
    answered = [one for one in told.values() if one is not None]
    slot = max((one.slot for one in answered), default=0)
    voters = max((one.voters for one in answered), key=len)
    facts = [fact for one in answered for fact in one.facts]
    story = story_of(slot, facts, list(told), quorum_size(len(voters)))
    if len({one.value.mark for one in answered if one.value is not None}) > 1:
        line = "Nodes hold different values at this slot: they are of several clusters, or have diverged."
        story = attrs.evolve(story, reasons=(line, *story.reasons))
    return story, next((one.value for one in answered if one.value is not None), None)


# ------------------------------------------------------------------ what is printed


def as_words(subject: Subject, story: Story, value: ValueTold | None) -> str:
    """The story as text: what the slot holds, why, and what happened when."""
    lines = []
    if story.slot and not subject.slot:
        lines.append(f"The {subject.words()} is in slot {story.slot}.")
    elif not story.slot and not subject.ballot:
        lines.append(f"No node finds the {subject.words()} in the last slots of its log.")
        return "\n".join(lines)
    if value is not None:
        lines.append(f"Slot {story.slot} holds {value.words()}.")
        lines += [f"  {_command(one)}" for one in value.commands]
        if value.commands_total > len(value.commands):
            lines.append(f"  and {value.commands_total - len(value.commands)} more")
    lines += ["", *story.reasons]
    if story.facts:
        begun = _date(min(fact.utc_seconds for fact in story.facts))
        lines += ["", as_text(attrs.evolve(story.diagram(), title=f"In seconds since {begun}"))]
    # Names come from nodes and from files, and a terminal obeys control characters.
    return "\n".join(printable(line, len(line)) for line in "\n".join(lines).lstrip("\n").split("\n"))


def _date(utc_seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(utc_seconds, UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
    except (ValueError, OverflowError, OSError):  # What a node or a recording tells may be no time.
        return f"{utc_seconds:g} s, as the clock of a node said"


def _command(one: CommandTold) -> str:
    about = f", register {one.register!a}" if one.register else ""
    return f"command {one.sequence} of session {one.session}, {one.size_bytes} bytes{about}"


def as_json(subject: Subject, story: Story, value: ValueTold | None, told: dict[str, Recollection | None]) -> str:
    """The story as JSON."""
    return json.dumps(
        {
            "subject": subject.words(),
            "slot": story.slot or None,
            "value": None if value is None else attrs.asdict(value),
            "chosen_in": None if story.chosen_in is None else str(story.chosen_in),
            "voters": story.voters,
            "reasons": story.reasons,
            "facts": [fact_as_json(fact, cause) for fact, cause in zip(story.facts, story.causes, strict=True)],
            "nodes": {node: _memory(one) for node, one in told.items()},
        }
    )


def fact_as_json(fact: Fact, cause: int | None) -> dict[str, Any]:
    """A fact, without what it does not have."""
    told: dict[str, Any] = {"node": fact.node, "what": fact.what.value, "utc_seconds": fact.utc_seconds}
    told |= {} if fact.ballot == LOWEST else {"ballot": str(fact.ballot)}
    told |= {"peer": fact.peer} if fact.peer else {}
    told |= {} if fact.vote == LOWEST else {"vote": str(fact.vote)}
    told |= {"is_known": True} if fact.is_known else {}
    told |= {"asked": fact.asked} if fact.asked else {}
    told |= {} if fact.value is None else {"value": fact.value._asdict()}
    return told | ({} if cause is None else {"cause": cause})


def _memory(one: Recollection | None) -> dict[str, Any] | None:
    return None if one is None else {"facts": len(one.facts), "remembered": one.remembered}
