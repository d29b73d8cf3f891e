"""What a caller of ``read`` says and gets, of a node and of a client alike."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import attrs

Consistency: TypeAlias = Literal["linearizable", "local"]
"""``linearizable``: everything acknowledged before the question is in the answer. ``local``: what the asked node has
applied so far, which may be old."""


@attrs.frozen
class Reading:
    """The answer to a query.

    :ivar result: what ``query`` returned (as MessagePack carries it, if it came from another process).
    :ivar slot: the answer knows every slot up to this one. It knows none above, unless the hook took its time (returned
        a Deferred): this is the last slot that was applied when the hook was asked.
    """

    result: Any
    slot: int
