"""How much of everything the log may hold at a time."""

from __future__ import annotations

import attrs
from attrs.validators import ge, le

VALUES_MAX = 4096
VOTES_MAX = 4096
"""No message has more chosen values or votes."""


@attrs.frozen
class Limits:
    """How much of everything.

    :ivar window_slots: a leader proposes at most so far above what it knows to be chosen.
    :ivar window_bytes: bytes of values in them, beyond which no further slot is opened.
    :ivar ahead_slots: an acceptor votes only so far above what it knows to be chosen; one that lags catches up first.
    :ivar fetch_values: chosen values in one answer to a Fetch.
    :ivar fetch_bytes: bytes of values in one, beyond the first value.
    """

    window_slots: int = 8
    window_bytes: int = 8 * 2**20
    ahead_slots: int = attrs.field(default=32, validator=[ge(1), le(VOTES_MAX)])
    fetch_values: int = attrs.field(default=1024, validator=[ge(1), le(VALUES_MAX)])
    fetch_bytes: int = 2**20
