"""The bare core on an in-memory network: no adapter, no codec, and a list for a disk. It replays from a seed.

* :class:`Cluster` runs any part of the core under :class:`Faults`; :class:`CoreCluster` runs replicas of the log.
* Its :class:`Ledger` sees each record saved and each message sent, and fails at once when one cannot be right.
* :class:`ManualNetwork` is a network where the test delivers each message.
* :func:`settle`, :func:`campaign`, :func:`elect` and :func:`sent` drive a single replica by hand.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Generic, Protocol, TypeVar, cast

import attrs

from txpaxos.core.config import Limits, Timing
from txpaxos.core.messages import (
    LOWEST,
    AcceptedSlot,
    AcceptSlot,
    Ballot,
    ChosenValues,
    Heartbeat,
    LogMessage,
    Nack,
    NodeId,
    PrepareLog,
    PreVote,
    PreVoteGranted,
    PromiseLog,
    Proposal,
    ReadIndexReply,
    Slot,
    TakeOver,
    Truncated,
)
from txpaxos.core.ready import Checkpoint, Chosen, LeadershipFact, LearnedThrough, LogRecord, Promised, Ready, Voted
from txpaxos.core.replica import Replica

# ------------------------------------------------------------- what must hold


class Ledger:
    """What all disks together prove, and therefore what nodes may send.

    A value counts as chosen from the moment a quorum of disks holds a vote for it in one ballot. That is the paper's
    definition, whatever a node believes.
    """

    def __init__(self, quorum: int) -> None:
        self.quorum = quorum
        self.chosen: dict[Slot, bytes] = {}
        self.proposed: dict[tuple[Slot, Ballot], bytes] = {}
        self.voters: dict[tuple[Slot, Ballot], set[NodeId]] = {}
        self.promised: dict[NodeId, Ballot] = {}
        self.votes: dict[NodeId, dict[Slot, Proposal]] = {}

    def save(self, node: NodeId, record: LogRecord) -> None:
        """``record`` is on ``node``'s disk."""
        match record:
            case Promised(ballot):
                assert ballot > self.promised.get(node, LOWEST), (node, record)
                self.promised[node] = ballot
            case Voted(ballot, slot, value, chosen_through):
                assert ballot >= self.promised.get(node, LOWEST), (node, record)
                assert chosen_through == 0 or chosen_through in self.chosen, (node, record)
                self.promised[node] = ballot
                self.votes.setdefault(node, {})[slot] = Proposal(ballot, value)
                self._vote(node, slot, ballot, value)
            case Checkpoint(slot) | LearnedThrough(slot):
                assert self.through(slot), (node, record)
            case _:
                self._check_chosen(record.first_slot, record.values)

    def send(self, node: NodeId, message: LogMessage) -> None:
        """``node`` sends ``message``. Everything that it depends on must be on a disk by now."""
        promised, votes = self.promised.get(node, LOWEST), self.votes.get(node, {})
        match message:
            case PrepareLog(ballot):
                assert ballot.node == node, message
                assert promised >= ballot, (promised, message)
            case PromiseLog(ballot, first_slot, values, reported):
                assert promised >= ballot, (promised, message)
                self._check_chosen(first_slot, values)
                assert all(votes[slot] == (ballot, value) for slot, ballot, value in reported), (votes, message)
            case AcceptSlot(ballot, slot, value, chosen_through):
                assert ballot.node == node, message
                assert promised >= ballot, (promised, message)
                assert self.proposed.setdefault((slot, ballot), value) == value, message
                assert self.through(chosen_through), message
            case AcceptedSlot(ballot, slot):
                voted = slot in votes and votes[slot].ballot == ballot
                assert voted or self.chosen.get(slot) == self.proposed[slot, ballot], (node, votes, message)
            case Nack():
                assert message.ballot < message.promised <= promised, (promised, message)
            case Heartbeat(ballot, chosen_through) | TakeOver(ballot, chosen_through):
                assert ballot.node == node, message
                assert self.through(chosen_through), message
            case ChosenValues(first_slot, values):
                self._check_chosen(first_slot, values)
            case Truncated(first_slot):
                assert self.through(first_slot - 1), message
            case ReadIndexReply(_, slot):
                assert self.through(slot), message

    def through(self, slot: Slot) -> bool:
        """Whether every slot up to ``slot`` is chosen."""
        return slot == 0 or slot in self.chosen

    def is_quorum(self, slot: Slot, voters: set[NodeId]) -> bool:
        """Whether votes of ``voters`` make a value chosen at ``slot``."""
        return len(voters) >= self.quorum

    def _check_chosen(self, first_slot: Slot, values: tuple[bytes, ...]) -> None:
        for slot, value in enumerate(values, first_slot):
            assert self.chosen.get(slot) == value, (slot, value, self.chosen.get(slot))

    def _vote(self, node: NodeId, slot: Slot, ballot: Ballot, value: bytes) -> None:
        assert self.proposed[slot, ballot] == value, (node, slot, ballot)
        voters = self.voters.setdefault((slot, ballot), set())
        voters.add(node)
        if self.is_quorum(slot, voters):
            assert self.chosen.setdefault(slot, value) == value, (
                f"two values at {slot}: {self.chosen[slot]!r} {value!r}"
            )


# --------------------------------------------------------------- any cluster


@attrs.frozen
class Faults:
    """The faults, as probabilities, and how long things take.

    :ivar loss: a message is lost. ``doubled``: it arrives twice. Different delays reorder messages.
    :ivar crash: after a save the node stops before it sends anything that depends on it.
    :ivar save_seconds: how long a save takes. Readys wait for those before them.
    :ivar down_seconds: how long a node that crashed stays down.
    """

    loss: float = 0.0
    doubled: float = 0.0
    delay_seconds: tuple[float, float] = (0.001, 0.002)
    crash: float = 0.0
    save_seconds: tuple[float, float] = (0.0, 0.0)
    down_seconds: tuple[float, float] = (0.1, 1.0)


class Part(Protocol):
    """The part of the core that a cluster runs on each node."""

    def tick(self, now: float) -> Ready: ...

    def receive(self, sender: NodeId, message: Any, now: float) -> Ready: ...


Running = TypeVar("Running", bound=Part)


class Cluster(Generic[Running]):
    """Nodes, a clock, their disks, and a network. A subclass decides what runs on a node, and what must hold.

    :ivar disks: the records that each node has saved, in order.
    :ivar watch: called after every message that a node took: ``watch(to, sender, message, ready)``.
    :ivar told: called for every leadership fact: ``told(node, fact)``.
    """

    def __init__(self, seed: int, nodes: int = 3, faults: Faults | None = None, now: float = 0.0) -> None:
        self.rng = Random(seed)
        self.now = now
        self.faults = faults or Faults()
        self.members: tuple[NodeId, ...] = tuple("abcdefghi"[:nodes])
        self.quorum = nodes // 2 + 1
        self.disks: dict[NodeId, list[Any]] = {member: [] for member in self.members}
        self.nodes: dict[NodeId, Running] = {}
        self.cut: set[tuple[NodeId, NodeId]] = set()
        self.crashes = 0
        self.watch: Callable[[NodeId, NodeId, Any, Ready], None] = lambda to, sender, message, ready: None
        self.told: Callable[[NodeId, LeadershipFact], None] = lambda node, fact: None
        self._count = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._wakes: dict[NodeId, float] = {}
        # Readys whose save is not done: none of what they say is done either.
        self._owed: dict[NodeId, deque[Ready]] = {}

    # for the subclass

    def make(self, node: NodeId, rng: Random) -> Running:
        """A new ``node``, from what its disk holds."""
        raise NotImplementedError

    def saved(self, node: NodeId, record: Any) -> None:
        """``record`` is on the disk of ``node``."""

    def sending(self, node: NodeId, message: Any) -> None:
        """``node`` sends ``message``. Everything that it depends on must be on a disk by now."""

    def hand_out(self, node: NodeId, ready: Ready) -> None:
        """Hand the chosen values of ``ready`` to the application of ``node``."""

    # from the test

    def start(self, *nodes: NodeId) -> None:
        """Start nodes from their disks; all nodes that are down if none is named."""
        for node in nodes or self.members:
            if node not in self.nodes:
                self._owed[node] = deque()
                self._wakes.pop(node, None)
                self.nodes[node] = self.make(node, Random(self.rng.random()))
                self.take(node, self.nodes[node].tick(self.now))

    def stop(self, node: NodeId) -> None:
        """Stop ``node`` at once, which loses its memory. Of the saves under way, the first few may be on its disk."""
        under_way = [record for ready in self._owed[node] for record in ready.save]
        for record in under_way[: self.rng.randint(0, len(under_way))]:
            self._write(node, record)
        del self.nodes[node]

    def cut_off(self, node: NodeId, *, hears: bool = False, speaks: bool = False) -> None:
        """Cut the links of ``node`` to all others: both ways, or all but what it ``hears`` or ``speaks``."""
        for other in self.members:
            if other != node:
                self.cut |= {(node, other)} if hears else {(other, node)} if speaks else {(node, other), (other, node)}

    def run(self, seconds: float, until: Callable[[], object] | None = None) -> bool:
        """Let ``seconds`` pass, or fewer if ``until`` comes true. Returns whether it did."""
        deadline, acts_at_once = self.now + seconds, 0
        while not (until and until()):
            if not self._events or self._events[0][0] > deadline:
                self.now = deadline
                return False
            acts_at_once = acts_at_once + 1 if self._events[0][0] == self.now else 0
            assert acts_at_once < 10_000, "time stands still: a node wakes again and again for nothing"
            self.now, _, act = heapq.heappop(self._events)
            act()
        return True

    def heal(self) -> None:
        """End all faults, and start every node."""
        self.faults = Faults()
        self.cut.clear()
        self.start()

    def take(self, node: NodeId, ready: Ready) -> None:
        """Perform ``ready``. The timer is set now; the rest waits for the save, and for the saves before it."""
        running, wake_at = self.nodes[node], ready.wake_at
        if wake_at is not None and wake_at != self._wakes.get(node):
            self._wakes[node] = wake_at
            self._at(max(wake_at, self.now), lambda: self._wake(node, running, wake_at))
        for fact in ready.leadership:
            self.told(node, fact)
        if ready.may_bypass(self._owed[node]):
            self._send_all(node, ready)
            self.hand_out(node, ready)
            return
        self._owed[node].append(ready)
        if len(self._owed[node]) == 1:
            if self.faults.save_seconds[1]:
                self._save_later(node, running)
            else:
                self._perform(node, running)

    # what a Ready asks for

    def _save_later(self, node: NodeId, running: Running) -> None:
        seconds = self.rng.uniform(*self.faults.save_seconds) if self._owed[node][0].save else 0.0
        self._at(self.now + seconds, lambda: self._perform(node, running))

    def _perform(self, node: NodeId, running: Running) -> None:
        """The save of the oldest Ready is done: perform the rest of it, in its order."""
        if self.nodes.get(node) is not running:
            return
        ready = self._owed[node].popleft()
        for record in ready.save:
            self._write(node, record)
        if ready.save and self.rng.random() < self.faults.crash:
            self.crashes += 1
            self.stop(node)
            self._at(self.now + self.rng.uniform(*self.faults.down_seconds), lambda: self.start(node))
            return
        self._send_all(node, ready)
        self.hand_out(node, ready)
        if self._owed[node]:
            self._save_later(node, running)

    def _send_all(self, node: NodeId, ready: Ready) -> None:
        for envelope in ready.send:
            self.sending(node, envelope.message)
            for to in envelope.to:
                self._send(node, to, envelope.message)

    def _write(self, node: NodeId, record: Any) -> None:
        self.disks[node].append(record)
        self.saved(node, record)

    # the network and the clock

    def _send(self, sender: NodeId, to: NodeId, message: Any) -> None:
        if to == sender:
            running = self.nodes[to]
            self._at(self.now, lambda: self._deliver(sender, to, message, running))
        elif self.rng.random() >= self.faults.loss:
            for _ in range(1 + (self.rng.random() < self.faults.doubled)):
                when = self.now + self.rng.uniform(*self.faults.delay_seconds)
                self._at(when, lambda: self._deliver(sender, to, message, self.nodes.get(to)))

    def _deliver(self, sender: NodeId, to: NodeId, message: Any, running: Running | None) -> None:
        """Deliver a message. A message of a node to itself is lost when that node stops; other messages may reach a
        node that has restarted."""
        if running is not None and self.nodes.get(to) is running and (sender, to) not in self.cut:
            ready = running.receive(sender, message, self.now)
            self.watch(to, sender, message, ready)
            self.take(to, ready)

    def _wake(self, node: NodeId, running: Running, wake_at: float) -> None:
        if self.nodes.get(node) is running and self._wakes.get(node) == wake_at:
            del self._wakes[node]
            self.take(node, running.tick(self.now))

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._count), act))


# ------------------------------------------------------- a cluster of replicas


class CoreCluster(Cluster[Replica]):
    """Replicas of the log, all started.

    :ivar chosen: the values that each running node has handed out since it started, from slot 1 on.
    """

    def __init__(
        self,
        seed: int,
        nodes: int = 3,
        faults: Faults | None = None,
        limits: Limits | None = None,
        timing: Timing | None = None,
        now: float = 0.0,
    ) -> None:
        super().__init__(seed, nodes, faults, now)
        self.limits = limits
        self.timing = timing
        self.ledger = Ledger(self.quorum)
        self.chosen: dict[NodeId, list[Chosen]] = {member: [] for member in self.members}
        self.start()

    def make(self, node: NodeId, rng: Random) -> Replica:
        replica = Replica(node, self.members, rng, self.now, self.disks[node], self.timing, self.limits)
        self.chosen[node] = []
        self.hand_out(node, Ready(chosen=replica.recovered()))
        return replica

    def saved(self, node: NodeId, record: LogRecord) -> None:
        self.ledger.save(node, record)

    def sending(self, node: NodeId, message: LogMessage) -> None:
        self.ledger.send(node, message)

    def hand_out(self, node: NodeId, ready: Ready) -> None:
        for item in ready.chosen:
            assert isinstance(item, Chosen), item
            assert item.slot == len(self.chosen[node]) + 1, (node, item)
            assert self.ledger.chosen[item.slot] == item.value, (node, item, self.ledger.chosen[item.slot])
            self.chosen[node].append(item)

    def propose(self, value: bytes, node: NodeId | None = None) -> bool:
        """Propose at ``node``, or at the first node with a free slot. Returns whether there was one."""
        for name in (node,) if node else self.members:
            if name in self.nodes and self.nodes[name].has_room:
                self.take(name, self.nodes[name].propose(value, self.now))
                return True
        return False

    def leader(self) -> NodeId | None:
        """The node that leads with the highest ballot, if one does."""
        leading = [(replica.election.own_ballot, node) for node, replica in self.nodes.items() if replica.is_leader]
        return max(leading)[1] if leading else None

    def values(self, node: NodeId) -> list[bytes]:
        """The values that ``node`` has handed out since it started."""
        return [item.value for item in self.chosen[node]]

    def settled(self) -> bool:
        """Whether all nodes have handed out the same values, and all that were ever chosen."""
        return all(len(self.chosen[node]) == len(self.ledger.chosen) for node in self.members)


class ManualNetwork:
    """Replicas whose messages wait until the test delivers or drops them."""

    def __init__(self, nodes: int = 3, limits: Limits | None = None) -> None:
        self.members: tuple[NodeId, ...] = tuple("abcdefghi"[:nodes])
        timing = Timing(commit_notification_seconds=0.0)
        self.nodes = {
            node: Replica(node, self.members, Random(node), 0.0, timing=timing, limits=limits) for node in self.members
        }
        self.ledger = Ledger(nodes // 2 + 1)
        self.chosen: dict[NodeId, list[bytes]] = {node: [] for node in self.members}
        self.post: list[tuple[NodeId, NodeId, LogMessage]] = []
        self.now = 0.0

    def take(self, node: NodeId, ready: Ready) -> Ready:
        """Save the records, queue the messages, and check both."""
        for record in ready.save:
            self.ledger.save(node, cast(LogRecord, record))
        for envelope in ready.send:
            self.ledger.send(node, cast(LogMessage, envelope.message))
            self.post += [(node, to, cast(LogMessage, envelope.message)) for to in envelope.to]
        for item in ready.chosen:
            assert isinstance(item, Chosen), item
            assert self.ledger.chosen[item.slot] == item.value, (node, item, self.ledger.chosen[item.slot])
            self.chosen[node].append(item.value)
        return ready

    def tick(self, node: NodeId) -> Ready:
        """Let the election or heartbeat timer of ``node`` fire."""
        self.now = max(self.now, self.nodes[node].election.wake_at)
        return self.take(node, self.nodes[node].tick(self.now))

    def propose(self, node: NodeId, value: bytes) -> Ready:
        """Propose at ``node``."""
        return self.take(node, self.nodes[node].propose(value, self.now))

    def deliver(self, kind: type[LogMessage], sender: NodeId, *to: NodeId) -> None:
        """Deliver every waiting message of that kind from ``sender`` to each of ``to`` (default: to all)."""
        due = [one for one in self.post if isinstance(one[2], kind) and one[0] == sender and (not to or one[1] in to)]
        assert due, (kind, sender, to, self.post)
        for one in due:
            self.post.remove(one)
            self.take(one[1], self.nodes[one[1]].receive(sender, one[2], self.now))

    def campaign(self, node: NodeId) -> None:
        """Let ``node`` start a ballot, with the pre-votes of all nodes that do not lead."""
        self.now += 1.0  # by now every election timer is due
        self.tick(node)
        self.deliver(PreVote, node)
        for sender, to, message in self.post[:]:
            if isinstance(message, PreVoteGranted):
                self.deliver(PreVoteGranted, sender, to)

    def lead(self, node: NodeId, *quorum: NodeId) -> Ballot:
        """Let ``node`` win a ballot with the promises of ``quorum``. Its first proposals wait in the network."""
        self.campaign(node)
        self.deliver(PrepareLog, node, *quorum)
        for member in quorum:
            self.deliver(PromiseLog, member, node)
        assert self.nodes[node].is_leader
        return self.nodes[node].election.own_ballot

    def choose(self, node: NodeId, *quorum: NodeId) -> None:
        """Have all proposals of ``node`` to ``quorum`` accepted there, and the votes counted."""
        self.deliver(AcceptSlot, node, *quorum)
        for member in quorum:
            self.deliver(AcceptedSlot, member, node)
