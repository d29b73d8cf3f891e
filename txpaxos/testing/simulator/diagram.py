"""The last events of a simulated cluster as a space-time diagram."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txpaxos.core.messages import NodeId
from txpaxos.drawing.space_time import SpaceTime, Step
from txpaxos.errors import CodecError
from txpaxos.testing.simulator.trace import DatagramArrived, DatagramSent
from txpaxos.wire.codec import Codec

if TYPE_CHECKING:
    from txpaxos.testing.simulator.cluster import SimulatedCluster

EVENTS_MAX = 160
VALUE_CHARACTERS = 24


def space_time(cluster: SimulatedCluster, violation: str = "", events_max: int = EVENTS_MAX) -> SpaceTime:
    """The last events of ``cluster``: datagrams as they left and as they arrived, and events at nodes.

    A datagram that arrived has an arrow. One that left before the first of these events has none.

    :param violation: the rule that was broken, which is the last step, at the node of the last event.
    """
    codec = Codec(cluster.configuration.name, cluster.names[0], members=cluster.names)
    steps: list[Step] = []
    sent: dict[tuple[NodeId, NodeId, bytes], tuple[int, str]] = {}
    for when, node, event in list(cluster.trace)[-events_max:]:
        if node not in cluster.all_machines:
            continue
        match event:
            case DatagramSent(to, datagram, message):
                what = _describe(codec, message)
                sent[node, to, datagram] = len(steps), what
                steps.append(Step(node, f"sends {what} to {to}", when, "sent"))
            case DatagramArrived(sender, datagram):
                cause, what = sent.get((sender, node, datagram), (None, "a datagram"))
                steps.append(Step(node, f"receives {what} of {sender}", when, cause=cause))
            case str():
                steps.append(Step(node, event, when))
    if violation and steps:
        steps.append(Step(steps[-1].node, violation, steps[-1].seconds, "broken"))
    return SpaceTime(cluster.all_machines, tuple(steps), f"Seed {cluster.seed}: the last {len(steps)} events")


def _describe(codec: Codec, data: bytes) -> str:
    try:
        message = codec.decode(data).message
    except CodecError as error:
        return f"what is no message ({error})"
    fields = []
    for field in attrs.fields(type(message)):
        value = getattr(message, field.name)
        text = str(value) if field.name in ("ballot", "promised") else repr(value)
        fields.append(f"{field.name}={text[:VALUE_CHARACTERS]}")
    return f"{type(message).__name__}({', '.join(fields)})"
