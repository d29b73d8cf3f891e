"""The types of what :func:`txpaxos.aio.recipes`, ``watch`` and ``each_change`` give, for annotations.

To type checkers they have coroutines where the classes of :mod:`txpaxos.recipes` have methods that give Deferreds:
``recipe_types.pyi`` says so. When a program runs they are those classes.
"""

from txpaxos import lazy_names

_MODULES = {
    "txpaxos.recipes.counter": ("Counter",),
    "txpaxos.recipes.gathering": ("Barrier", "DoubleBarrier", "Party"),
    "txpaxos.recipes.lease": ("Lease",),
    "txpaxos.recipes.map": ("Map",),
    "txpaxos.recipes.permit": ("Election", "Hold", "Lock", "Permit", "Semaphore"),
    "txpaxos.recipes.queue": ("Queue", "Take", "Taken"),
    "txpaxos.recipes.recipes": ("Recipes",),
    "txpaxos.recipes.session": ("Session",),
    "txpaxos.recipes.set": ("Set",),
    "txpaxos.service.changes": ("EachChange",),
    "txpaxos.service.watching": ("Watch",),
}

__getattr__, __dir__ = lazy_names(globals(), _MODULES)
