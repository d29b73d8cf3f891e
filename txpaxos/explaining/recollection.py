"""What one node tells of a slot or a ballot when it is asked."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from txpaxos.core.messages import NodeId, Slot
from txpaxos.errors import CodecError
from txpaxos.explaining.facts import Fact
from txpaxos.explaining.values import ValueTold


@attrs.frozen
class Recollection:
    """What one node remembers.

    :ivar node: the node's id.
    :ivar voters: the ids of the voters, as that node knows them.
    :ivar slot: the slot that was asked for, or was found; 0 if the question is about a ballot, or nothing was found.
    :ivar facts: what happened there, in the order of time.
    :ivar value: what the slot holds; ``None`` if the node does not know that it is chosen, or has it no more.
    :ivar remembered: the first and the last slot that the node remembers anything of; zeros if none.
    """

    node: NodeId
    voters: tuple[NodeId, ...]
    slot: Slot
    facts: tuple[Fact, ...]
    value: ValueTold | None = None
    remembered: tuple[Slot, Slot] = (0, 0)


def recollection_of(told: Any) -> Recollection:
    """What a node has told in JSON.

    :raises CodecError: if that is something else.
    """
    try:
        return msgspec.convert(told, Recollection)
    except msgspec.MsgspecError as error:
        raise CodecError(f"a node told something else than what it remembers: {error}") from None
