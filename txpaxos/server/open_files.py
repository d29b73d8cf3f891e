"""How many clients the limit of open files leaves room for. The client port asks when it is made."""

from __future__ import annotations

import os
import resource

from txpaxos.node.peer_streams import UNAUTHENTICATED_STREAMS_MAX

FILES_KEPT = 64
"""Files kept for the node's journal and snapshots, and for what the application opens."""

PEER_STREAMS_MAX = 4
"""Streams to and from one peer: those in use, and those that are about to take their place."""

OPEN_FILES_GUESS = 32
"""Files taken to be open where the system does not tell."""


def files_max() -> int:
    """How many files this process may have open; a very big number if there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**62 if soft == resource.RLIM_INFINITY else soft


def connections_max(peers: int) -> int:
    """How many clients may be connected to a node that has ``peers`` peers, so that there is a file left for everything
    else that the node has to open. Not below 0."""
    try:
        open_now = len(os.listdir("/proc/self/fd"))
    except OSError:  # The system is no Linux.
        open_now = OPEN_FILES_GUESS
    return max(0, files_max() - open_now - FILES_KEPT - UNAUTHENTICATED_STREAMS_MAX - PEER_STREAMS_MAX * peers)
