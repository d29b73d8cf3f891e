"""How many connections the system lets this process have, beside the files that a node needs."""

from __future__ import annotations

import os
import resource

from txpaxos.node.peer_streams import STRANGERS_MAX

FILES_KEPT = 64
"""For the node's journal and snapshots, and for what the application opens."""

PEER_STREAMS_MAX = 4
"""To and from each peer: those that stand, and those that are about to take their place."""


def files_max() -> int:
    """How many files this process may have open; a very big number if there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**62 if soft == resource.RLIM_INFINITY else soft


def connections_max(peers: int) -> int:
    """How many clients may be connected to a node with so many peers, so that a file is left for all that it has to
    open. Not below 0."""
    try:
        open_now = len(os.listdir("/proc/self/fd"))
    except OSError:  # No Linux.
        open_now = 32
    return max(0, files_max() - open_now - FILES_KEPT - STRANGERS_MAX - PEER_STREAMS_MAX * peers)
