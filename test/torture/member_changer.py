"""Performs the faults of the plan that change the members, or the leader, on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from test.torture.nodes import NamespacedCluster
from test.torture.plan import JOINS, Fault, Kind
from test.torture.roster import Newcomer
from txpaxos.cli.running import CommandError, request
from txpaxos.cli.status import ask_nodes
from txpaxos.client import Client
from txpaxos.errors import (
    MembersRefused,
    NoQuorum,
    NotChosen,
    NotHandedOver,
    OutcomeUnknown,
    Overloaded,
    PaxosError,
    QueryFailed,
)

CHANGE_SECONDS_MAX = 90.0
"""How long a change may take, with all refusals, while another fault comes and goes."""

ASK_SECONDS = 20.0
AGAIN_SECONDS = 0.3
LOOK_SECONDS = 1.0
HAND_OVER_SECONDS = 3.0
LEAVING_SECONDS_MAX = 30.0
"""How long a node that was removed may run until it knows."""

NOT_NOW = (MembersRefused, OutcomeUnknown, NoQuorum, NotChosen, Overloaded)
"""What a change may end in for a while, for another fault is under way. Then it is asked for again."""


class MemberChanger:
    """Lets nodes join, leave, move and lead.

    :ivar counts: how often changes were refused at first, joins ended before they were done, and hand-overs failed.
    """

    def __init__(self, reactor: Any, nodes: NamespacedCluster) -> None:
        self.counts = {"refused at first": 0, "joins begun again": 0, "hand-overs not done": 0}
        self._reactor = reactor
        self._nodes = nodes

    async def prepare(self, fault: Fault) -> None:
        """Do what comes before the round: the node that is to leave or to move leads, if the plan says so."""
        if fault.newcomer is not None:
            self._nodes.expect(fault.newcomer, fault.node if fault.kind is Kind.REPLACE else "")
        if fault.aims_at_leader and fault.kind not in {*JOINS, Kind.HAND_OVER}:
            await self._hand_over(fault.node)

    async def perform(self, fault: Fault) -> None:
        """Perform ``fault``.

        :raises CommandError: if the change cannot be made, or a node that was removed does not know it.
        """
        match fault.kind:
            case Kind.JOIN | Kind.JOIN_KILLED | Kind.REPLACE:
                await self._join(fault)
            case Kind.REMOVE:
                await self._remove(fault.node)
                await self._nodes.kill(fault.node)
                self._nodes.destroy(fault.node)
                self._nodes.forget(fault.node)
            case Kind.RETURN:
                await self._return(fault)
            case Kind.MOVE:
                await self._move(fault)
            case Kind.HAND_OVER:
                await self._hand_over(fault.node)

    async def _join(self, fault: Fault) -> None:
        """A node joins, with an empty folder; maybe in place of a dead one, whose folder is lost."""
        newcomer = fault.newcomer
        assert newcomer is not None
        if fault.kind is Kind.REPLACE:
            await self._nodes.kill(fault.node)
            self._nodes.destroy(fault.node)
        self._nodes.begin_join(newcomer, fault.order[-1])
        if fault.kind is Kind.JOIN_KILLED:
            await self._sleep(fault.seconds)
            await self._nodes.kill(newcomer.node)
            self._nodes.start(newcomer.node)
        await self._until_it_votes(newcomer)
        if fault.kind is Kind.REPLACE:
            self._nodes.forget(fault.node)
        self._nodes.add(newcomer.node)

    async def _until_it_votes(self, newcomer: Newcomer) -> None:
        """Wait until a node that joins is a voter. Another fault may keep it from joining: then it is started again, as
        its owner would."""
        give_up_at = self._reactor.seconds() + CHANGE_SECONDS_MAX
        while not await self._votes(newcomer.node):
            if self._reactor.seconds() > give_up_at:
                said = self._nodes.last_line(newcomer.node)
                raise CommandError(f"node {newcomer.node} did not join within {CHANGE_SECONDS_MAX:g} s: {said}")
            if self._nodes.processes[newcomer.node].ended:
                self.counts["joins begun again"] += 1
                self._nodes.start(newcomer.node)
            await self._sleep(AGAIN_SECONDS)

    async def _votes(self, node: str) -> bool:
        try:
            report = await request(self._reactor, self._nodes.cluster, LOOK_SECONDS, lambda client: client.members())
        except (PaxosError, QueryFailed):
            return False
        return node in report["members"] and report["members"][node]["role"] == "voter"

    async def _return(self, fault: Fault) -> None:
        """A member is removed. It is told so and ends, or was down and ends when it is started again. Nothing comes of
        its own wish to lead, and its folder does not start again."""
        node = fault.node
        if not fault.aims_at_leader:
            await self._nodes.kill(node)
        await self._remove(node)
        self._nodes.retire(node)
        if not fault.aims_at_leader:
            self._nodes.start(node)
        process = self._nodes.former(node)
        give_up_at = self._reactor.seconds() + LEAVING_SECONDS_MAX
        while not process.ended:
            if self._reactor.seconds() > give_up_at:
                raise CommandError(f"node {node} was removed, and runs on after {LEAVING_SECONDS_MAX:g} s")
            statuses = await ask_nodes(self._reactor, self._nodes.cluster, LOOK_SECONDS)
            for other, status in statuses.items():
                if status is not None and not fault.aims_at_leader and status["promised"].endswith(f".{node}"):
                    raise CommandError(f"node {other} has promised {status['promised']} to {node}, which was removed")
            await self._sleep(AGAIN_SECONDS)
        self._nodes.check_told(node)
        await self._nodes.check_refused(node)

    async def _move(self, fault: Fault) -> None:
        """A member is stopped, gets other addresses, and is started there."""
        node = fault.node
        await self._nodes.kill(node)
        member = self._nodes.settle(node, fault.place)
        address, client = member.address.written, member.client.written
        await self._change(
            f"a move of {node}", lambda asked: asked.change_members("move", node, address=address, client=client)
        )
        self._nodes.move(node)
        self._nodes.start(node)

    async def _remove(self, node: str) -> None:
        await self._change(f"the removal of {node}", lambda client: client.change_members("remove", node))

    async def _change(self, what: str, ask: Callable[[Client], Deferred[str]]) -> None:
        """Ask for a change until it is complete."""
        give_up_at = self._reactor.seconds() + CHANGE_SECONDS_MAX
        while True:
            try:
                await request(self._reactor, self._nodes.cluster, ASK_SECONDS, ask)
                return
            except NOT_NOW as error:
                if self._reactor.seconds() > give_up_at:
                    raise CommandError(f"{what} was not complete within {CHANGE_SECONDS_MAX:g} s: {error}") from None
                self.counts["refused at first"] += 1
            await self._sleep(AGAIN_SECONDS)

    async def _hand_over(self, node: str) -> None:
        try:
            await request(self._reactor, self._nodes.cluster, HAND_OVER_SECONDS, lambda client: client.hand_over(node))
        except (NotHandedOver, *NOT_NOW):
            self.counts["hand-overs not done"] += 1

    async def _sleep(self, seconds: float) -> None:
        await deferLater(self._reactor, seconds)
