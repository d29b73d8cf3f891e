"""All that one node with its store can do. Each action is done once, by the shipped code, and looked up from then on.

Running nodes and platters have numbers. The effect of an action depends only on the node's state. So if two states of a
model contain the same node, the same actions with the same effects are possible there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import attrs

from txpaxos.core.messages import Ballot, NodeId, PrepareLog, PromiseLog, Slot, Vote
from txpaxos.core.ready import Chosen
from txpaxos.core.replica import Replica
from txpaxos.errors import StoreError
from txpaxos.storage.discarded import DISCARDED
from txpaxos.testing.model.copies import clone
from txpaxos.testing.model.disk import ModelViolation
from txpaxos.testing.model.log import ReplicaPart
from txpaxos.testing.model.node import Sent
from txpaxos.testing.model.parts import NOW
from txpaxos.testing.model.platter import Platter
from txpaxos.testing.model.stored import FOLDER, Replicas, StoredNode
from txpaxos.testing.model.stored_key import platter_key, running_key

SNAPSHOTS = f"{FOLDER}/snapshots"
Act: TypeAlias = Callable[[StoredNode], None]
Left: TypeAlias = tuple[tuple[int, str], ...]
"""The platters that a power cut may leave, each with the system call after which it may."""


class Spent(NamedTuple):
    """How often a snapshot was begun, taken or received; how often snapshots were discarded; how often a file was
    lost."""

    snapshots: int = 0
    discards: int = 0
    losses: int = 0


@attrs.frozen
class FaultBudget:
    """How often each of these may happen, over all restarts of the node.

    :ivar snapshots: a snapshot is begun, taken or received.
    :ivar discards: the snapshots are discarded.
    :ivar losses: a file is lost whose name ends in one of ``losable``.
    """

    snapshots: int
    discards: int = 1
    losses: int = 1
    losable: tuple[str, ...] = (".segment", ".snapshot", "/snapshots")


@attrs.frozen
class Harm:
    """What may happen to a disk while its node is down: the platter afterwards, and what was spent."""

    what: str
    platter: int
    spent: Spent
    discards: bool = False


@attrs.frozen
class Moved:
    """The effect of a node's action.

    :ivar after: the node afterwards; -1 if it no longer runs.
    :ivar left: the platters that a power cut within the action may leave, before any of it was reported.
    :ivar sends: the messages sent. ``voted``: the votes that were saved and reported. ``handed_out``: the values
        applied.
    :ivar wrong: the rule that is broken, or nothing.
    """

    after: int
    left: Left = ()
    sends: tuple[Sent, ...] = ()
    voted: tuple[Vote, ...] = ()
    handed_out: tuple[Chosen, ...] = ()
    wrong: str = ""


@attrs.frozen
class Known:
    """The knowledge of a running node, for the rules.

    :ivar chosen: what it takes for chosen, by slot. ``votes``: the last vote that it knows of, by slot.
    :ivar promises: what it would promise if it were asked, from each slot on.
    :ivar left: the platters that a power cut may leave now.
    """

    promised: Ballot
    chosen_through: Slot
    chosen: dict[Slot, bytes]
    votes: dict[Slot, Vote]
    promises: tuple[PromiseLog, ...]
    left: Left


class StoredModel:
    """One node and its store.

    :param slots_max: promises are tried out from each slot up to the one after this.
    :param segment_saves: how many saves fill a segment of the journal.
    :param slow: whether saves wait for a slow disk.
    :param part: the moves that the node may make by itself; none unless given.
    :param sure: see :class:`~txpaxos.testing.model.platter.PlatterDisk`.
    """

    def __init__(
        self,
        node: NodeId,
        members: Sequence[NodeId],
        slots_max: Slot,
        segment_saves: int,
        slow: bool = False,
        part: ReplicaPart | None = None,
        sure: str = "",
    ) -> None:
        self._sure = sure
        self.node = node
        self._asker = members[0]
        self._slots_max = slots_max
        self._segment_saves = segment_saves
        self._slow = slow
        self._part = part or ReplicaPart(node, members, None, slots_max)
        self._replicas = Replicas(self._part)
        self._promises: dict[int, tuple[PromiseLog, ...]] = {}
        self._numbers: dict[object, int] = {}
        self._nodes: list[StoredNode] = []
        self._known: dict[int, Known] = {}
        self._moves: dict[tuple[int, Hashable], Moved | None] = {}
        self.platters: list[Platter] = []
        self._platter_numbers: dict[object, int] = {}
        self._starts: dict[int, Moved | str] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def running(self, number: int) -> StoredNode:
        """The node of that number, which must not be changed."""
        return self._nodes[number]

    def platter(self, platter: Platter) -> int:
        """The number of all platters on which a start finds the same."""
        number = self._platter_numbers.setdefault(platter_key(platter), len(self.platters))
        if number == len(self.platters):
            self.platters.append(platter)
        return number

    def start(self, platter: int) -> Moved | str:
        """The node that starts from that platter, or why it does not start."""
        known = self._starts.get(platter)
        if known is None:
            known = self._starts[platter] = self._start(self.platters[platter])
        return known

    def move(self, number: int, name: Hashable, act: Act, begins: bool = False) -> Moved | None:
        """The effect if node ``number`` does ``act``, which is called ``name``; ``None`` if the store refuses it now.

        :param begins: whether it begins a snapshot. Then the Checkpoint may wait for that, even if the disk is fast.
        """
        key = number, name
        if key not in self._moves:
            self._moves[key] = self._move(self._nodes[number], act, settle=not (begins or self._slow))
        return self._moves[key]

    def known(self, number: int) -> Known:
        """The knowledge of node ``number``."""
        known = self._known.get(number)
        if known is None:
            known = self._known[number] = self._look(self._nodes[number])
            self._nodes[number].disk.rest()
        return known

    def acts(self, number: int, may_begin: bool) -> Iterator[tuple[str, Act, bool]]:
        """The actions of node ``number`` with its disk: the name, the function, and whether it begins a snapshot."""
        node = self._nodes[number]
        if node.writes.given:
            yield "writes its snapshot", StoredNode.write, False
        if node.owed or node.saves.given:
            yield "saves", StoredNode.save, False
        if may_begin and node.applied_through:
            yield f"takes a snapshot at {node.applied_through}", StoredNode.take_snapshot, True

    def harms(self, number: int, spent: Spent, budget: FaultBudget) -> Iterator[Harm]:
        """What may happen to a disk while the node is down, within the budget."""
        platter = self.platters[number]
        if spent.losses < budget.losses:
            more = spent._replace(losses=spent.losses + 1)
            for path, _ in platter:
                if path.endswith(budget.losable):
                    yield Harm(f"loses {path}", self.platter(_without(platter, path)), more)
        if spent.discards < budget.discards and any(path == SNAPSHOTS for path, _ in platter):
            more = spent._replace(discards=spent.discards + 1)
            yield Harm("its snapshots are discarded", self.platter(_discarded(platter)), more, discards=True)

    # inside

    def _start(self, platter: Platter) -> Moved | str:
        try:
            node = StoredNode(self._part, self._replicas, platter, self._segment_saves, self._sure)
        except StoreError as error:
            return str(error)
        while node.owed and not self._slow:
            node.save()
        return self._moved(node)

    def _move(self, node: StoredNode, act: Act, settle: bool) -> Moved | None:
        node = clone(node)
        node.disk.calls = {}
        try:
            act(node)
            while settle and (node.owed or node.saves.given):
                node.save()
            return self._moved(node)
        except StoreError:
            return None
        except ModelViolation as violation:
            return Moved(-1, wrong=str(violation))

    def _moved(self, node: StoredNode) -> Moved:
        sends = tuple((to, envelope.message) for envelope in node.sent for to in envelope.to)
        voted, handed_out = tuple(node.voted), tuple(node.handed_out)
        node.voted, node.sent, node.handed_out = [], [], []
        calls, node.disk.calls = node.disk.calls or {}, None
        left: dict[int, str] = {}
        for platter, call in calls.items():
            left.setdefault(self.platter(platter), call)
        return Moved(self._number(node), tuple(left.items()), sends, voted, handed_out)

    def _number(self, node: StoredNode) -> int:
        number = self._numbers.setdefault(running_key(node), len(self._nodes))
        if number == len(self._nodes):
            self._nodes.append(node)
        return number

    def _look(self, node: StoredNode) -> Known:
        log = node.replica.log
        chosen = {**dict(enumerate(log.values_from(log.first_slot), log.first_slot)), **log._learned}
        votes = {slot: Vote(slot, *vote) for slot, vote in log._votes.items()}
        left = tuple(dict.fromkeys((self.platter(platter), "") for platter in node.disk.platters()))
        number = self._replicas.number(node.replica)
        if number not in self._promises:
            self._promises[number] = self._ask(clone(node.replica))
        return Known(log.promised, log.chosen_through, chosen, votes, self._promises[number], left)

    def _ask(self, replica: Replica) -> tuple[PromiseLog, ...]:
        """Its answer to a candidate that asks from each slot on."""
        promises: list[PromiseLog] = []
        for first_slot in range(1, self._slots_max + 2):
            ballot = Ballot(replica.log.promised.round + 1, self._asker)
            ready = replica.receive(self._asker, PrepareLog(ballot, first_slot), NOW)
            promises += [one.message for one in ready.send if isinstance(one.message, PromiseLog)]
        return tuple(promises)


def _without(platter: Platter, lost: str) -> Platter:
    """The platter without that file or folder."""
    return tuple((path, data) for path, data in platter if path != lost and not path.startswith(f"{lost}/"))


def _discarded(platter: Platter) -> Platter:
    """The platter after the folder of snapshots was renamed, so that the store does not read it."""
    return tuple(sorted((*_without(platter, SNAPSHOTS), (f"{FOLDER}/{DISCARDED}", None))))
