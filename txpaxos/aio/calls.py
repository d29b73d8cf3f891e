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


def awaited_service(remote: Remote[S]) -> Remote[S]:
    """The calls of a typed service, each of which gives a Future in place of a Deferred.

    To type checkers it is still a ``Remote``: awaiting either kind gives the result.
    """
    return with_other_calls(remote, _giving_futures)


def _giving_futures(call: Callable[..., Deferred[Any]]) -> Callable[..., Any]:
    @functools.wraps(call)
    def made(*args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        return awaited(call(*args, **kwargs))

    return made
