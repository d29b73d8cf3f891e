"""How far the followers of one leader have learned the log, and which of them are level with it."""

from __future__ import annotations

from txpaxos.core.messages import NodeId, Slot

ACKS_LEVEL = 2
"""How many acknowledgements in a row must find a follower level."""


class Progress:
    """What a leader knows of its followers, from their acknowledgements.

    A follower is level if it has learned all that was chosen one window ago, and was so twice in a row. That depends on
    time and not on a share of the log: a follower that is level needs no longer than that to learn the rest.

    :param window_seconds: the longest liveness window.
    :ivar chosen_through: how far each follower had learned the log when it was last heard.
    :ivar lag_slots: how many chosen slots each follower had not learned when it was last heard. Those that were chosen
        while its answer was under way are counted, too.
    """

    def __init__(self, window_seconds: float) -> None:
        self.chosen_through: dict[NodeId, Slot] = {}
        self.lag_slots: dict[NodeId, int] = {}
        self._window_seconds = window_seconds
        # What was chosen when each heartbeat of the last window was sent.
        self._sent: list[tuple[float, Slot]] = []
        self._level_acks: dict[NodeId, int] = {}

    def heartbeat_sent(self, chosen_through: Slot, now: float) -> None:
        """A heartbeat was sent when every slot up to ``chosen_through`` was chosen."""
        self._sent.append((now, chosen_through))
        while self._sent[0][0] < now - self._window_seconds:
            del self._sent[0]

    def acknowledged(self, node: NodeId, chosen_through: Slot, chosen_here: Slot) -> None:
        """``node`` has learned every slot up to ``chosen_through``, and the leader every slot up to ``chosen_here``."""
        self.chosen_through[node] = chosen_through
        self.lag_slots[node] = chosen_here - chosen_through
        is_level = bool(self._sent) and chosen_through >= self._sent[0][1]
        self._level_acks[node] = self._level_acks.get(node, 0) + 1 if is_level else 0

    def is_level(self, node: NodeId) -> bool:
        """Whether ``node`` was level when it was last heard."""
        return self._level_acks.get(node, 0) >= ACKS_LEVEL
