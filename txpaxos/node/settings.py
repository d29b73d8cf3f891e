"""The settings of a node."""

from __future__ import annotations

import attrs

from txpaxos.core.config import Limits, Timing
from txpaxos.node.command_limits import CommandLimits
from txpaxos.node.sessions import SESSIONS_MAX
from txpaxos.node.snapshots.taking import Policy
from txpaxos.node.snapshots.transfer import TransferLimits


@attrs.frozen
class Settings:
    """The settings of a node. The defaults are good for a cluster in one building.

    :ivar timing: heartbeats and timeouts. Must be equal on all nodes.
    :ivar limits: how many slots of the log may be open at once, and related limits of the core.
    :ivar command_limits: how many commands a node accepts, and how big they may be.
    :ivar snapshot_policy: when a node takes a snapshot. Must be equal on all nodes.
    :ivar transfer_limits: how fast a snapshot is sent to another node.
    :ivar sessions_max: how many sessions are remembered. Must be equal on all nodes, or their states differ.
    """

    timing: Timing = attrs.field(factory=Timing)
    limits: Limits = attrs.field(factory=Limits)
    command_limits: CommandLimits = attrs.field(factory=CommandLimits)
    snapshot_policy: Policy = attrs.field(factory=Policy)
    transfer_limits: TransferLimits = attrs.field(factory=TransferLimits)
    sessions_max: int = SESSIONS_MAX
