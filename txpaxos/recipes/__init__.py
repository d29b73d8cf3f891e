"""What programs on several machines agree on: sessions, locks, elections, queues, maps, counters and sets.

The replicated side is a few typed services (:data:`COORDINATION`), which a node runs alone (``twistd paxos --app
txpaxos.recipes:Coordinator``) or beside services of your own (``application_of(Bank, *COORDINATION)``).
:class:`Recipes` is the side of a program. Each name is loaded when it is first used, so that a client loads no node.
"""

from typing import TYPE_CHECKING

from txpaxos import lazy_names

if TYPE_CHECKING:
    from txpaxos.recipes.block import AlreadyContending
    from txpaxos.recipes.coordinator import COORDINATION, Coordinator
    from txpaxos.recipes.counter import Counter
    from txpaxos.recipes.fence import Fence
    from txpaxos.recipes.gathering import Barrier, DoubleBarrier, Party
    from txpaxos.recipes.leader_service import LeaderService
    from txpaxos.recipes.lease import SessionState
    from txpaxos.recipes.map import Delete, Map, MapChange, MapEntry, MapOutcome, MapPage, Put
    from txpaxos.recipes.permit import Election, Hold, Lock, Semaphore
    from txpaxos.recipes.queue import Queue, Take, Taken
    from txpaxos.recipes.recipes import Recipes
    from txpaxos.recipes.replicated.bounds import LimitReached, RequestMismatch, SessionOver
    from txpaxos.recipes.replicated.gatherings import Member
    from txpaxos.recipes.replicated.maps import ChangesGone, Guard, VersionMismatch
    from txpaxos.recipes.replicated.permits import CapacityMismatch, Contender, Fenced
    from txpaxos.recipes.replicated.queues import Depth, TakeOver
    from txpaxos.recipes.session import Session
    from txpaxos.recipes.set import Set
    from txpaxos.recipes.values import WrongValue
    from txpaxos.recipes.waiting import WaitTimedOut

_MODULES = {
    "txpaxos.recipes.block": ("AlreadyContending",),
    "txpaxos.recipes.coordinator": ("COORDINATION", "Coordinator"),
    "txpaxos.recipes.counter": ("Counter",),
    "txpaxos.recipes.fence": ("Fence",),
    "txpaxos.recipes.gathering": ("Barrier", "DoubleBarrier", "Party"),
    "txpaxos.recipes.leader_service": ("LeaderService",),
    "txpaxos.recipes.lease": ("SessionState",),
    "txpaxos.recipes.map": ("Delete", "Map", "MapChange", "MapEntry", "MapOutcome", "MapPage", "Put"),
    "txpaxos.recipes.permit": ("Election", "Hold", "Lock", "Semaphore"),
    "txpaxos.recipes.queue": ("Queue", "Take", "Taken"),
    "txpaxos.recipes.recipes": ("Recipes",),
    "txpaxos.recipes.replicated.bounds": ("LimitReached", "RequestMismatch", "SessionOver"),
    "txpaxos.recipes.replicated.gatherings": ("Member",),
    "txpaxos.recipes.replicated.maps": ("ChangesGone", "Guard", "VersionMismatch"),
    "txpaxos.recipes.replicated.permits": ("CapacityMismatch", "Contender", "Fenced"),
    "txpaxos.recipes.replicated.queues": ("Depth", "TakeOver"),
    "txpaxos.recipes.session": ("Session",),
    "txpaxos.recipes.set": ("Set",),
    "txpaxos.recipes.values": ("WrongValue",),
    "txpaxos.recipes.waiting": ("WaitTimedOut",),
}

__all__ = [
    "COORDINATION",
    "AlreadyContending",
    "Barrier",
    "CapacityMismatch",
    "ChangesGone",
    "Contender",
    "Coordinator",
    "Counter",
    "Delete",
    "Depth",
    "DoubleBarrier",
    "Election",
    "Fence",
    "Fenced",
    "Guard",
    "Hold",
    "LeaderService",
    "LimitReached",
    "Lock",
    "Map",
    "MapChange",
    "MapEntry",
    "MapOutcome",
    "MapPage",
    "Member",
    "Party",
    "Put",
    "Queue",
    "Recipes",
    "RequestMismatch",
    "Semaphore",
    "Session",
    "SessionOver",
    "SessionState",
    "Set",
    "Take",
    "TakeOver",
    "Taken",
    "VersionMismatch",
    "WaitTimedOut",
    "WrongValue",
]

__getattr__, __dir__ = lazy_names(globals(), _MODULES)
