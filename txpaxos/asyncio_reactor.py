"""Twisted's reactor on the asyncio event loop, for a program that starts with ``asyncio.run``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet import asyncioreactor


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

    ``asFuture`` makes a Future of a Deferred. Enter this once in a process: Twisted has one reactor, for one loop.

    :raises RuntimeError: if Twisted has a reactor already.
    """
    if "twisted.internet.reactor" in sys.modules:
        raise RuntimeError(
            "Twisted has its reactor already: enter asyncio_reactor() once, before any module imports"
            " twisted.internet.reactor"
        )
    asyncioreactor.install(asyncio.get_running_loop())
    from twisted.internet import reactor

    running: Any = reactor
    running.startRunning(installSignalHandlers=False)
    try:
        yield reactor
    finally:
        if running.threadpool is not None:
            running.threadpool.stop()
