"""Where nodes took snapshots, and what was in them, as seen from outside."""

from __future__ import annotations

from bisect import bisect_left

from txpaxos.core.messages import Slot
from txpaxos.node.snapshots.taking import SLOT_BYTES, Policy


class ObservedSnapshots:
    """The snapshots of all nodes of a cluster.

    :param policy: when they take them.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._slots: list[Slot] = [0]
        # What the log has come to through each slot, as a policy counts it.
        self._log_bytes = [0]
        self._states: dict[Slot, bytes] = {}

    def choose(self, value: bytes) -> None:
        """The next slot has this value."""
        self._log_bytes.append(self._log_bytes[-1] + SLOT_BYTES + len(value))

    def take(self, slot: Slot) -> str:
        """A node has taken one. Returns what is wrong with that: if all take them at the same slots, there is enough of
        the log between any two."""
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
        """Whether a node that had this state at ``slot`` differs from those before it."""
        return self._states.setdefault(slot, state_hash) != state_hash
