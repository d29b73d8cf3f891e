"""The face of txpaxos for programs that are written with asyncio.

Each class has the methods of the one that it stands for, which are coroutines here. A program needs to know nothing of
Twisted: its reactor runs on the running event loop while one of these objects is open.

A program with a client alone loads no node.
"""

from typing import TYPE_CHECKING

from txpaxos import lazy_names
from txpaxos.aio.client import Client

if TYPE_CHECKING:
    from txpaxos.aio.adapted import each_change, recipes, watch
    from txpaxos.aio.node import Node

_MODULES = {"txpaxos.aio.node": ("Node",), "txpaxos.aio.adapted": ("each_change", "recipes", "watch")}

__all__ = ["Client", "Node", "each_change", "recipes", "watch"]

__getattr__, __dir__ = lazy_names(globals(), _MODULES)
