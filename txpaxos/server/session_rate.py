"""How many sessions the clients of one principal may begin. A principal is an address, or the name that a client has
shown to be its own when keys are on. The client port asks for every session that it does not know.

Nodes remember a limited number of sessions. A client that could begin any number of them would have those of all others
forgotten.
"""

from __future__ import annotations

SESSIONS_BURST = 16_384
"""Sessions that one principal may begin at once: a quarter of those that nodes remember."""

SESSIONS_A_SECOND = 16.0
"""Sessions that one principal may begin each second when it has begun as many as it may at once. At this speed it takes
one more than an hour to have another's session forgotten that was used just before."""


class SessionRate:
    """A token bucket for each principal."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, int]] = {}  # Sessions that each may still begin, and as of when.

    def admits(self, principal: str, seconds: int) -> bool:
        """A client of ``principal`` begins a session that is not known, at ``seconds``. False if these are too many."""
        left, at = self._left.get(principal, (float(SESSIONS_BURST), seconds))
        left = min(float(SESSIONS_BURST), left + (seconds - at) * SESSIONS_A_SECOND)
        if left < 1.0:
            return False
        if len(self._left) > SESSIONS_BURST:  # A flood of principals takes no more memory than this.
            self._left.clear()
        self._left[principal] = left - 1.0, seconds
        return True
