"""What a request makes of the members: the entry that would follow, or the reason why there is none."""

from __future__ import annotations

from typing import Any, assert_never

import attrs

from txpaxos.core.messages import NodeId, Slot
from txpaxos.errors import CodecError, MembersRefused
from txpaxos.wire.members import (
    MEMBERS_MAX,
    RETIRED_MAX,
    AddMember,
    MemberEntry,
    MembersEntry,
    MembersRequest,
    MoveMember,
    PromoteMember,
    RemoveMember,
    ReplaceMember,
    SetPriority,
    base_name,
    check_members,
    next_id,
)


def changed_members(entry: MembersEntry, slot: Slot, request: MembersRequest) -> MembersEntry:
    """The entry that ``request`` makes of ``entry``, which was chosen at ``slot``.

    :returns: ``entry`` itself if it says already what the request asks for: a request may be sent again.
    :raises MembersRefused: if the request cannot be met, whatever nodes are up.
    """
    match request:
        case AddMember():
            changed = _added(entry, request)
        case PromoteMember():
            changed = _promoted(entry, request.node, entry.members[_known(entry, request.node)].replaces)
        case ReplaceMember():
            changed = _replaced(entry, request)
        case RemoveMember():
            changed = entry if request.node in entry.retired else _without(entry, _known(entry, request.node))
        case MoveMember():
            changed = _moved(entry, request)
        case SetPriority():
            changed = _with(entry, request.node, priority=request.priority)
        case _:
            assert_never(request)
    if changed == entry:
        return entry
    changed = attrs.evolve(changed, base=slot)
    try:
        check_members(changed)
    except CodecError as error:
        raise MembersRefused(str(error)) from None
    if not any(one.priority and one.role == "voter" for one in changed.members.values()):
        raise MembersRefused("no voter would be left that may lead: give one of them a priority above 0")
    return changed


def member_of(entry: MembersEntry, request: AddMember) -> NodeId | None:
    """The id of the member that ``request`` has added already; ``None`` if it has added none."""
    for node, one in entry.members.items():
        if one.incarnation == request.incarnation and base_name(node) == request.name:
            return node
    return None


def _known(entry: MembersEntry, node: NodeId) -> NodeId:
    if node in entry.retired:
        raise MembersRefused(f"{node} is a member no more, and never will be again")
    if node not in entry.members:
        raise MembersRefused(f"there is no member {ascii(node)[:60]}: there are {', '.join(sorted(entry.members))}")
    return node


def _with(entry: MembersEntry, node: NodeId, **changes: Any) -> MembersEntry:
    """``entry`` with other values for the member ``node``."""
    one = attrs.evolve(entry.members[_known(entry, node)], **changes)
    return attrs.evolve(entry, members={**entry.members, node: one})


def _without(entry: MembersEntry, node: NodeId) -> MembersEntry:
    if entry.voters == (node,):
        raise MembersRefused(f"{node} is the only voter: add another member first")
    if len(entry.retired) >= RETIRED_MAX:
        raise MembersRefused(f"{RETIRED_MAX} members have left this cluster: begin a new one from a backup")
    members = {
        other: attrs.evolve(one, replaces="") if one.replaces == node else one
        for other, one in entry.members.items()
        if other != node
    }
    return attrs.evolve(entry, members=members, retired=(*entry.retired, node))


def _added(entry: MembersEntry, request: AddMember) -> MembersEntry:
    if (known := member_of(entry, request)) is not None:
        return _moved(entry, MoveMember(known, request.address, request.client))
    if any(base_name(node) == request.name for node in entry.members):
        same = next(node for node in entry.members if base_name(node) == request.name)
        if request.replaces != same:
            raise MembersRefused(
                f"{same} is a member, with another data folder: give the new node another name, or say that it"
                f" replaces {same}, if that folder is lost"
            )
    if request.replaces:
        replaced = entry.members[_known(entry, request.replaces)]
        if replaced.role != "voter" or request.role == "learner":
            raise MembersRefused(f"only a voter is replaced, by a voter, and {request.replaces} is {replaced.role}")
    if len(entry.members) >= MEMBERS_MAX:
        raise MembersRefused(f"a cluster has at most {MEMBERS_MAX} members")
    node = next_id(request.name, entry)
    _check_free(entry, (node, request.replaces), request.address, request.client)
    one = MemberEntry(request.address, request.client, request.role, request.incarnation, replaces=request.replaces)
    return attrs.evolve(entry, members={**entry.members, node: one})


def _promoted(entry: MembersEntry, node: NodeId, replaced: NodeId) -> MembersEntry:
    changed = _with(entry, node, role="voter", replaces="")
    return _without(changed, replaced) if replaced in changed.members else changed


def _replaced(entry: MembersEntry, request: ReplaceMember) -> MembersEntry:
    if request.node in entry.retired and entry.members.get(request.by, MemberEntry("", "")).role == "voter":
        return entry
    if entry.members[_known(entry, request.node)].role != "voter":
        raise MembersRefused(f"{request.node} is no voter: remove it instead")
    if entry.members[_known(entry, request.by)].role == "voter":
        raise MembersRefused(f"{request.by} is a voter already: remove {request.node} instead")
    return _promoted(entry, request.by, request.node)


def _moved(entry: MembersEntry, request: MoveMember) -> MembersEntry:
    _known(entry, request.node)
    _check_free(entry, (request.node,), request.address, request.client)
    return _with(entry, request.node, address=request.address, client=request.client)


def _check_free(entry: MembersEntry, except_for: tuple[NodeId, ...], *addresses: str) -> None:
    """Check that no other member has one of ``addresses``."""
    for node, one in entry.members.items():
        for address in addresses if node not in except_for else ():
            if address in (one.address, one.client):
                raise MembersRefused(f"{address} is an address of {node}: two members cannot have the same")
