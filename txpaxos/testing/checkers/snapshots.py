"""The slots at which nodes took snapshots, and the states in them, as observed from outside."""

from __future__ import annotations

from bisect import bisect_left

from txpaxos.core.messages import Slot
from txpaxos.node.snapshots.taking import SLOT_BYTES, Policy


class ObservedSnapshots:
    """The snapshots of all nodes of a cluster.

    :param policy: when nodes take snapshots.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._slots: list[Slot] = [0]
        # The size of the log through each slot, as a policy counts it.
        self._log_bytes = [0]
        self._states: dict[Slot, bytes] = {}

    def choose(self, value: bytes) -> None:
        """The next slot has ``value``."""
        self._log_bytes.append(self._log_bytes[-1] + SLOT_BYTES + len(value))

    def take(self, slot: Slot) -> str:
        """A node has taken a snapshot at ``slot``. Returns what is wrong with that, or nothing.

        If all nodes take snapshots at the same slots, there is enough of the log between any two.
        """
        index = bisect_left(self._slots, slot)
        if self._slots[index : index + 1] == [slot]:
            return ""
        self._slots.insert(index, slot)
        for earlier, later in ((index - 1, index), (index, index + 1)):
            between = self._slots[earlier : later + 1]
            if len(between) == 2:
                size = self._log_bytes[between[1]] - self._log_bytes[between[0]]
                if size < self._policy.log_bytes:
                    return f"{between} are only {size} bytes apart"
        return ""

    def is_another_state(self, slot: Slot, state_hash: bytes) -> bool:
        """Whether ``state_hash`` differs from the state of an earlier node at ``slot``."""
        return self._states.setdefault(slot, state_hash) != state_hash
