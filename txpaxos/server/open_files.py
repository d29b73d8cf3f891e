"""How many clients the limit on open files leaves room for. The client port asks when it is created."""

from __future__ import annotations

import os
import resource

from txpaxos.node.peer_streams import UNAUTHENTICATED_STREAMS_MAX

FILES_KEPT = 64
"""Files reserved for the node's journal and snapshots, and for those that the application opens."""

PEER_STREAMS_MAX = 4
"""The most streams to and from one peer: those in use, and those that are about to replace them."""

OPEN_FILES_GUESS = 32
"""The number of open files that is assumed on a system that does not report it."""


def files_max() -> int:
    """The limit on the open files of this process; a very big number if there is none."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**62 if soft == resource.RLIM_INFINITY else soft


def connections_max(peers: int) -> int:
    """How many clients may be connected to a node with ``peers`` peers, 0 or more, so that enough files are left for
    everything else that the node opens."""
    try:
        open_now = len(os.listdir("/proc/self/fd"))
    except OSError:  # The system is not Linux.
        open_now = OPEN_FILES_GUESS
    return max(0, files_max() - open_now - FILES_KEPT - UNAUTHENTICATED_STREAMS_MAX - PEER_STREAMS_MAX * peers)
