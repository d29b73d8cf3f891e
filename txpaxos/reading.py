"""The types of ``read``, for nodes and for clients: the consistency of an answer, and the answer."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import attrs

Consistency: TypeAlias = Literal["linearizable", "local"]
"""How fresh the answer to a query is. ``linearizable``: it reflects all commands acknowledged before the call.
``local``: it reflects the commands that the asked node has applied so far, which may be old."""


@attrs.frozen
class Reading:
    """The answer to a query.

    :ivar result: what ``query`` returned, converted by MessagePack if it came from another process.
    :ivar slot: the last slot that was applied when ``query`` was called. The answer reflects every slot up to this one,
        and none above unless ``query`` returned a Deferred.
    """

    result: Any
    slot: int
