"""Replicated services on Twisted: Multi-Paxos that keeps its promises.

The names in ``__all__`` are the public face, with what their documentation names. Each is loaded when it is first used,
so that importing the algorithm alone (:mod:`txpaxos.core`) loads no Twisted, and a client no node.
"""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from txpaxos.client import Client
    from txpaxos.cluster import Cluster
    from txpaxos.core.config import Timing
    from txpaxos.errors import (
        CommandFailed,
        ConfigError,
        MembersRefused,
        NodeStopped,
        NoQuorum,
        NotAllowed,
        NotChosen,
        NotHandedOver,
        OutcomeUnknown,
        Overloaded,
        PaxosError,
        QueryFailed,
        SessionExpired,
        StoreError,
        ValueTooLarge,
        WatchBehind,
    )
    from txpaxos.node.settings import Settings
    from txpaxos.node.snapshots.taking import Policy
    from txpaxos.protocol import PaxosProtocol
    from txpaxos.reading import Consistency, Reading
    from txpaxos.replicated_time import ReplicatedTime
    from txpaxos.server.served_node import ServedNode
    from txpaxos.server.service import PaxosService
    from txpaxos.service.application import application_of
    from txpaxos.service.changes import Change
    from txpaxos.service.declaration import Remote, Service, ServiceError, command, query, state
    from txpaxos.service.remote import each_change, encode_call, watch

__version__ = "0.1.0"

_MODULES = {
    "txpaxos.client": ("Client",),
    "txpaxos.cluster": ("Cluster",),
    "txpaxos.core.config": ("Timing",),
    "txpaxos.errors": (
        "MembersRefused",
        "CommandFailed",
        "ConfigError",
        "NoQuorum",
        "NodeStopped",
        "NotAllowed",
        "NotChosen",
        "NotHandedOver",
        "OutcomeUnknown",
        "Overloaded",
        "PaxosError",
        "QueryFailed",
        "SessionExpired",
        "StoreError",
        "ValueTooLarge",
        "WatchBehind",
    ),
    "txpaxos.node.settings": ("Settings",),
    "txpaxos.node.snapshots.taking": ("Policy",),
    "txpaxos.protocol": ("PaxosProtocol",),
    "txpaxos.reading": ("Consistency", "Reading"),
    "txpaxos.replicated_time": ("ReplicatedTime",),
    "txpaxos.server.served_node": ("ServedNode",),
    "txpaxos.server.service": ("PaxosService",),
    "txpaxos.service.application": ("application_of",),
    "txpaxos.service.declaration": ("Remote", "Service", "ServiceError", "command", "query", "state"),
    "txpaxos.service.changes": ("Change",),
    "txpaxos.service.remote": ("each_change", "encode_call", "watch"),
}

__all__ = [
    "Change",
    "Client",
    "Cluster",
    "CommandFailed",
    "ConfigError",
    "Consistency",
    "MembersRefused",
    "NoQuorum",
    "NodeStopped",
    "NotAllowed",
    "NotChosen",
    "NotHandedOver",
    "OutcomeUnknown",
    "Overloaded",
    "PaxosError",
    "PaxosProtocol",
    "PaxosService",
    "Policy",
    "QueryFailed",
    "Reading",
    "Remote",
    "ReplicatedTime",
    "ServedNode",
    "Service",
    "ServiceError",
    "SessionExpired",
    "Settings",
    "StoreError",
    "Timing",
    "ValueTooLarge",
    "WatchBehind",
    "application_of",
    "command",
    "each_change",
    "encode_call",
    "query",
    "state",
    "watch",
]


def lazy_names(
    namespace: dict[str, Any], modules: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """What a package needs as its ``__getattr__`` and its ``__dir__``, to load names when they are first used.

    :param namespace: the ``globals()`` of the package.
    :param modules: from modules to the names that come from them.
    """
    package, module_of = namespace["__name__"], {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = namespace[name] = getattr(import_module(module_of[name]), name)
        return value

    def names() -> list[str]:
        return sorted({*namespace, *module_of})

    return get, names


__getattr__, __dir__ = lazy_names(globals(), _MODULES)
