"""What runs beside a node in the same program: it starts with the node and stops with it.

A :class:`~txpaxos.server.served_node.ServedNode` is given its companions, and knows nothing else of them. So what is
above a node, such as its status page, needs no line in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs
from twisted.internet.defer import Deferred

from txpaxos.cluster import Address
from txpaxos.node.events import Observer
from txpaxos.node.node import Node
from txpaxos.server.client_port import ClientPort

if TYPE_CHECKING:
    from txpaxos.keys.folder import Keys


@attrs.frozen
class Surroundings:
    """What a companion finds when it starts.

    :ivar node: the node. It has loaded its state, and does not take part in the cluster yet.
    :ivar client_port: its client port, with the status of the node, and with the rights of clients.
    :ivar reactor: the reactor.
    :ivar keys: the keys of the node at its start; ``None`` if keys are off.
    :ivar insecure: whether not to warn of what is open to other machines.
    """

    node: Node
    client_port: ClientPort
    reactor: Any
    keys: Keys | None = None
    insecure: bool = False


class Companion(Protocol):
    """What runs beside a node. It may be started again after it was stopped."""

    @property
    def observers(self) -> Sequence[Observer]:
        """What is called with each step of the node, but for those of single commands. It is asked for before the node
        is made."""

    def check(self, taken: Sequence[Address]) -> None:
        """See whether it could start. Nothing was done yet, and nothing may be open afterwards.

        :param taken: where the node itself is going to listen.
        :raises ConfigError: one line that says why it cannot.
        """

    def start(self, surroundings: Surroundings) -> None:
        """Start, before the node takes part in the cluster.

        :raises ConfigError: one line that says why it cannot. The node does not start then.
        """

    def use_keys(self, keys: Keys) -> None:
        """The node has other keys now, or lets clients do other things."""

    def stop(self) -> Deferred[None]:
        """Stop. It may not have been started. Fires when all is closed."""
