"""Twisted's reactor on the asyncio event loop, for a program that starts with ``asyncio.run``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import attrs
from twisted.internet import asyncioreactor


@attrs.define
class _Used:
    """A reactor on a loop, and how often it is in use."""

    reactor: Any
    times: int = 0


_on_loops: dict[asyncio.AbstractEventLoop, _Used] = {}


@asynccontextmanager
async def asyncio_reactor() -> AsyncIterator[Any]:
    """Run Twisted's reactor on the running asyncio event loop until the block ends.

    .. code-block:: python

        async def main():
            async with asyncio_reactor() as reactor:
                served = ServedNode(Counter, "a", "cluster.toml", "data-a", reactor=reactor)
                served.start()
                counter = await served.ready().asFuture(asyncio.get_running_loop())

        asyncio.run(main())

    ``asFuture`` makes a Future of a Deferred; in :mod:`txpaxos.aio` that is done. Twisted has one reactor for each
    process, which is on one loop.

    :raises RuntimeError: if Twisted has a reactor already, which is not on this loop.
    """
    if "twisted.internet.reactor" in sys.modules:
        from twisted.internet import reactor as installed

        used = _on_loops.get(asyncio.get_running_loop())
        if used is None or used.reactor is not installed:
            raise RuntimeError(
                "Twisted has its reactor already: enter asyncio_reactor() once, before any module imports"
                " twisted.internet.reactor"
            )
    with reactor_on_running_loop() as reactor:
        yield reactor


@contextmanager
def reactor_on_running_loop() -> Iterator[Any]:
    """A reactor on the running asyncio event loop, for what is given its reactor, until the block ends.

    It is the reactor of the process, if there is none yet. On a loop that comes later, as that of the next test or of
    a second ``asyncio.run``, it is one that only this block knows.
    """
    used = _used_on(asyncio.get_running_loop())
    used.times += 1
    try:
        yield used.reactor
    finally:
        used.times -= 1
        threads = used.reactor.threadpool
        if used.times == 0 and threads is not None:
            used.reactor.threadpool = None  # What asks for threads later gets new ones.
            threads.stop()


def _used_on(loop: asyncio.AbstractEventLoop) -> _Used:
    for other in [other for other in _on_loops if other.is_closed()]:
        del _on_loops[other]
    if loop not in _on_loops:
        reactor: Any
        if "twisted.internet.reactor" in sys.modules:
            reactor = asyncioreactor.AsyncioSelectorReactor(loop)
        else:
            asyncioreactor.install(loop)
            from twisted.internet import reactor
        reactor.startRunning(installSignalHandlers=False)
        _on_loops[loop] = _Used(reactor)
    return _on_loops[loop]
