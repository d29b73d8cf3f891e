"""Do all nodes make the same of the same log? Each tells the others what it has come to.

An application that looks at a clock, or at the order of a set, comes to another state on each node, and nobody notices
until a leader dies. Here it is noticed at the next snapshot: the node that differs from a majority stops. Logs are
compared where an interval of the log ends at any node, whether or not there is a snapshot.

First a node tells, then it judges, for it may stop at that. Where nodes differ, each tells what it has heard from the
others, too: one that differs from a majority is to know, even if that majority's other nodes are down by now.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from twisted.logger import Logger

from txpaxos.core.messages import NodeId, Slot
from txpaxos.errors import PaxosError
from txpaxos.log_lines import LineLimiter
from txpaxos.wire.peer_messages import AskStateDigest, StateDigest, StateDigestsHeard

T = TypeVar("T")

SLOTS_KEPT = 16
"""Of so many slots it is remembered what each node has said of its state, and of so many what of its log alone."""
REPEATS_MAX = 16
"""So often a node tells the others of one slot at which they differ."""
HASH_BYTES_MAX = 64


class Hashes(NamedTuple):
    """What a node says of a slot: the hash of its log there, and that of its state (empty: it does not know it)."""

    log_hash: bytes
    state_hash: bytes

    def added_to(self, before: Hashes | None) -> Hashes:
        """What is known now, if this is said after ``before``: the same log, without a state, takes nothing back."""
        same_log = before is not None and self.log_hash in (b"", before.log_hash)
        return before if before is not None and same_log and not self.state_hash else self

    def contradicts(self, other: Hashes) -> bool:
        """Whether both cannot be right."""
        states = {self.state_hash, other.state_hash} - {b""}
        return self.log_hash != other.log_hash or len(states) > 1


NO_HASHES = Hashes(b"", b"")
"""What a node says that was asked and does not know."""


class Comparison(enum.Enum):
    """What others say of a snapshot that came from one of them."""

    CONFIRMED = enum.auto()
    """A majority has the same."""
    CONTRADICTED = enum.auto()
    """A majority has another; or some have another, and no majority has the same though all have answered."""
    UNDECIDED = enum.auto()
    """No majority is known, and not all have answered."""
    UNKNOWN = enum.auto()
    """All have answered, no majority knows, and nobody contradicts."""


class Diverged(PaxosError):
    """This node has made something else of the log than the majority. Its ``apply`` is not deterministic, or its memory
    or disk is at fault. It stops, so that nobody is told what it believes.

    :ivar finding: what differs, at which slot, and who is against whom.
    """

    def __init__(self, finding: str, node: NodeId) -> None:
        super().__init__(f"{finding}; node {node} stops, see docs/operations.rst on diverged nodes")
        self.finding = finding


class StateDigests:
    """What the nodes say of their states at the slots of snapshots, and of their logs there.

    :param quorum: how many nodes are a majority.
    :param tell: sends a message to some nodes.
    :param diverged: called once, with a :class:`Diverged`, if this node is the one that is wrong.
    :param log_hash: tells the hash of this node's log at a slot; empty if it is not known, or not yet.
    :ivar watched: slots that others spoke of and this node has not reached: tell :meth:`slot_reached` when it does.
    :ivar heard: called with a slot when a node has said something new of it.
    """

    log = Logger()

    def __init__(
        self,
        node: NodeId,
        others: tuple[NodeId, ...],
        quorum: int,
        tell: Callable[[tuple[NodeId, ...], StateDigest | StateDigestsHeard | AskStateDigest], None],
        diverged: Callable[[Diverged], None],
        log_hash: Callable[[Slot], bytes] = lambda slot: b"",
        watched: set[Slot] | None = None,
    ) -> None:
        self._node = node
        self._others = others
        self._quorum = quorum
        self._tell = tell
        self._diverged = diverged
        self._log_hash = log_hash
        self.watched = set() if watched is None else watched
        self.heard: Callable[[Slot], None] = lambda slot: None
        self._own: dict[Slot, Hashes] = {}
        self._said: dict[NodeId, dict[Slot, Hashes]] = {other: {} for other in others}
        # By who told it: what others have said to that node.
        self._passed_on: dict[NodeId, dict[Slot, dict[NodeId, Hashes]]] = {other: {} for other in others}
        # The last slot at which each peer was answered: one for digests with a log hash alone, one for those that have
        # a state hash. A digest of a peer may be forgotten and come again. It must not be answered again, or two nodes
        # would answer each other's answers for ever.
        self._answered: dict[tuple[NodeId, bool], Slot] = {}
        # Of slots at which nodes differ: what was told of it last and how often, and the lines that were logged.
        self._told: dict[Slot, tuple[dict[NodeId, Hashes], int]] = {}
        self._logged: dict[tuple[Slot, str], None] = {}
        self._lines = LineLimiter()
        self._is_diverged = False

    # from this node

    def remember(self, digest: StateDigest) -> None:
        """What this node makes of a slot, from a snapshot that it has. It is told when somebody asks, or differs."""
        word = Hashes(digest.log_hash, digest.state_hash)
        _keep_word(self._own, digest.slot, word)

    def announce(self, digest: StateDigest) -> None:
        """This node has taken a snapshot, or starts from one."""
        self._announce(digest)

    def slot_reached(self, slot: Slot, log_hash: bytes) -> None:
        """An interval of the log ends here, or this slot is :attr:`watched`."""
        self.watched.discard(slot)
        self._announce(StateDigest(slot, log_hash, b""))
        for other in sorted(self._told)[-1:]:
            self._tell_of(other, self._words(other))  # What was told of it may have been lost.

    # from others

    def receive(self, sender: NodeId, digest: StateDigest) -> None:
        """``sender`` says what it has come to."""
        slot, word = digest.slot, Hashes(digest.log_hash, digest.state_hash)
        if not self._is_sound(word):
            return
        before = self._said[sender].get(slot)
        known = _keep_word(self._said[sender], slot, word)
        if known != NO_HASHES and self._find_own(slot):
            if before is None or bool(known.state_hash) > bool(before.state_hash):
                self._answer_once(sender, slot, bool(known.state_hash))
            self._compare(slot)
        self._watch()
        self.heard(slot)

    def receive_digests_heard(self, sender: NodeId, message: StateDigestsHeard) -> None:
        """``sender`` tells what others have said to it."""
        slot = message.slot
        words = {node: Hashes(log_hash, state_hash) for node, log_hash, state_hash in message.audits}
        told = {node: word for node, word in words.items() if node in self._others and node != sender}
        if not all(map(self._is_sound, told.values())):
            return
        _keep(self._passed_on[sender], slot, told)
        if self._find_own(slot):
            self._compare(slot)
        self._watch()

    def answer(self, asker: NodeId, slot: Slot) -> None:
        """``asker`` wants to hear what this node says of ``slot``."""
        self._find_own(slot)
        self._tell((asker,), self._digest(slot))
        words = self._words(slot)
        if self._differ(words.values()):
            self._tell((asker,), self._digests_heard(slot, words))

    # for a snapshot that came from one of them

    def ask_others(self, slot: Slot) -> None:
        """Ask all others what they say of ``slot``."""
        self._tell(self._others, AskStateDigest(slot))

    def compare(self, digest: StateDigest) -> tuple[Comparison, tuple[NodeId, ...]]:
        """What the others say, each of itself, of a snapshot with these hashes; and who says that it is right."""
        word = Hashes(digest.log_hash, digest.state_hash)
        words = {node: said[digest.slot] for node, said in self._said.items() if digest.slot in said}
        against = self._against(digest)
        same = tuple(sorted(node for node, one in words.items() if one == word))
        if len(same) >= self._quorum:
            return Comparison.CONFIRMED, same
        if any(sum(not one.contradicts(other) for other in against) >= self._quorum for one in against):
            return Comparison.CONTRADICTED, same
        if len(words) < len(self._others):
            return Comparison.UNDECIDED, same
        return (Comparison.CONTRADICTED if against else Comparison.UNKNOWN), same

    def is_contradicted(self, digest: StateDigest) -> bool:
        """Whether any node says something else of a snapshot with these hashes."""
        return bool(self._against(digest))

    def describe(self, slot: Slot) -> str:
        """Who has said what of ``slot``, for people."""
        words = sorted(self._words(slot).items())
        return ", ".join(f"{node} has {word.log_hash.hex()[:8]}/{word.state_hash.hex()[:8]}" for node, word in words)

    def _against(self, digest: StateDigest) -> list[Hashes]:
        word = Hashes(digest.log_hash, digest.state_hash)
        words = [said[digest.slot] for said in self._said.values() if said.get(digest.slot, NO_HASHES) != NO_HASHES]
        return [one for one in words if one.contradicts(word)]

    def forget_unknown(self, slot: Slot) -> None:
        """Who is asked about ``slot`` may have something else to say than before."""
        for said in self._said.values():
            if said.get(slot) == NO_HASHES:
                del said[slot]

    # inside

    def _announce(self, digest: StateDigest) -> None:
        self.remember(digest)
        self._tell(self._others, digest)
        self._compare(digest.slot)

    def _is_sound(self, word: Hashes) -> bool:
        return max(map(len, word)) <= HASH_BYTES_MAX and (word == NO_HASHES or bool(word.log_hash))

    def _find_own(self, slot: Slot) -> bool:
        """Whether this node can say anything of ``slot``."""
        if slot not in self._own and (log_hash := self._log_hash(slot)):
            _keep_word(self._own, slot, Hashes(log_hash, b""))
        return slot in self._own

    def _watch(self) -> None:
        """Wait for the slots that others have spoken of and this node does not know, be they to come or long past."""
        self.watched.clear()
        for said in self._said.values():
            self.watched.update(slot for slot in said if slot not in self._own)
        for passed_on in self._passed_on.values():
            self.watched.update(slot for slot in passed_on if slot not in self._own)

    def _answer_once(self, sender: NodeId, slot: Slot, has_state: bool) -> None:
        """Tell ``sender`` what this node has: what was told it before may have been lost."""
        if slot > self._answered.get((sender, has_state), 0):
            self._answered[sender, has_state] = slot
            self._tell((sender,), self._digest(slot))

    def _digest(self, slot: Slot) -> StateDigest:
        return StateDigest(slot, *self._own.get(slot, NO_HASHES))

    def _digests_heard(self, slot: Slot, words: dict[NodeId, Hashes]) -> StateDigestsHeard:
        return StateDigestsHeard(
            slot, tuple((node, *word) for node, word in sorted(words.items()) if node != self._node)
        )

    def _words(self, slot: Slot) -> dict[NodeId, Hashes]:
        """What is known of ``slot``. What a node says itself counts more than what another says that it said."""
        words: dict[NodeId, Hashes] = {}
        for passed_on in self._passed_on.values():
            words |= passed_on.get(slot, {})
        words |= {node: said[slot] for node, said in self._said.items() if said.get(slot, NO_HASHES) != NO_HASHES}
        if slot in self._own:
            words[self._node] = self._own[slot]
        return words

    def _differ(self, words: Iterable[Hashes]) -> bool:
        logs, states = {word.log_hash for word in words}, {word.state_hash for word in words} - {b""}
        return len(logs) > 1 or len(states) > 1

    def _compare(self, slot: Slot) -> None:
        """If some differ at this slot, say so. Whoever has no majority is wrong; if nobody can have one any more,
        nobody knows."""
        words = self._words(slot)
        if not self._differ(list(words.values())):
            return
        self._spread(slot, words)
        hashes = {node: word.log_hash for node, word in words.items()}
        what = "log"
        if len(set(hashes.values())) == 1:
            hashes = {node: word.state_hash for node, word in words.items() if word.state_hash}
            what = "state"
        groups = [[node for node, one in hashes.items() if one == kind] for kind in set(hashes.values())]
        told = " against ".join(sorted(", ".join(sorted(group)) for group in groups))
        line = f"the {what} differs at slot {slot}: {told}"
        silent = 1 + len(self._others) - len(hashes)
        largest = max(groups, key=len)
        if len(largest) >= self._quorum and self._node in largest:
            self._log_finding("{line}; this node, {node}, is with the majority", slot, line)
        elif len(largest) + silent < self._quorum or (len(largest) >= self._quorum and self._node in hashes):
            self._log_finding("{line}; this node, {node}, is not with a majority", slot, line)
            if not self._is_diverged:
                self._is_diverged = True
                self._diverged(Diverged(line, self._node))
        else:
            self._log_finding(
                "{line}; who is right is not known before more nodes have told what they have", slot, line
            )

    def _spread(self, slot: Slot, words: dict[NodeId, Hashes]) -> None:
        """Tell all others what all have said of ``slot``, unless they were told that already."""
        if slot not in self._told or self._told[slot][0] != words:
            self._tell_of(slot, words)

    def _tell_of(self, slot: Slot, words: dict[NodeId, Hashes]) -> None:
        """Tell all others what ``words`` say of ``slot``, :data:`REPEATS_MAX` times at most. Only the highest slots
        are counted. A lower one is not told of: its count is forgotten, and would begin again each time."""
        count = self._told[slot][1] if slot in self._told else 0
        self._told[slot] = words, count + 1
        if len(self._told) > SLOTS_KEPT:
            del self._told[min(self._told)]
        if count < REPEATS_MAX and slot in self._told:
            self._tell(self._others, self._digest(slot))
            self._tell(self._others, self._digests_heard(slot, words))

    def _log_finding(self, text: str, slot: Slot, line: str) -> None:
        if (slot, line + text) not in self._logged:
            self._logged[slot, line + text] = None
            more = self._lines.admits("differs")
            if more is not None:
                self.log.critical(text + "{more}", line=line, node=self._node, more=more)
        while len(self._logged) > 4 * SLOTS_KEPT:
            del self._logged[next(iter(self._logged))]


def _keep_word(known: dict[Slot, Hashes], slot: Slot, word: Hashes) -> Hashes:
    """Remember ``word`` beside what was said of ``slot`` before. The many that tell nothing of a state do not take the
    place of those that do. Returns what is known of ``slot`` now."""
    known[slot] = word = word.added_to(known.pop(slot, None))
    alike = [one for one, other in known.items() if bool(other.state_hash) == bool(word.state_hash)]
    for old in alike[:-SLOTS_KEPT]:
        del known[old]
    return word


def _keep(known: dict[Slot, T], slot: Slot, what: T) -> None:
    """Remember ``what`` of ``slot``, and forget what was remembered longest ago."""
    known.pop(slot, None)
    known[slot] = what
    while len(known) > SLOTS_KEPT:
        del known[next(iter(known))]
