"""The other side of a hold: what it protects refuses those who are late."""

from __future__ import annotations

import attrs

from txpaxos.recipes.replicated.permits import Fenced


@attrs.define
class Fence:
    """Refuses a token that is lower than the highest that it has seen, for what locks protect outside of the cluster.

    .. code-block:: python

        def write(self, token: int, data: bytes) -> None:
            self.fence.check(token)    # in the same step, before anything is changed
            self.data = data

    One fence is for one permit at a time of capacity 1. It must live where the data does, and as long: a resource that
    is started anew begins with the ``last`` that it has kept with its data. It is not for several threads.

    :ivar last: the highest token that it has seen.
    """

    last: int = 0

    def check(self, token: int) -> None:
        """Let the holder of this token through.

        :raises Fenced: if another has come with a higher one. Nothing is changed.
        :raises TypeError: if it is no int.
        """
        if not isinstance(token, int) or isinstance(token, bool):
            raise TypeError(f"a token is an int, not {type(token).__name__}")
        if token < self.last:
            raise Fenced(f"the token {token} is too old: {self.last} was here")
        self.last = token
