"""The values of the log that say who the members of the cluster are.

Such a value is the byte ``MEMBERS_BYTE`` and one MessagePack map, of :class:`MembersEntry`. It holds all members with
their addresses and roles, and not only what changes. So one entry says all that there is to know, in the log, in a
snapshot, or in an answer to a node that wants to join.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import attrs
import msgspec

from txpaxos.cluster import NAME, Address, Cluster, Member
from txpaxos.core.membership import Change, Configuration
from txpaxos.core.messages import MEMBERS_BYTE, NodeId, Slot
from txpaxos.errors import CodecError

MEMBERS_MAX = 64
"""The most members of a cluster, learners included."""
RETIRED_MAX = 4096
"""The most names of former members that are remembered."""
PRIORITY_MAX = 1000
ENTRY_BYTES_MAX = 2**18
"""The longest encoded entry. A longer one is refused before it is decoded."""

Role: TypeAlias = Literal["voter", "learner", "joining"]
Priority: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=PRIORITY_MAX)]
Incarnation: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


@attrs.frozen
class MemberEntry:
    """One member of the cluster.

    :ivar address: where the other nodes reach it, ``host:port``.
    :ivar client: where clients reach it, ``host:port``.
    :ivar role: ``voter`` if its votes count, ``learner`` if it only learns what is chosen, and ``joining`` if it learns
        and is to be made a voter as soon as it has caught up.
    :ivar incarnation: of its data folder; 0 for a founder, whose folder the other founders have met.
    :ivar priority: the higher, the rather it is to lead; 0 for a voter that never leads.
    :ivar replaces: the member that leaves when this one becomes a voter; empty for none.
    """

    address: str
    client: str
    role: Role = "voter"
    incarnation: Incarnation = 0
    priority: Priority = 1
    replaces: NodeId = ""


@attrs.frozen
class MembersEntry:
    """Who the members are, from alpha slots after the one where this entry is chosen.

    :ivar base: the slot of the entry that this one replaces; 0 for the founders. If another was chosen in the meantime,
        this one does not count.
    :ivar members: each member by its id.
    :ivar retired: the ids of former members. They are never used again: a node that was removed, or lost its folder,
        must not be taken for the one that gave its promises under that id.
    """

    base: Annotated[Slot, msgspec.Meta(ge=0)]
    members: Annotated[dict[NodeId, MemberEntry], msgspec.Meta(min_length=1, max_length=MEMBERS_MAX)]
    retired: Annotated[tuple[NodeId, ...], msgspec.Meta(max_length=RETIRED_MAX)] = ()

    @property
    def voters(self) -> tuple[NodeId, ...]:
        """The ids of the voters, in order."""
        return tuple(sorted(node for node, one in self.members.items() if one.role == "voter"))

    @property
    def learners(self) -> tuple[NodeId, ...]:
        """The ids of the members that only learn, in order."""
        return tuple(sorted(node for node, one in self.members.items() if one.role != "voter"))

    @property
    def change(self) -> Change:
        """What the core has to know of it."""
        priorities = ((node, self.members[node].priority) for node in self.voters)
        return Change(self.base, self.voters, self.learners, tuple(one for one in priorities if one[1] != 1))

    def configuration(self, slot: Slot) -> Configuration:
        """The configuration of this entry, chosen at ``slot``."""
        change = self.change
        return Configuration(slot, change.voters, change.learners, change.priorities)

    def cluster(self, name: str) -> Cluster:
        """The members with their addresses, as a cluster file of the cluster ``name`` has them.

        :raises ValueError: if an address is none.
        """
        members = {
            node: Member(Address.parse(one.address), Address.parse(one.client)) for node, one in self.members.items()
        }
        return Cluster(name, members)


@attrs.frozen
class AddMember:
    """Add a node that has an empty folder. It learns first, and becomes a voter when it has caught up.

    :ivar name: what its owner calls it. Its id has a number beside that if the name was used before.
    :ivar incarnation: of its data folder.
    :ivar role: ``learner`` if it is never to become a voter.
    :ivar replaces: the member that leaves when this one becomes a voter; empty for none.
    """

    name: str
    address: str
    client: str
    incarnation: Annotated[int, msgspec.Meta(ge=1)]
    role: Literal["learner", "joining"] = "joining"
    replaces: NodeId = ""


@attrs.frozen
class PromoteMember:
    """Make a learner a voter, now: it must have caught up."""

    node: NodeId


@attrs.frozen
class RemoveMember:
    """Remove a member. Its id is never used again."""

    node: NodeId


@attrs.frozen
class ReplaceMember:
    """Remove the voter ``node`` and make the learner ``by`` a voter, in one step."""

    node: NodeId
    by: NodeId


@attrs.frozen
class MoveMember:
    """Give a member other addresses. It keeps its role and its folder."""

    node: NodeId
    address: str
    client: str


@attrs.frozen
class SetPriority:
    """Say how much a voter is to lead: the higher, the rather; 0 for never."""

    node: NodeId
    priority: Priority


MembersRequest: TypeAlias = AddMember | PromoteMember | RemoveMember | ReplaceMember | MoveMember | SetPriority


def founding_entry(cluster: Cluster) -> MembersEntry:
    """The entry that stands for a cluster file: its nodes are the founders, and all of them are voters."""
    return MembersEntry(
        0, {node: MemberEntry(one.address.written, one.client.written) for node, one in cluster.members.items()}
    )


def base_name(node: NodeId) -> str:
    """The name that the owner of ``node`` gave it: its id without the number that tells later lives apart."""
    return node.rpartition("~")[0] if _generation(node) > 1 else node


def _generation(node: NodeId) -> int:
    """How many nodes had the name of ``node`` before, and itself: 1 if its id has no number."""
    digits = node.rpartition("~")[2] if "~" in node else ""
    is_number = digits.isascii() and digits.isdigit() and not digits.startswith("0") and len(digits) < 7
    return int(digits) if is_number and int(digits) > 1 else 1


def next_id(name: str, entry: MembersEntry) -> NodeId:
    """The id of a new member that calls itself ``name``: the name itself, or with a number if it was used before."""
    used = {node for node in (*entry.members, *entry.retired) if base_name(node) == name}
    if not used:
        return name
    return f"{name}~{max(map(_generation, used)) + 1}"


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(MembersEntry).decode


def encode_members(entry: MembersEntry) -> bytes:
    """The value of the log that holds ``entry``."""
    return MEMBERS_BYTE + _encode(entry)


def decode_members(value: bytes) -> MembersEntry:
    """The entry that ``value`` holds.

    :raises CodecError: if it holds none that this release can follow. No other error is raised.
    """
    if value[:1] != MEMBERS_BYTE or len(value) > ENTRY_BYTES_MAX:
        raise CodecError("no entry of members")
    try:
        entry = _decode(memoryview(value)[1:])
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise CodecError(f"no entry of members: {error}") from None
    check_members(entry)
    return entry


def check_members(entry: MembersEntry) -> None:
    """Check that every node can follow ``entry``.

    :raises CodecError: one line that says what is wrong.
    """
    for node, one in entry.members.items():
        if not NAME.match(base_name(node)):
            raise CodecError(f"{ascii(node)[:60]} is no name of a node")
        for text in (one.address, one.client):
            try:
                Address.parse(text)
            except ValueError as error:
                raise CodecError(f"{ascii(text)[:100]} is no address: {error}") from None
    if not entry.voters:
        raise CodecError("an entry of members without a voter")
    if both := set(entry.members) & set(entry.retired):
        raise CodecError(f"{', '.join(sorted(both))} cannot be a member again")
