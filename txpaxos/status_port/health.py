"""Whether a node is alive, and whether it serves: what a service manager and a load balancer ask for."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.python.failure import Failure

from txpaxos.core.replica import NEWCOMER
from txpaxos.log_lines import printable
from txpaxos.node.node import Node


def why_not_alive(node: Node) -> str:
    """Why the process of ``node`` should be looked at, in one line; empty if it is alive: its reactor answers, and its
    disk does, too."""
    if (hung := node.status().disk_hangs_seconds) is not None:
        return f"a save has been under way for {hung:.1f} s: the disk hangs"
    return ""


def why_not_ready(node: Node) -> str:
    """Why clients should use another node than ``node``, in one line; empty if it serves them, as far as it knows by
    itself. :func:`when_confirmed` asks the others."""
    if alive := why_not_alive(node):
        return alive
    if node.is_leaving:
        return "this node is about to stop"
    if node.is_folder_lost:
        return "this node has lost its data folder, and its peers refuse it"
    if node.is_catching_up:
        return "this node is behind, and waits for a snapshot of another node"
    if node.leader is None:
        return "this node knows no leader"
    if node.status().replica.role == NEWCOMER:
        return "this node does not vote yet"
    return ""


def when_confirmed(node: Node) -> Deferred[str]:
    """Ask a quorum whether the leader leads, and wait for that no longer than a follower waits for its leader.

    :returns: fires with why clients should use another node, in one line; empty if a quorum has answered, and ``node``
        has applied all that was chosen before.
    """
    seconds = node.liveness_window_seconds[1]

    def failed(failure: Failure) -> str:
        if failure.check(CancelledError, TimeoutError):
            return f"no quorum has confirmed the leader within {seconds:g} s"
        return printable(failure.getErrorMessage())

    confirmed: Deferred[str] = node.confirm_quorum().addCallback(lambda _: "")
    confirmed.addTimeout(seconds, node.clock)
    return confirmed.addErrback(failed)
