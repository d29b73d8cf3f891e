"""What a simulated cluster remembers of its last events, for a diagram."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from txpaxos.core.messages import NodeId


class DatagramSent(NamedTuple):
    """A datagram has left.

    :ivar to: the machine that it was sent to.
    :ivar datagram: its bytes.
    :ivar message: the message in it, not encrypted.
    """

    to: NodeId
    datagram: bytes
    message: bytes


class DatagramArrived(NamedTuple):
    """A datagram has arrived at a node that runs.

    :ivar sender: the machine that it came from.
    :ivar datagram: its bytes.
    """

    sender: NodeId
    datagram: bytes


TraceEvent: TypeAlias = str | DatagramSent | DatagramArrived
"""An event at a node. A note says what it was."""
