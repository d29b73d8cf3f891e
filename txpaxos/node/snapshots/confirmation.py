"""Confirmation of a snapshot that came from a peer: the other nodes are asked for their digests before it is used.

A snapshot that a majority has is used. A snapshot that a majority contradicts is not. Neither may be known, since other
nodes are down or have no snapshot of that slot. Then a node waits for :data:`CONFIRM_SECONDS`, and uses the snapshot if
no node has contradicted it. A single running peer must be able to bring a node back. The log says which nodes had the
same snapshot.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txpaxos.core.messages import NodeId
from txpaxos.node.counts import Count, Counts
from txpaxos.node.snapshots.digests import Comparison, StateDigests
from txpaxos.node.snapshots.transfer import SnapshotRefused
from txpaxos.wire.peer_messages import StateDigest

CONFIRM_SECONDS = 2.0
"""How long a node waits for the digests of the others, if they do not all answer."""
ASK_SECONDS = 0.5
"""The time between two requests for digests."""


class Confirmation:
    """Asks the other nodes for their digests of a snapshot, of one snapshot at a time.

    :param digests: the digests of all nodes.
    :param counters: counts contradicted snapshots.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, digests: StateDigests, counters: Counts) -> None:
        self._clock = clock
        self._digests = digests
        self._counters = counters
        self._waiting: Deferred[None] | None = None
        self._peer: NodeId = ""
        self._digest = StateDigest(1, b"", b"")
        self._began_at = 0.0
        self._timer: IDelayedCall | None = None

    def confirm(self, peer: NodeId, digest: StateDigest) -> Deferred[None]:
        """Find out whether a snapshot from ``peer`` may be used. A call before this one is forgotten.

        :param digest: the digest of the snapshot's contents.
        :returns: fires if it may be used; fails with
            :class:`~txpaxos.node.snapshots.transfer.SnapshotRefused` if it may not.
        """
        self.stop()
        self._peer, self._digest = peer, digest
        self._began_at = self._clock.seconds()
        waiting: Deferred[None] = Deferred()
        self._waiting = waiting
        self._digests.forget_unknown(digest.slot)
        self._digests.ask_others(digest.slot)
        self.check()
        return waiting

    def check(self) -> None:
        """Decide, if that is possible now: a digest has come, or time has passed."""
        if self._waiting is None:
            return
        finding, same = self._digests.compare(self._digest)
        if finding is Comparison.UNDECIDED and self._clock.seconds() < self._began_at + CONFIRM_SECONDS:
            if self._timer is None:
                self._timer = self._clock.callLater(ASK_SECONDS, self._ask_again)
            return
        waiting = self._waiting
        self.stop()
        slot = self._digest.slot
        if finding is Comparison.CONFIRMED:
            self.log.info(
                "the snapshot at slot {slot} is what {same} have",
                slot=slot,
                same=", ".join(same),
                event="snapshot_confirmed",
            )
            waiting.callback(None)
        elif self._digests.is_contradicted(self._digest):
            self._counters[Count.CONTRADICTED_SNAPSHOT] += 1
            reason = f"it is not what others have at slot {slot}: {self._digests.describe(slot)}"
            waiting.errback(Failure(SnapshotRefused(reason)))
        else:
            line = "the snapshot at slot {slot} is taken on the word of {names}: no majority tells what it has there"
            self.log.warn(line, slot=slot, names=", ".join(sorted({*same, self._peer})), event="snapshot_unconfirmed")
            waiting.callback(None)

    def stop(self) -> None:
        """Forget the snapshot in question. Its Deferred never fires."""
        self._waiting = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ask_again(self) -> None:
        self._timer = None
        self._digests.ask_others(self._digest.slot)
        self.check()
