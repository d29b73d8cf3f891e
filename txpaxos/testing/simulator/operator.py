"""The operator of a simulated cluster: nodes join, are promoted, removed and replaced, move, and lose their disks.

Each change goes to the leader, as an operator's would, and may be refused or get lost. When a change is complete,
former members are taken away with their disks, or stay and come back later. A machine whose disk is wiped, or was taken
away, may join again: its node has another id then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Literal

import attrs
from twisted.python.failure import Failure

from txpaxos.cluster import Address
from txpaxos.core.messages import NodeId
from txpaxos.errors import MembersRefused, NodeStopped, NotHandedOver, OutcomeUnknown
from txpaxos.testing.checkers.checker import Violation
from txpaxos.testing.simulator.environment import CLIENT_PORT, PEER_PORT, Environment
from txpaxos.testing.simulator.host import Host
from txpaxos.wire.members import (
    AddMember,
    MembersRequest,
    MoveMember,
    PromoteMember,
    RemoveMember,
    ReplaceMember,
    SetPriority,
    base_name,
    next_id,
)

JOIN_SECONDS = 0.3
"""The time between two requests to add a node."""

VOTERS_MIN = 3
VOTERS_MAX = 5
DESTROYED_CHANCE = 0.6
"""How probable it is that a former member is taken away as soon as it is not needed."""
LEARNER_CHANCE = 0.2
"""How probable it is that a node that joins is never to vote, unless an operator promotes it."""


@attrs.define(eq=False)
class _Joining:
    """A node that is to become a member.

    :ivar replaces: the member that leaves when this one becomes a voter; empty for none.
    """

    host: Host
    replaces: NodeId
    is_learner: bool


class Operator:
    """Changes the members of ``cluster``.

    :param hosts: the hosts of the cluster, by machine. Hosts come and go.
    :param live: returns the hosts that must work once everything is healed.
    """

    def __init__(self, cluster: Environment, hosts: dict[str, Host], live: Callable[[], Iterable[Host]]) -> None:
        self._cluster = cluster
        self._live = live
        self._hosts = hosts
        self._rng = Random(f"operator {cluster.seed}")
        self._joining: list[_Joining] = []
        self._destroyed_for = 0

    # what is

    @property
    def is_settled(self) -> bool:
        """Whether no change is under way: every node that joins is what it is to be, and former members are gone."""
        cluster = self._cluster
        if not cluster.changes:
            return True
        roles = {node: one.role for node, one in cluster.entry.members.items()}
        hosts = {host.name for host in self._live()}
        catching_up = any(role == "joining" and node in hosts for node, role in roles.items())
        leader = self._leader()
        is_free = leader is not None and leader.node is not None and not leader.node._member_changes.is_under_way
        return is_free and not self._joining and not catching_up and cluster.checker.members.is_complete

    def can_spare(self, machine: str) -> bool:
        """Whether the cluster can do without the node on ``machine`` for good, also while members change."""
        checker = self._cluster.checker
        voters = checker.members.newest.voters
        healthy = {host.name for host in self._hosts.values() if not host.disk_lost}
        all_vote = all(checker.nodes[voter].voter is not None for voter in voters)
        none_lost = all(node in healthy for node in self._cluster.entry.members)
        return all_vote and none_lost and len(voters) >= VOTERS_MIN and machine in self._hosts

    def is_out_of_touch(self, host: Host) -> bool:
        """Whether ``host`` knows no member that is left, so that it must be started with another cluster file."""
        if not self._cluster.changes or host.node is None or not self._cluster.is_member(host.name):
            return False
        known = {*host.node.members.entry.members, *host.configuration.members}
        return not any(other.name in known for other in self._live() if other is not host)

    def _leader(self) -> Host | None:
        hosts = [host for host in self._hosts.values() if host.alive and host.node is not None]
        return next((host for host in hosts if host.node is not None and host.node.leader == host.name), None)

    def _voters(self) -> list[Host]:
        """The hosts of the voters."""
        voters = self._cluster.entry.voters
        return [host for host in self._hosts.values() if host.name in voters]

    # from the schedule

    def change(self, kind: str, machine: str, seconds: float, rng: Random) -> None:
        """Begin a change of ``kind``, one of ``CHANGES``."""
        CHANGES[kind](self, machine, seconds, rng)

    def _join(self, machine: str, seconds: float, rng: Random) -> None:
        """Start a node with an empty disk on a free machine, and have it added."""
        free = self._free_machine(machine)
        if free and len(self._cluster.entry.voters) + len(self._joining) < VOTERS_MAX:
            self._start_node(free, "", rng.random() < LEARNER_CHANCE)

    def _promote(self, machine: str, seconds: float, rng: Random) -> None:
        learners = self._cluster.entry.learners
        if learners:
            self._request(PromoteMember(rng.choice(learners)))

    def _remove(self, machine: str, seconds: float, rng: Random) -> None:
        """Remove a member. If it leads, it hands over first in half of the cases."""
        entry = self._cluster.entry
        may_go = entry.members if len(entry.voters) > VOTERS_MIN else entry.learners
        if not may_go:
            return
        node = rng.choice(list(may_go))
        leader = self._leader()
        if leader is not None and leader.name == node and rng.random() < 0.5:
            self._hand_over(machine, seconds, rng)
            self._cluster.time.after(seconds, self._request, RemoveMember(node))
        else:
            self._request(RemoveMember(node))

    def _replace(self, machine: str, seconds: float, rng: Random) -> None:
        """Replace a voter in one step: by a learner, or by a node that joins for that."""
        entry = self._cluster.entry
        node = rng.choice(entry.voters)
        if entry.learners and rng.random() < 0.3:
            self._request(ReplaceMember(node, rng.choice(entry.learners)))
        elif free := self._free_machine(machine):
            self._start_node(free, node, is_learner=False)

    def _set_priority(self, machine: str, seconds: float, rng: Random) -> None:
        self._request(SetPriority(rng.choice(self._cluster.entry.voters), rng.choice((0, 1, 1, 5))))

    def _move(self, machine: str, seconds: float, rng: Random) -> None:
        """Give a member another port, and restart it there when the members are changed."""
        members = [host for host in self._hosts.values() if self._cluster.is_member(host.name)]
        if not members:
            return
        host = rng.choice(members)
        port = host.peer_port + CLIENT_PORT  # Even and odd ones stay apart.
        self._request(MoveMember(host.name, f"{host.machine}:{port}", f"{host.machine}:{CLIENT_PORT}"))
        self._cluster.time.after(seconds, self.follow_addresses)

    def _wipe(self, machine: str, seconds: float, rng: Random) -> None:
        """Lose the disk of the node on ``machine``. Another node, with an empty disk, replaces it there."""
        host = self._hosts.get(machine)
        if host is None or not self._cluster.is_member(host.name) or not self.can_spare(machine):
            return
        self._cluster.counts["disks wiped"] += 1
        self._take_away(host)
        self._cluster.time.after(seconds, self._start_again, machine, host.name)

    def _start_again(self, machine: str, lost: NodeId) -> None:
        if machine not in self._hosts:
            self._start_node(machine, lost, is_learner=False)

    def _return(self, machine: str, seconds: float, rng: Random) -> None:
        """Start all former members again."""
        for host in list(self._hosts.values()):
            if not host.alive and self._cluster.checker.members.is_retired(host.name):
                self._cluster.counts["former members started"] += 1
                host.start()

    def _hand_over(self, machine: str, seconds: float, rng: Random) -> None:
        leader = self._leader()
        if leader is None or leader.node is None or leader.reactor is None:
            return
        target = rng.choice([None, *self._cluster.entry.voters])
        leader.reactor.run(lambda node: node.hand_over(target).addErrback(self._refused, "hand-over"), leader.node)

    # in the calm

    def change_in_calm(self) -> None:
        """Begin a change that must end well, since nothing else is wrong."""
        rng, entry = self._rng, self._cluster.entry
        lost = [node for node in entry.members if node not in {host.name for host in self._live()}]
        leader = self._leader()
        followers = [node for node in entry.voters if leader is None or node != leader.name]
        free = self._free_machine(rng.choice(self._cluster.all_machines))
        if lost:
            self._cluster.counts["calm: lost removed"] += 1
            self._request(RemoveMember(lost[0]))
        elif len(entry.voters) > VOTERS_MIN or not free:
            self._cluster.counts["calm: removed"] += 1
            if len(entry.voters) > 1:
                self._request(RemoveMember(rng.choice(followers)))
        elif rng.random() < 0.5:
            self._cluster.counts["calm: joined"] += 1
            self._start_node(free, "", is_learner=False)
        else:
            self._cluster.counts["calm: replaced"] += 1
            self._start_node(free, rng.choice(followers or entry.voters), is_learner=False)

    def destroy_former(self) -> None:
        """Take all former members away, with their disks. They are not needed, since the last change is complete."""
        for host in list(self._hosts.values()):
            if self._cluster.checker.members.is_retired(host.name):
                self._take_away(host)

    # from the checker

    def follow_members(self) -> None:
        """A change is complete: take former members away, or leave them for later."""
        members = self._cluster.checker.members
        if not self._cluster.changes or members.completed_slot <= self._destroyed_for or not members.is_complete:
            return
        self._destroyed_for = members.completed_slot
        for host in self._hosts.values():
            if members.is_retired(host.name) and self._rng.random() < DESTROYED_CHANCE:
                self._cluster.time.after(self._rng.expovariate(1.0) * 0.1, self._take_away, host)
        self._cluster.time.after(0.0, self.follow_addresses)

    def follow_addresses(self) -> None:
        """Restart the nodes whose address is another one now, so that they listen there."""
        for host in self._hosts.values():
            one = self._cluster.entry.members.get(host.name)
            port = host.peer_port if one is None else Address.parse(one.address).port
            if port != host.peer_port:
                host.peer_port = port
                if host.alive:
                    self._cluster.counts["nodes moved"] += 1
                    host.crash()
                    host.start()

    # inside

    def _free_machine(self, first: str) -> str:
        """A machine without a node, ``first`` if it is one; empty if there is none."""
        machines = [first, *self._cluster.all_machines]
        return next((machine for machine in machines if machine not in self._hosts), "")

    def _take_away(self, host: Host) -> None:
        """Destroy the disk of ``host``. Its machine is free then."""
        if self._hosts.get(host.machine) is host:
            self._cluster.counts["disks destroyed"] += 1
            self._cluster.note(host.name, "is destroyed, with its disk")
            host.destroy()
            del self._hosts[host.machine]

    def _start_node(self, machine: str, replaces: NodeId, is_learner: bool) -> None:
        """Start a node with an empty disk, and ask for its membership until it is a member."""
        cluster = self._cluster
        host = Host(cluster, next_id(machine, cluster.entry), machine)
        self._hosts[machine] = host
        cluster.checker.joining(host.name)
        cluster.counts["nodes started to join"] += 1
        joining = _Joining(host, replaces, is_learner)
        self._joining.append(joining)
        host.start()
        self._ask_to_join(joining)

    def _ask_to_join(self, joining: _Joining) -> None:
        host, entry = joining.host, self._cluster.entry
        # A node that has lost its disk before it was a member is given up.
        is_gone = self._hosts.get(host.machine) is not host or host.disk_lost
        if is_gone or host.name in entry.members or host.name in entry.retired:
            self._joining.remove(joining)
            return
        if host.alive and host.node is not None:
            self._request(self._join_request(joining, host.node._store.incarnation))
        self._cluster.time.after(JOIN_SECONDS, self._ask_to_join, joining)

    def _join_request(self, joining: _Joining, incarnation: int) -> MembersRequest:
        """The request that brings the node nearer to its membership: a former life that votes is replaced by it, and
        one that does not is removed first."""
        host, members = joining.host, self._cluster.entry.members
        replaces = joining.replaces if joining.replaces in members else ""
        former = next((node for node in members if base_name(node) == host.machine), "")
        if former and members[former].role != "voter":
            return RemoveMember(former)
        replaces = former or replaces
        if replaces and members[replaces].role != "voter":
            replaces = ""
        role: Literal["learner", "joining"] = "learner" if joining.is_learner and not replaces else "joining"
        peers, clients = f"{host.machine}:{PEER_PORT}", f"{host.machine}:{CLIENT_PORT}"
        return AddMember(host.machine, peers, clients, incarnation, role, replaces)

    def _request(self, request: MembersRequest) -> None:
        """Ask the leader for a change, if there is one."""
        leader = self._leader()
        if leader is None or leader.node is None or leader.reactor is None:
            return
        kind = type(request).__name__
        self._cluster.note(leader.name, f"is asked for {request}")
        self._cluster.counts[f"asked for {kind}"] += 1

        def ask(node: Any) -> None:
            node.change_members(request).addCallbacks(
                self._changed, self._refused, callbackArgs=(kind,), errbackArgs=(kind,)
            )

        leader.reactor.run(ask, leader.node)

    def _changed(self, answer: Any, kind: str) -> None:
        """A leader says that a change is complete."""
        slot, entry = answer
        members = self._cluster.checker.members
        if members.entries.get(slot, entry if not slot else None) != entry or members.completed_slot < slot:
            self._cluster.violation = Violation("honest answers", f"{kind}: {entry} at {slot}, {members.newest}")
        self._cluster.counts[f"done: {kind}"] += 1

    def _refused(self, failure: Failure, kind: str) -> None:
        if not failure.check(MembersRefused, OutcomeUnknown, NodeStopped, NotHandedOver):
            self._cluster.violation = Violation("honest answers", failure.getTraceback())
        self._cluster.note("", f"{kind}: {failure.getErrorMessage()}")
        self._cluster.counts[f"{kind}: {type(failure.value).__name__}"] += 1


CHANGES: dict[str, Callable[[Operator, str, float, Random], None]] = {
    "member joins": Operator._join,
    "member promoted": Operator._promote,
    "member removed": Operator._remove,
    "member replaced": Operator._replace,
    "priority set": Operator._set_priority,
    "member moves": Operator._move,
    "disk wiped": Operator._wipe,
    "former members return": Operator._return,
    "hand-over": Operator._hand_over,
}
"""Every kind of change, by name."""
