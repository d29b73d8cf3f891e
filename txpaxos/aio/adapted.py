"""The recipes, and watched queries, for asyncio.

The objects are those of :mod:`txpaxos.recipes` themselves, each behind an :class:`Adapted`: methods that give Deferreds
are coroutines, and ``async with`` and ``async for`` work in tasks of asyncio. So both faces have the same methods. Type
checkers know these by :mod:`txpaxos.aio.recipe_types`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, cast

import attrs
from twisted.internet.defer import Deferred

from txpaxos.aio.calls import awaited, check_loop
from txpaxos.aio.client import Client
from txpaxos.recipes.recipes import Recipes as RecipesWithDeferreds
from txpaxos.service.declaration import R, RemoteMethod
from txpaxos.service.remote import each_change as each_change_with_deferreds
from txpaxos.service.remote import watch as watch_with_deferreds

if TYPE_CHECKING:
    from txpaxos.aio.recipe_types import EachChange, Recipes, Watch

P = ParamSpec("P")

ADAPTED_MODULES = ("txpaxos.recipes.", "txpaxos.service.watching", "txpaxos.service.changes")


def recipes(client: Client, deadline_seconds: float | None = None) -> Recipes:
    """The recipes of a cluster: :class:`txpaxos.recipes.Recipes`, with coroutines.

    .. code-block:: python

        async with Client(cluster) as client:
            session = await recipes(client).session(ttl_seconds=10)
            async with session.lock("reports") as hold:
                await write(fence=hold.token)

    :param deadline_seconds: how long each request that does not wait for others may take; ``None`` for as long as it
        takes.
    """
    if not isinstance(client, Client):
        raise TypeError(f"client must be a txpaxos.aio.Client, not {type(client).__name__}")
    return cast(
        "Recipes", Adapted(RecipesWithDeferreds(client._client, client._reactor, deadline_seconds), client._loop)
    )


def watch(method: RemoteMethod[P, R], *args: P.args, **kwargs: P.kwargs) -> Watch[R]:
    """The answers of a query, from now on: see :func:`txpaxos.watch`.

    :param method: a query of a service, as ``client.service(Bank).balance``.
    """
    return cast("Watch[R]", Adapted(watch_with_deferreds(method, *args, **kwargs), _loop_of(method)))


def each_change(method: RemoteMethod[P, R], *args: P.args, **kwargs: P.kwargs) -> EachChange[R]:
    """Each change of the answer to a query, none missed: see :func:`txpaxos.each_change`.

    :param method: a query that is declared with ``changes_kept=True``.
    """
    return cast("EachChange[R]", Adapted(each_change_with_deferreds(method, *args, **kwargs), _loop_of(method)))


class Adapted:
    """An object whose methods give Deferreds, as asyncio can use it.

    :param loop: that of its client, on which alone it can be used.
    """

    __slots__ = ("_adapted", "_loop")

    def __init__(self, adapted: object, loop: asyncio.AbstractEventLoop) -> None:
        self._adapted = adapted
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return adapt(getattr(self._adapted, name), self._loop)

    def __repr__(self) -> str:
        return f"<{self._adapted!r} for asyncio>"

    def __dir__(self) -> list[str]:
        return dir(self._adapted)

    def __await__(self) -> Generator[Any, Any, Any]:
        check_loop(self._loop)
        return adapt(_await(self._adapted), self._loop).__await__()  # type: ignore[no-any-return]

    async def __aenter__(self) -> Any:
        check_loop(self._loop)
        return await adapt(_special(self._adapted, "__aenter__")(), self._loop)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Any:
        check_loop(self._loop)
        return await adapt(_special(self._adapted, "__aexit__")(kind, error, traceback), self._loop)

    def __aiter__(self) -> Adapted:
        return Adapted(_special(self._adapted, "__aiter__")(), self._loop)

    async def __anext__(self) -> Any:
        check_loop(self._loop)
        return await adapt(_next(_special(self._adapted, "__anext__")), self._loop)


def adapt(value: Any, loop: asyncio.AbstractEventLoop) -> Any:
    """What asyncio is given in place of ``value``.

    :param loop: that of the client.
    """
    if isinstance(value, Deferred):
        return awaited(value.addCallback(adapt, loop))
    if inspect.iscoroutine(value):
        return awaited(Deferred.fromCoroutine(value).addCallback(adapt, loop))
    if inspect.ismethod(value):
        return _with_adapted_result(value, loop)
    if inspect.isasyncgen(value) or _is_recipe(value):
        return Adapted(value, loop)
    return value


def _with_adapted_result(method: Callable[..., Any], loop: asyncio.AbstractEventLoop) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        return adapt(method(*map(_plain, args), **{name: _plain(value) for name, value in kwargs.items()}), loop)

    if not (inspect.iscoroutinefunction(method) or _gives_deferred(method)):
        return call

    @functools.wraps(method)
    async def call_as_coroutine(*args: Any, **kwargs: Any) -> Any:
        check_loop(loop)
        return await call(*args, **kwargs)

    return call_as_coroutine


def _gives_deferred(method: Callable[..., Any]) -> bool:
    return str(method.__annotations__.get("return", "")).startswith("Deferred")


def _loop_of(method: object) -> asyncio.AbstractEventLoop:
    """The loop of the client or node whose query it is."""
    loop: asyncio.AbstractEventLoop | None = getattr(method, "loop", None)
    return asyncio.get_running_loop() if loop is None else loop


def _plain(value: Any) -> Any:
    return value._adapted if isinstance(value, Adapted) else value


def _is_recipe(value: object) -> bool:
    """Whether an object has methods that give Deferreds. Those of attrs classes have none, and errors neither."""
    kind = type(value)
    return (
        kind.__module__.startswith(ADAPTED_MODULES) and not attrs.has(kind) and not isinstance(value, Exception | str)
    )


def _special(value: object, name: str) -> Callable[..., Any]:
    method: Callable[..., Any] | None = getattr(value, name, None)
    if method is None:
        raise TypeError(f"{type(value).__name__} has no {name}")
    return method


async def _await(value: Any) -> Any:
    return await value


async def _next(anext: Callable[[], Any]) -> Any:
    return await anext()
