"""Voters that do not change, for tests of what is compared between nodes."""

from __future__ import annotations

import attrs

from txpaxos.core.messages import NodeId


@attrs.frozen
class FixedVoters:
    """The voters: ``other_voters`` are all but this node, and ``quorum`` are a majority."""

    other_voters: tuple[NodeId, ...]
    quorum: int
