"""Answers what a node remembers: from its chronicle, and from the end of its log."""

from __future__ import annotations

from typing import Any

import msgspec

from txpaxos.core.messages import Ballot, Slot
from txpaxos.errors import QueryFailed
from txpaxos.explaining.chronicle import Chronicle
from txpaxos.explaining.recollection import Recollection
from txpaxos.explaining.values import slot_of_command, slot_of_register, tell_value
from txpaxos.node.node import Node
from txpaxos.wire.client_messages import Recall

SEARCHED_SLOTS_MAX = 4096
SEARCHED_BYTES_MAX = 2**24
"""How much of its log a node searches for a command or a register, from the end backwards. More would take a node
longer than a few milliseconds, in which it does nothing else."""


class Recaller:
    """Answers what one node remembers.

    :param node: the node.
    :param chronicle: what it remembers of its steps.
    """

    def __init__(self, node: Node, chronicle: Chronicle) -> None:
        self._node = node
        self._chronicle = chronicle

    def __call__(self, question: Recall) -> dict[str, Any]:
        """The answer to ``question``, as a :class:`~txpaxos.explaining.recollection.Recollection` in JSON.

        :raises QueryFailed: if it asks for nothing, or for no ballot.
        """
        told: dict[str, Any] = msgspec.to_builtins(self.recollect(question))
        return told

    def recollect(self, question: Recall) -> Recollection:
        """What this node remembers of what ``question`` asks for.

        :raises QueryFailed: if it asks for nothing, or for no ballot.
        """
        node, chronicle = self._node, self._chronicle
        slots = chronicle.slots
        remembered = (slots.start, slots.stop - 1) if slots else (0, 0)
        voters = tuple(node.members.entry.voters)
        if question.ballot:
            try:
                facts = chronicle.recall_ballot(Ballot.parse(question.ballot))
            except ValueError as error:
                raise QueryFailed(str(error)) from None
            return Recollection(node.name, voters, 0, facts, None, remembered)
        slot = question.slot or self._slot_of(question)
        values = node.logged_values(slot, slot) if slot else []
        value = tell_value(values[0][1]) if values else None
        return Recollection(node.name, voters, slot, chronicle.recall(slot), value, remembered)

    def _slot_of(self, question: Recall) -> Slot:
        """The slot of a command or a register; 0 if it is in none of those that are searched."""
        last = self._node.heard_through()[0]
        values = self._node.logged_values(max(1, last - SEARCHED_SLOTS_MAX + 1), last, SEARCHED_BYTES_MAX)
        if question.session:
            return slot_of_command(values, question.session, question.sequence)
        if question.register:
            return slot_of_register(values, question.register)
        raise QueryFailed("ask for a slot, a ballot, a command or a register")
