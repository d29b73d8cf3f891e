"""Deferreds as what asyncio awaits."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from txpaxos.service.declaration import Remote, S
from txpaxos.service.remote import with_other_calls

T = TypeVar("T")


def awaited(deferred: Deferred[T]) -> asyncio.Future[T]:
    """A Future with the outcome of ``deferred``, on the running loop. To cancel it cancels ``deferred``."""
    return deferred.asFuture(asyncio.get_running_loop())


def check_loop(loop: asyncio.AbstractEventLoop) -> None:
    """See that ``loop`` runs here. On another one, what is called would never answer.

    :param loop: the one on which the client or the node was made.
    :raises RuntimeError: if another one runs here, or none.
    """
    if asyncio.get_running_loop() is not loop:
        was = "is closed" if loop.is_closed() else "is another one"
        raise RuntimeError(f"the event loop of this client or node {was}: make it on the loop that uses it")


def awaited_service(remote: Remote[S], loop: asyncio.AbstractEventLoop) -> Remote[S]:
    """The calls of a typed service, each of which gives a Future in place of a Deferred.

    To type checkers it is still a ``Remote``: awaiting either kind gives the result.

    :param loop: that of the client or node.
    """

    def giving_futures(call: Callable[..., Deferred[Any]]) -> Callable[..., Any]:
        @functools.wraps(call)
        def made(*args: Any, **kwargs: Any) -> asyncio.Future[Any]:
            check_loop(loop)
            return awaited(call(*args, **kwargs))

        made.loop = loop  # type: ignore[attr-defined]
        return made

    return with_other_calls(remote, giving_futures)
