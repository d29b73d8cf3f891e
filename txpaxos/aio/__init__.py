"""The face of txpaxos for programs that are written with asyncio.

Each class has the methods of the one that it stands for, which are coroutines here. A program needs to know nothing of
Twisted: its reactor runs on the running event loop while one of these objects is open.

A program with a client alone loads no node.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from txpaxos.aio.client import Client

if TYPE_CHECKING:
    from txpaxos.aio.adapted import each_change, recipes, watch
    from txpaxos.aio.node import Node

_MODULE_OF = {
    "Node": "txpaxos.aio.node",
    **dict.fromkeys(("each_change", "recipes", "watch"), "txpaxos.aio.adapted"),
}

__all__ = ["Client", "Node", "each_change", "recipes", "watch"]


def __getattr__(name: str) -> Any:
    """Load the rest on first use."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return value
