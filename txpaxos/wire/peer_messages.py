"""What nodes say to each other beside the algorithm's own messages (:mod:`txpaxos.core.messages`)."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from txpaxos.core.messages import Message
from txpaxos.wire.commands import Command


@attrs.frozen
class Hello:
    """The first message on a stream, in both directions: who speaks stands in its header."""


@attrs.frozen
class Forward:
    """A follower to the leader: please propose these, somebody gave them to me. Nothing is on disk for it."""

    commands: tuple[Command, ...]


PeerMessage: TypeAlias = Message | Hello | Forward
