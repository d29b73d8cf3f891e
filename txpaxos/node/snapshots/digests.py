"""State digests: whether all nodes have come to the same state by the same log.

An application may look at a clock, or at the order of a set. Then its state differs from node to node, and that goes
unnoticed until a leader dies. So nodes compare digests at each snapshot, and a node that differs from a majority stops.
The hashes of the logs are compared wherever an interval of the log ends at any node, with or without a snapshot.

A node sends its digest before it compares, since the comparison may stop it. Where nodes differ, each also sends the
digests that it has heard from the others. So a node that differs from a majority learns it even if the other nodes of
that majority are down by then.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol, TypeVar

from twisted.logger import Logger

from txpaxos.core.messages import NodeId, Slot
from txpaxos.errors import PaxosError
from txpaxos.log_lines import LineLimiter
from txpaxos.node.counts import Count, Counts
from txpaxos.wire.peer_messages import AskStateDigest, StateDigest, StateDigestsHeard

T = TypeVar("T")

SLOTS_KEPT = 16
"""For each node, the number of slots whose state hashes are kept; as many again are kept with a log hash alone."""
REPEATS_MAX = 16
"""Upper bound on how often a node reports one slot at which nodes differ to the others."""
HASH_BYTES_MAX = 64
"""The longest hash that is accepted from a peer."""


class Hashes(NamedTuple):
    """The hashes of one node at one slot: of its log, and of its state. Empty bytes stand for an unknown hash."""

    log_hash: bytes
    state_hash: bytes

    def added_to(self, before: Hashes | None) -> Hashes:
        """What is known when these hashes come after ``before``. A known state hash is kept if the log is the same."""
        same_log = before is not None and self.log_hash in (b"", before.log_hash)
        return before if before is not None and same_log and not self.state_hash else self

    def contradicts(self, other: Hashes) -> bool:
        """Whether the two differ in the log, or in known state hashes."""
        states = {self.state_hash, other.state_hash} - {b""}
        return self.log_hash != other.log_hash or len(states) > 1


NO_HASHES = Hashes(b"", b"")
"""The answer of a node that knows neither hash."""


class Comparison(enum.Enum):
    """How a snapshot that came from a peer compares with the digests of the other nodes."""

    CONFIRMED = enum.auto()
    """A majority has the same digest."""
    CONTRADICTED = enum.auto()
    """A majority has another digest; or a node has another one, all have answered, and no majority has the same."""
    UNDECIDED = enum.auto()
    """No majority has the same digest or another one, and not all nodes have answered."""
    UNKNOWN = enum.auto()
    """All nodes have answered, none contradicts, and no majority has a digest."""


class Diverged(PaxosError):
    """The state or the log of this node differs from that of a majority.

    Its ``apply`` is not deterministic, or its memory or disk is faulty. The node stops, so that no client gets an
    answer from that state.

    :ivar finding: what differs, at which slot, and which nodes agree with each other.
    """

    def __init__(self, finding: str, node: NodeId) -> None:
        super().__init__(f"{finding}; node {node} stops, see docs/operations.rst on diverged nodes")
        self.finding = finding


class Voters(Protocol):
    """The voters of the cluster, as far as this module needs them."""

    @property
    def other_voters(self) -> tuple[NodeId, ...]:
        """All voters but this node."""

    @property
    def quorum(self) -> int:
        """How many voters are a majority."""


class StateDigests:
    """The digests of all nodes, of their states and logs at the slots of snapshots, and their comparison.

    :param node: this node's id.
    :param voters: the voters. Only their digests are compared: a majority of them says what is right.
    :param tell: sends a message to some nodes.
    :param diverged: called once, with a :class:`Diverged`, if this node differs from a majority.
    :param log_hash: returns the hash of this node's log at a slot; empty bytes if it is not known, or not yet.
    :param counters: where differences are counted.
    :ivar watched: the slots of other nodes' digests that this node has not reached. Call :meth:`slot_reached` when it
        does.
    :ivar heard: called with a slot when a node has sent a new digest of it.
    """

    log = Logger()

    def __init__(
        self,
        node: NodeId,
        voters: Voters,
        tell: Callable[[tuple[NodeId, ...], StateDigest | StateDigestsHeard | AskStateDigest], None],
        diverged: Callable[[Diverged], None],
        log_hash: Callable[[Slot], bytes] = lambda slot: b"",
        watched: set[Slot] | None = None,
        counters: Counts | None = None,
    ) -> None:
        self._counters: Counts = Counter() if counters is None else counters
        self._node = node
        self._voters = voters
        self._tell = tell
        self._diverged = diverged
        self._log_hash = log_hash
        self.watched = set() if watched is None else watched
        self.heard: Callable[[Slot], None] = lambda slot: None
        self._own: dict[Slot, Hashes] = {}
        self._sent_by: dict[NodeId, dict[Slot, Hashes]] = {}
        # For each node, the digests of others that it has passed on.
        self._passed_on: dict[NodeId, dict[Slot, dict[NodeId, Hashes]]] = {}
        # The last slot at which each peer was answered: one for digests with a log hash alone, one for those that have
        # a state hash. A digest of a peer may be forgotten and come again. It must not be answered again, or two nodes
        # would answer each other's answers for ever.
        self._answered: dict[tuple[NodeId, bool], Slot] = {}
        # For slots at which nodes differ: what was reported last and how often, and the lines that were logged.
        self._reported: dict[Slot, tuple[dict[NodeId, Hashes], int]] = {}
        self._logged: dict[tuple[Slot, str], None] = {}
        self._lines = LineLimiter()
        self._is_diverged = False

    # from this node

    def remember(self, digest: StateDigest) -> None:
        """Note the digest of this node's own snapshot. It is sent only to nodes that ask or differ."""
        _keep_hashes(self._own, digest.slot, Hashes(digest.log_hash, digest.state_hash))

    def announce(self, digest: StateDigest) -> None:
        """Send a digest of this node's own state or log to all others, and compare it with theirs."""
        self.remember(digest)
        self._tell(self._voters.other_voters, digest)
        self._compare(digest.slot)

    def slot_reached(self, slot: Slot, log_hash: bytes) -> None:
        """Send and compare the log hash of ``slot``, where an interval of the log ends or which is :attr:`watched`."""
        self.watched.discard(slot)
        self.announce(StateDigest(slot, log_hash, b""))
        for other in sorted(self._reported)[-1:]:
            self._report(other, self._known_hashes(other))  # An earlier report may have been lost.

    # from others

    def receive(self, sender: NodeId, digest: StateDigest) -> None:
        """Compare the digest of ``sender``."""
        slot, hashes = digest.slot, Hashes(digest.log_hash, digest.state_hash)
        if not self._is_sound(hashes) or not self._is_voter(sender):
            return
        said = self._sent_by.setdefault(sender, {})
        before = said.get(slot)
        known = _keep_hashes(said, slot, hashes)
        if known != NO_HASHES and self._find_own(slot):
            if before is None or bool(known.state_hash) > bool(before.state_hash):
                self._answer_once(sender, slot, bool(known.state_hash))
            self._compare(slot)
        self._watch()
        self.heard(slot)

    def receive_digests_heard(self, sender: NodeId, message: StateDigestsHeard) -> None:
        """Compare the digests of other nodes that ``sender`` passes on."""
        slot = message.slot
        known = {node: Hashes(log_hash, state_hash) for node, log_hash, state_hash in message.audits}
        told = {node: hashes for node, hashes in known.items() if node in self._voters.other_voters and node != sender}
        if not all(map(self._is_sound, told.values())) or not self._is_voter(sender):
            return
        _keep(self._passed_on.setdefault(sender, {}), slot, told)
        if self._find_own(slot):
            self._compare(slot)
        self._watch()

    def answer(self, asker: NodeId, slot: Slot) -> None:
        """Send this node's digest of ``slot`` to ``asker``, and those of others if nodes differ there."""
        self._find_own(slot)
        self._tell((asker,), self._digest(slot))
        known = self._known_hashes(slot)
        if self._differ(known.values()):
            self._tell((asker,), self._digests_heard(slot, known))

    # for a snapshot that came from a peer

    def ask_others(self, slot: Slot) -> None:
        """Ask all other nodes for their digests of ``slot``."""
        self._tell(self._voters.other_voters, AskStateDigest(slot))

    def compare(self, digest: StateDigest) -> tuple[Comparison, tuple[NodeId, ...]]:
        """Compare ``digest`` with those that the other nodes have sent themselves.

        :returns: the result, and the nodes that have the same digest.
        """
        hashes = Hashes(digest.log_hash, digest.state_hash)
        known = {node: said[digest.slot] for node, said in self._sent_by.items() if digest.slot in said}
        against = self._against(digest)
        same = tuple(sorted(node for node, one in known.items() if one == hashes))
        if len(same) >= self._voters.quorum:
            return Comparison.CONFIRMED, same
        if any(sum(not one.contradicts(other) for other in against) >= self._voters.quorum for one in against):
            return Comparison.CONTRADICTED, same
        if len(known) < len(self._voters.other_voters):
            return Comparison.UNDECIDED, same
        return (Comparison.CONTRADICTED if against else Comparison.UNKNOWN), same

    def is_contradicted(self, digest: StateDigest) -> bool:
        """Whether any node has sent another digest of the same slot."""
        return bool(self._against(digest))

    def describe(self, slot: Slot) -> str:
        """The known digests of ``slot``, abbreviated, for an error text."""
        known = sorted(self._known_hashes(slot).items())
        return ", ".join(f"{node} has {one.log_hash.hex()[:8]}/{one.state_hash.hex()[:8]}" for node, one in known)

    def _against(self, digest: StateDigest) -> list[Hashes]:
        hashes = Hashes(digest.log_hash, digest.state_hash)
        known = [said[digest.slot] for said in self._sent_by.values() if said.get(digest.slot, NO_HASHES) != NO_HASHES]
        return [one for one in known if one.contradicts(hashes)]

    def forget_unknown(self, slot: Slot) -> None:
        """Forget which nodes had no digest of ``slot``: they may have one by now."""
        for said in self._sent_by.values():
            if said.get(slot) == NO_HASHES:
                del said[slot]

    # inside

    def _is_voter(self, sender: NodeId) -> bool:
        """Whether ``sender`` is a voter. What former voters have said is forgotten here."""
        voters = self._voters.other_voters
        for known in (self._sent_by, self._passed_on):
            for former in known.keys() - set(voters):
                del known[former]
        return sender in voters

    def _is_sound(self, hashes: Hashes) -> bool:
        return max(map(len, hashes)) <= HASH_BYTES_MAX and (hashes == NO_HASHES or bool(hashes.log_hash))

    def _find_own(self, slot: Slot) -> bool:
        """Whether this node has a digest of ``slot``. It may be made of the log hash alone."""
        if slot not in self._own and (log_hash := self._log_hash(slot)):
            _keep_hashes(self._own, slot, Hashes(log_hash, b""))
        return slot in self._own

    def _watch(self) -> None:
        """Watch for all slots of the others' digests of which this node has none, whether reached or not."""
        self.watched.clear()
        for said in self._sent_by.values():
            self.watched.update(slot for slot in said if slot not in self._own)
        for passed_on in self._passed_on.values():
            self.watched.update(slot for slot in passed_on if slot not in self._own)

    def _answer_once(self, sender: NodeId, slot: Slot, has_state: bool) -> None:
        """Send this node's digest to ``sender``, once for each slot: an earlier one may have been lost."""
        if slot > self._answered.get((sender, has_state), 0):
            self._answered[sender, has_state] = slot
            self._tell((sender,), self._digest(slot))

    def _digest(self, slot: Slot) -> StateDigest:
        return StateDigest(slot, *self._own.get(slot, NO_HASHES))

    def _digests_heard(self, slot: Slot, known: dict[NodeId, Hashes]) -> StateDigestsHeard:
        return StateDigestsHeard(
            slot, tuple((node, *hashes) for node, hashes in sorted(known.items()) if node != self._node)
        )

    def _known_hashes(self, slot: Slot) -> dict[NodeId, Hashes]:
        """The known hashes of ``slot`` by node. What a node has sent itself replaces what others have passed on."""
        known: dict[NodeId, Hashes] = {}
        for passed_on in self._passed_on.values():
            known |= passed_on.get(slot, {})
        known |= {node: said[slot] for node, said in self._sent_by.items() if said.get(slot, NO_HASHES) != NO_HASHES}
        if slot in self._own:
            known[self._node] = self._own[slot]
        return known

    def _differ(self, known: Iterable[Hashes]) -> bool:
        logs, states = {hashes.log_hash for hashes in known}, {hashes.state_hash for hashes in known} - {b""}
        return len(logs) > 1 or len(states) > 1

    def _compare(self, slot: Slot) -> None:
        """Compare all known hashes of ``slot``, and report a difference.

        This node has diverged if it is not with a majority. It also has if no group of equal nodes can become a
        majority any more: then it is unknown which nodes are right.
        """
        known = self._known_hashes(slot)
        if not self._differ(list(known.values())):
            return
        self._report_once(slot, known)
        compared = {node: hashes.log_hash for node, hashes in known.items()}
        what = "log"
        if len(set(compared.values())) == 1:
            compared = {node: hashes.state_hash for node, hashes in known.items() if hashes.state_hash}
            what = "state"
        groups = [[node for node, one in compared.items() if one == kind] for kind in set(compared.values())]
        told = " against ".join(sorted(", ".join(sorted(group)) for group in groups))
        line = f"the {what} differs at slot {slot}: {told}"
        silent = 1 + len(self._voters.other_voters) - len(compared)
        largest = max(groups, key=len)
        if len(largest) >= self._voters.quorum and self._node in largest:
            self._log_finding("{line}; this node, {node}, is with the majority", slot, line, event="state_differs")
        elif len(largest) + silent < self._voters.quorum or (
            len(largest) >= self._voters.quorum and self._node in compared
        ):
            self._log_finding("{line}; this node, {node}, is not with a majority", slot, line, event="state_diverged")
            if not self._is_diverged:
                self._is_diverged = True
                self._diverged(Diverged(line, self._node))
        else:
            text = "{line}; which nodes are right is not known before more nodes have sent their hashes"
            self._log_finding(text, slot, line, event="state_differs")

    def _report_once(self, slot: Slot, known: dict[NodeId, Hashes]) -> None:
        """Report the known hashes of ``slot`` to all others, unless these were reported already."""
        if slot not in self._reported or self._reported[slot][0] != known:
            self._report(slot, known)

    def _report(self, slot: Slot, known: dict[NodeId, Hashes]) -> None:
        """Report the known hashes of ``slot`` to all others, up to :data:`REPEATS_MAX` times.

        Only the highest slots are counted. A lower one is not reported: its count was dropped, and would start again
        each time.
        """
        count = self._reported[slot][1] if slot in self._reported else 0
        self._reported[slot] = known, count + 1
        if len(self._reported) > SLOTS_KEPT:
            del self._reported[min(self._reported)]
        if count < REPEATS_MAX and slot in self._reported:
            self._tell(self._voters.other_voters, self._digest(slot))
            self._tell(self._voters.other_voters, self._digests_heard(slot, known))

    def _log_finding(self, text: str, slot: Slot, line: str, *, event: str) -> None:
        if (slot, line + text) not in self._logged:
            self._logged[slot, line + text] = None
            self._counters[Count.STATES_DIFFER] += 1
            more = self._lines.admits("differs")
            if more is not None:
                self.log.critical(text + "{more}", line=line, slot=slot, node=self._node, more=more, event=event)
        while len(self._logged) > 4 * SLOTS_KEPT:
            del self._logged[next(iter(self._logged))]


def _keep_hashes(known: dict[Slot, Hashes], slot: Slot, hashes: Hashes) -> Hashes:
    """Add ``hashes`` to what is known of ``slot``.

    Hashes with and without a state are bounded separately: the many without one must not displace those with one.

    :returns: what is known of ``slot`` now.
    """
    known[slot] = hashes = hashes.added_to(known.pop(slot, None))
    alike = [one for one, other in known.items() if bool(other.state_hash) == bool(hashes.state_hash)]
    for old in alike[:-SLOTS_KEPT]:
        del known[old]
    return hashes


def _keep(known: dict[Slot, T], slot: Slot, what: T) -> None:
    """Add ``what`` for ``slot``, and drop the oldest entries beyond :data:`SLOTS_KEPT`."""
    known.pop(slot, None)
    known[slot] = what
    while len(known) > SLOTS_KEPT:
        del known[next(iter(known))]
