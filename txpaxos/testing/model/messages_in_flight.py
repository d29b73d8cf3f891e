"""The messages of the model. Each is one bit of a whole number, so that a set of messages is one number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from txpaxos.core.messages import AcceptSlot, Message, NodeId, PreVote, PreVoteGranted, Slot
from txpaxos.testing.model.parts import Part

MessageInFlight: TypeAlias = tuple[NodeId, NodeId, Message]
"""Sender, receiver, message."""


class MessagesInFlight:
    """All messages that were ever sent, in any state. Pre-votes are not among them: a pre-vote and its ballot are one
    step.

    :param lost: the kinds that never arrive. Proposals above ``slots_max`` never arrive either.
    :ivar inbox: for each node, the messages to it. ``own``: those from itself. ``counted``: those that it only counts.
    """

    def __init__(self, parts: Sequence[Part[Any]], lost: tuple[type[Any], ...], slots_max: Slot) -> None:
        self.inbox = [0] * len(parts)
        self.own = [0] * len(parts)
        self.counted = [0] * len(parts)
        self._parts = parts
        self._index = {part.node: index for index, part in enumerate(parts)}
        self._lost = (*lost, PreVote, PreVoteGranted)
        self._slots_max = slots_max
        self._bits: dict[MessageInFlight, int] = {}
        self._messages: list[MessageInFlight] = []

    def __len__(self) -> int:
        return len(self._messages)

    def of(self, bit: int) -> MessageInFlight:
        """The message of that bit."""
        return self._messages[bit.bit_length() - 1]

    def bit(self, sender: NodeId, to: NodeId, message: Message) -> int:
        """The bit of the message; 0 if the message never arrives."""
        if isinstance(message, self._lost) or (isinstance(message, AcceptSlot) and message.slot > self._slots_max):
            return 0
        sent = sender, to, message
        bit = self._bits.get(sent)
        if bit is None:
            bit = self._bits[sent] = 1 << len(self._messages)
            self._messages.append(sent)
            receiver = self._index[to]
            self.inbox[receiver] |= bit
            if sender == to:
                self.own[receiver] |= bit
            if self._parts[receiver].counts(message):
                self.counted[receiver] |= bit
        return bit


class InterchangeableNodes:
    """Nodes that differ only in their names, so that states in which they have swapped places are the same.

    That is so if no other node tells them apart: no message and no local state holds their names, and no message is
    from one of them to another.

    :param nodes: the places of the interchangeable nodes; may be empty.
    """

    def __init__(self, messages: MessagesInFlight, nodes: Sequence[int], parts: Sequence[Part[Any]]) -> None:
        self.nodes = tuple(nodes)
        self._messages = messages
        self._names = [parts[index].node for index in nodes]
        # For each node, the messages to and from it.
        self._mine = [0] * len(self._names)
        self._sorted_through = 0
        self._renamed: dict[tuple[int, int, int], int] = {}

    def mailboxes(self, net: int) -> list[int]:
        """The messages to and from each of the nodes, renamed as if each were the first."""
        self._sort_new()
        return [self._rename(net & mine, place, 0) for place, mine in enumerate(self._mine)]

    def posted(self, place: int, mailbox: int) -> int:
        """The messages of ``mailbox``, renamed to the node in ``place``."""
        return self._rename(mailbox, 0, place)

    def others(self, net: int) -> int:
        """The messages that are neither to nor from these nodes."""
        self._sort_new()
        for mine in self._mine:
            net &= ~mine
        return net

    def _rename(self, net: int, place: int, new_place: int) -> int:
        known = self._renamed.get((net, place, new_place))
        if known is None:
            known, name, new_name = 0, self._names[place], self._names[new_place]
            for bit in bits_of(net):
                sender, to, message = self._messages.of(bit)
                sender, to = (new_name if one == name else one for one in (sender, to))
                known |= self._messages.bit(sender, to, message)
            self._renamed[net, place, new_place] = known
        return known

    def _sort_new(self) -> None:
        while self._sorted_through < len(self._messages):
            bit = 1 << self._sorted_through
            self._sorted_through += 1
            sender, to, _ = self._messages.of(bit)
            for place, name in enumerate(self._names):
                if name in (sender, to):
                    self._mine[place] |= bit


def bits_of(bits: int) -> Iterator[int]:
    """The single bits of ``bits``."""
    while bits:
        bit = bits & -bits
        bits ^= bit
        yield bit
