"""Whether a node is alive, and whether it serves: what a service manager and a load balancer ask for."""

from __future__ import annotations

from txpaxos.core.replica import NEWCOMER
from txpaxos.node.node import Node


def why_not_alive(node: Node) -> str:
    """Why the process of ``node`` should be looked at, in one line; empty if it is alive: its reactor answers, and its
    disk does, too."""
    if (hung := node.status().disk_hangs_seconds) is not None:
        return f"a save has been under way for {hung:.1f} s: the disk hangs"
    return ""


def why_not_ready(node: Node) -> str:
    """Why clients should use another node than ``node``, in one line; empty if it serves them."""
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
    status = node.status()
    if status.replica.role == NEWCOMER:
        return "this node does not vote yet"
    if (status.failure_tolerance or 0) < 0:
        return "this node leads, and does not hear a quorum"
    return ""
