"""What the live page shows: the cluster as one node sees it, in words and numbers."""

from __future__ import annotations

import time
from typing import Any

import attrs

from txpaxos.core.messages import NodeId
from txpaxos.metrics.histogram import Histogram
from txpaxos.metrics.meter import Meter
from txpaxos.node.node import UNHEARD_SECONDS, Node
from txpaxos.node.status import NodeStatus
from txpaxos.status_port.health import why_not_ready
from txpaxos.status_port.recent import Recent

LAG_SLOTS_MAX = 100
"""A follower that is further behind is called so."""
EXPIRES_SOON_SECONDS = 30 * 86_400.0
CLOCK_OFFSET_SECONDS_MAX = 1.0


def view_of(node: Node, meter: Meter, recent: Recent, clients: int) -> dict[str, Any]:
    """The cluster as ``node`` sees it now, as plain data for the page.

    :param clients: how many clients are connected.
    """
    status = node.status()
    replica = status.replica
    return {
        "node": node.name,
        "cluster": node.cluster.name,
        "utc_seconds": time.time(),
        "headline": headline(node, status),
        "troubles": troubles(node, status),
        "leader": replica.leader,
        "leader_since": recent.leader_since,
        "role": replica.role,
        "ballot": str(replica.ballot),
        "failure_tolerance": status.failure_tolerance,
        "chosen_through": replica.chosen_through,
        "applied_through": status.applied_through,
        "waiting": status.waiting,
        "clients": clients,
        "snapshot_slot": status.compaction.snapshot_slot,
        "transfer": status.compaction.transfer,
        "up_seconds": status.up_seconds,
        "application": status.application,
        "members": members_of(node, status),
        "requests_total": sum(meter.outcomes.values()),
        "seconds": {
            "request": _times(meter.requests.get("command", Histogram())),
            "sync": _times(meter.syncs),
            "apply": _times(meter.applies),
            "stall": _times(meter.stalls),
        },
        "recent": [attrs.asdict(one) for one in reversed(recent.happenings)],
    }


def headline(node: Node, status: NodeStatus) -> str:
    """How things are, in one or two sentences."""
    if reason := why_not_ready(node):
        return f"Not ready: {reason}."
    leader, left = status.replica.leader, status.failure_tolerance
    if left is None:
        return f"Node {node.name} is ready, and follows {leader}, which knows how many more nodes may fail."
    if left < 1:
        return f"{leader} leads. No other voter may fail: the cluster would stop."
    return f"Healthy. {leader} leads. {left} more voter{'s' * (left > 1)} may fail."


def troubles(node: Node, status: NodeStatus) -> list[str]:
    """What is wrong, and what to do, a line each."""
    found = [f"{node.name} does not hear {peer}: look at that machine and at the network" for peer in status.unheard]
    found += [f"{node.name} refuses {peer}: {reason}" for peer, reason in status.refuses.items()]
    found += [f"{peer} refuses {node.name}: {reason}" for peer, reason in status.refused_by.items()]
    found += [
        f"{peer} is {slots} slots behind"
        for peer, slots in status.replica.lag_slots.items()
        if slots > LAG_SLOTS_MAX and peer not in status.unheard
    ]
    found += [
        f"the clock of {peer} is {abs(seconds):.1f} s {'ahead' if seconds > 0 else 'behind'}: set it"
        for peer, seconds in status.clock_offsets_seconds.items()
        if abs(seconds) > CLOCK_OFFSET_SECONDS_MAX
    ]
    expires = status.keys_expire_in_seconds
    if expires is not None and expires < EXPIRES_SOON_SECONDS:
        found.append(
            f"the certificate of {node.name} expires in {max(0.0, expires) / 86_400:.0f} days: issue a new one"
        )
    return found


def members_of(node: Node, status: NodeStatus) -> list[dict[str, Any]]:
    """Each member: who it is, and what this node knows of it."""
    return [
        {
            "node": name,
            "role": one.role,
            "address": one.address,
            "state": _state(name, node.name, status),
            "lag_slots": status.replica.lag_slots.get(name),
            "silent_seconds": status.heard.get(name),
        }
        for name, one in sorted(node.members.entry.members.items())
    ]


def _state(name: NodeId, own: NodeId, status: NodeStatus) -> str:
    leader = status.replica.leader
    if name == leader:
        return "leads"
    if name == own:
        return status.replica.role
    ago = status.heard.get(name)
    is_silent = leader is None and (ago is None or ago > UNHEARD_SECONDS)  # A node without a leader asks all for votes.
    if name in status.unheard or name in status.refuses or is_silent:
        return "not heard"
    if leader is None:
        return "heard"
    return "follows" if leader == own else "known to the leader"


def _times(histogram: Histogram) -> dict[str, float | None]:
    return {"p50": histogram.quantile(0.5), "p99": histogram.quantile(0.99), "total": float(histogram.total)}
