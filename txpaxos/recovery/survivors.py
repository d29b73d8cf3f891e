"""What the data folders that survived hold, each by itself and all together. Nothing is changed here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import attrs

from txpaxos.core.config import Limits
from txpaxos.core.essential import quorum_size
from txpaxos.core.log import Log
from txpaxos.core.messages import MEMBERS_BYTE, NO_OP, Ballot, NodeId, Proposal, Slot
from txpaxos.core.ready import DecreeState, Learned, LogRecord, SubjectState
from txpaxos.errors import CodecError, StoreError
from txpaxos.node.members import ChosenMembers
from txpaxos.node.snapshots.taking import SnapshotHead
from txpaxos.storage.atomic_file import AtomicFile
from txpaxos.storage.executor import execute_now
from txpaxos.storage.identity import VERSION, read_identity
from txpaxos.storage.last_application import LastApplication
from txpaxos.storage.messages import os_errors
from txpaxos.storage.read_only_disk import ReadOnlyDisk
from txpaxos.storage.snapshots import Snapshot
from txpaxos.storage.store import DiskStore
from txpaxos.wire.members import MembersEntry, decode_members

ALPHA = Limits().window_slots
"""After this number of slots a change of members governs."""


@attrs.frozen
class Survivor:
    """The data folder of one node, as a start of the node would read it.

    :ivar voters: the nodes that the node votes among; empty if it is no voter yet.
    :ivar chosen: the chosen values that the folder has, by slot. What is in its snapshot is missing.
    :ivar votes: the votes of the node at slots that it does not know to be chosen.
    :ivar snapshot: the newest snapshot.
    :ivar snapshot_members: the entries of members that are in it.
    :ivar lost_through: the last slot whose state the node has lost with a snapshot, 0 if there is none.
    :ivar owner: the user that owns the folder.
    """

    directory: str
    cluster: str
    node: NodeId
    incarnation: int
    voters: tuple[NodeId, ...]
    application: str
    promised: Ballot
    chosen_through: Slot
    chosen: dict[Slot, bytes] = attrs.field(repr=False)
    votes: dict[Slot, Proposal] = attrs.field(repr=False)
    registers: dict[str, DecreeState] = attrs.field(repr=False)
    snapshot: Snapshot | None
    snapshot_members: tuple[ChosenMembers, ...]
    lost_through: Slot
    owner: int

    @property
    def snapshot_slot(self) -> Slot:
        """The slot of the newest snapshot, 0 if there is none."""
        return 0 if self.snapshot is None else self.snapshot.slot


def read_survivor(directory: str) -> Survivor:
    """Read the data folder ``directory``.

    :raises StoreError: if a node could not start with it, or it is not the folder of a node.
    """
    directory = os.path.abspath(directory)
    with os_errors("read", directory):
        owner = os.stat(directory).st_uid
    disk = ReadOnlyDisk(owner)
    identity = read_identity(AtomicFile(disk, f"{directory}/identity", VERSION))
    if identity is None or not identity.complete:
        raise StoreError(f"{directory} holds no data of a node: 'txpaxos doctor {directory}' says what is in it")
    store = DiskStore(directory, identity.cluster, identity.node, disk=disk, execute=execute_now)
    try:
        records = store.load()
    finally:
        store.close()
    base = 0 if store.snapshot is None else store.snapshot.slot
    saved = [record for record in records if isinstance(record, LogRecord)]
    log = Log.recover(saved, base)
    chosen = dict(enumerate(log.values_from(log.first_slot), log.first_slot))
    for record in saved:
        if isinstance(record, Learned):
            chosen.update((slot, value) for slot, value in enumerate(record.values, record.first_slot) if slot > base)
    votes = {vote.slot: Proposal(vote.ballot, vote.value) for vote in log.votes_from(log.chosen_through + 1)}
    return Survivor(
        directory,
        identity.cluster,
        identity.node,
        identity.incarnation,
        () if identity.voter is None else identity.voter.members,
        LastApplication(disk, directory).read(),
        log.promised,
        log.chosen_through,
        chosen,
        {slot: vote for slot, vote in votes.items() if slot not in chosen},
        {record.subject: record.state for record in records if isinstance(record, SubjectState)},
        store.snapshot,
        _members_in(store.snapshot),
        log.lost_through,
        owner,
    )


def _members_in(snapshot: Snapshot | None) -> tuple[ChosenMembers, ...]:
    """The entries of members in the head of ``snapshot``. A head that cannot be read is an error where it is needed."""
    try:
        return () if snapshot is None else SnapshotHead.unpack(next(snapshot.chunks(), b"")).chosen_members
    except ValueError:
        return ()


@attrs.frozen
class Union:
    """What several folders of one cluster hold together.

    :ivar snapshot: the newest snapshot of all; ``None`` if the log begins with the first slot.
    :ivar values: the values of all slots behind the snapshot, through :attr:`through`, without a gap.
    :ivar chosen_through: every slot up to this one is known to be chosen.
    :ivar known_through: the last slot of which any folder knows something. The slots behind it, up to :attr:`through`,
        are for a change of members.
    :ivar guessed: the slots above it whose value is a vote: it may never have been chosen.
    :ivar empty: the slots above it of which no folder knows anything, below one that has a vote. They get no value.
    :ivar promised: the highest ballot that any of the nodes has promised.
    :ivar members: the newest entry of members that counts, and its slot; ``None`` while the founders are the members.
    :ivar registers: the value of each register that has one.
    :ivar guessed_registers: the registers whose value is a vote.
    :ivar undecided_registers: the registers that were asked about and have no vote.
    """

    snapshot: Snapshot | None
    values: dict[Slot, bytes] = attrs.field(repr=False)
    chosen_through: Slot
    known_through: Slot
    through: Slot
    guessed: tuple[Slot, ...]
    empty: tuple[Slot, ...]
    promised: Ballot
    members: ChosenMembers | None
    registers: dict[str, bytes] = attrs.field(repr=False)
    guessed_registers: tuple[str, ...]
    undecided_registers: tuple[str, ...]


def unite(survivors: Sequence[Survivor]) -> Union:
    """What ``survivors`` hold together.

    A value that one of them knows to be chosen is chosen. At any other slot the vote with the highest ballot counts as
    chosen. That is a gamble: had a majority of the old nodes voted for another value in a higher ballot, that value was
    chosen, and a client may have been told so.

    :raises StoreError: if two of them contradict each other, or chosen values are on none of them.
    """
    newest = max(survivors, key=lambda one: one.snapshot_slot)
    base = newest.snapshot_slot
    chosen = _chosen(survivors)
    needed = max(max(one.chosen_through, one.lost_through) for one in survivors)
    missing = [slot for slot in range(base + 1, needed + 1) if slot not in chosen]
    if missing:
        raise StoreError(
            f"the slots {_listed(missing)} are chosen, and no folder has what came of them: their snapshot was moved"
            " away or lost; put it back"
        )
    votes = _highest((slot, vote) for one in survivors for slot, vote in one.votes.items() if slot > needed)
    through = max(needed, base, *chosen, *votes) if chosen or votes else max(needed, base)
    above = range(max(needed, base) + 1, through + 1)
    guessed = tuple(slot for slot in above if slot not in chosen and slot in votes)
    values = {slot: chosen[slot] for slot in range(base + 1, through + 1) if slot in chosen}
    values.update((slot, votes[slot].value) for slot in guessed)
    empty = tuple(slot for slot in above if slot not in values)
    values.update(dict.fromkeys(empty, NO_OP))
    registers, guesses = _registers(survivors)
    names = {name for one in survivors for name in one.registers}
    return Union(
        newest.snapshot,
        dict(sorted(values.items())),
        max(needed, base),
        through,
        through,
        guessed,
        empty,
        max(one.promised for one in survivors),
        newest_members(newest.snapshot_members, values),
        registers,
        guesses,
        tuple(sorted(names - set(registers))),
    )


def newest_members(known: Sequence[ChosenMembers], values: Mapping[Slot, bytes]) -> ChosenMembers | None:
    """The newest entry of members that counts.

    :param known: the entries in the snapshot.
    :param values: the values of the slots behind it."""
    newest = known[-1] if known else None
    for slot, value in sorted(values.items()):
        if value[:1] != MEMBERS_BYTE:
            continue
        with suppress(CodecError):
            entry = decode_members(value)
            base = 0 if newest is None else newest[0]
            if entry.base == base and (not base or slot >= base + ALPHA):
                newest = slot, entry
    return newest


def _chosen(survivors: Iterable[Survivor]) -> dict[Slot, bytes]:
    """The chosen values of all survivors, by slot.

    :raises StoreError: if two of them have different ones."""
    chosen: dict[Slot, bytes] = {}
    source: dict[Slot, Survivor] = {}
    for one in survivors:
        for slot, value in one.chosen.items():
            if chosen.setdefault(slot, value) != value:
                raise StoreError(
                    f"{source[slot].directory} and {one.directory} have different values at slot {slot}: one of them"
                    " is damaged or of another history; give only folders that belong together"
                )
            source.setdefault(slot, one)
    return chosen


def _highest(votes: Iterable[tuple[Slot, Proposal]]) -> dict[Slot, Proposal]:
    """The vote with the highest ballot at each slot."""
    highest: dict[Slot, Proposal] = {}
    for slot, vote in votes:
        if slot not in highest or vote.ballot > highest[slot].ballot:
            highest[slot] = vote
    return highest


def _registers(survivors: Iterable[Survivor]) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The value of each register, and the registers whose value is a vote.

    :raises StoreError: if two survivors know different chosen values."""
    chosen: dict[str, bytes] = {}
    accepted: dict[str, Proposal] = {}
    for one in survivors:
        for name, state in one.registers.items():
            if state.chosen is not None and chosen.setdefault(name, state.chosen) != state.chosen:
                raise StoreError(f"the register {name!r} has two different chosen values: give folders of one cluster")
            vote = state.accepted
            if vote is not None and (name not in accepted or vote.ballot > accepted[name].ballot):
                accepted[name] = vote
    guessed = {name: vote.value for name, vote in accepted.items() if name not in chosen}
    return {**chosen, **guessed}, tuple(sorted(guessed))


def check_survivors(
    survivors: Sequence[Survivor], members: Sequence[NodeId], entry: MembersEntry | None = None
) -> None:
    """Check that the folders belong together, that they are folders of ``members``, and that the majority is lost.

    :param members: the nodes that the operator names.
    :param entry: who the members are, if that has changed since the cluster was founded.

    :raises StoreError: one line that says what is wrong."""
    first, seen = survivors[0], dict[NodeId, Survivor]()
    for one in survivors:
        if one.cluster != first.cluster:
            raise StoreError(
                f"{first.directory} is of cluster {first.cluster!r} and {one.directory} of {one.cluster!r}: give the"
                " folders of one cluster"
            )
        if one.node in seen:
            raise StoreError(f"{seen[one.node].directory} and {one.directory} are both of node {one.node}")
        seen[one.node] = one
        if entry is None and one.voters and set(one.voters) != set(members):
            raise StoreError(
                f"{one.directory} votes among {', '.join(one.voters)}, and --keep and --lose name"
                f" {', '.join(sorted(members))}: name each of its nodes, once"
            )
        if one.node not in members:
            raise StoreError(f"{one.directory} is of node {one.node}, which neither --keep nor --lose names")
    if entry is not None and set(entry.members) != set(members):
        raise StoreError(
            f"the members are {', '.join(entry.members)}, and --keep and --lose name {', '.join(sorted(members))}: name"
            " each member, once"
        )
    voting = members if entry is None else entry.voters
    voters = [one.node for one in survivors if one.voters and one.node in voting]
    if len(voters) >= quorum_size(len(voting)):
        raise StoreError(
            f"the folders of {', '.join(voters)} are a majority of {len(voting)}: start these nodes instead, and"
            " nothing is lost"
        )


def _listed(slots: Sequence[Slot]) -> str:
    """Some slots as text: a range if they are one."""
    if len(slots) > 1 and slots[-1] - slots[0] == len(slots) - 1:
        return f"{slots[0]} to {slots[-1]}"
    return ", ".join(map(str, slots[:8])) + (", ..." if len(slots) > 8 else "")
