"""The face of txpaxos for programs that are written with asyncio.

Each class has the methods of the one that it stands for, which are coroutines here. A program needs to know nothing of
Twisted: its reactor runs on the running event loop while one of these objects is open.

A program with a client alone loads no node.
"""

from typing import TYPE_CHECKING, Any

from txpaxos.aio.client import Client

if TYPE_CHECKING:
    from txpaxos.aio.node import Node

__all__ = ["Client", "Node"]


def __getattr__(name: str) -> Any:
    """Load :class:`Node` on first use."""
    if name != "Node":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from txpaxos.aio.node import Node

    globals()["Node"] = Node
    return Node
