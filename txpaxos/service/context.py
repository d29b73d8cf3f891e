"""What is around a service on its node: the time, its timers, and the other services."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from txpaxos.node.timers import Timers
from txpaxos.replicated_time import ReplicatedTime

T = TypeVar("T")

SEPARATOR = "/"
"""Between the name of a service and what it calls its timer, in the name that the timer has on the node."""


def timer_name(service: str, name: str) -> str:
    """What the timer ``name`` of a service is called on its node, and by those who keep it alive."""
    return f"{service}{SEPARATOR}{name}"


class ServiceTimers:
    """The timers of one service. Their names are its own: another service of the node may use the same ones.

    :param service: what the service is called.
    :param timers: gives those of the node.
    """

    def __init__(self, service: str, timers: Callable[[], Timers]) -> None:
        self._service = service
        self._timers = timers

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and timer_name(self._service, name) in self._timers()

    def set(self, name: str, after_seconds: float, payload: bytes = b"", kept_alive: bool = False) -> None:
        """Have ``timer_fired`` of this service called with ``name`` and ``payload``, in place of what was set before.

        :param name: at most 512 bytes of UTF-8, together with the name of the service.
        :param after_seconds: from now on, by the elapsed time: the time without a leader does not count.
        :param payload: at most 64 KiB.
        :param kept_alive: whether clients put it off for another ``after_seconds``, again and again. They know it by
            the name of the service, a slash, and its own name.
        :raises TypeError: if a value has the wrong type.
        :raises ValueError: if a value is out of its bounds, or there are too many timers.
        """
        self._timers().set(timer_name(self._service, _checked(name)), after_seconds, payload, kept_alive)

    def cancel(self, name: str) -> bool:
        """Let the timer ``name`` not fire. Returns whether there was one."""
        return self._timers().cancel(timer_name(self._service, _checked(name)))

    def due_in_seconds(self, name: str) -> float | None:
        """How long it takes until the timer ``name`` fires; ``None`` if there is none."""
        return self._timers().due_in_seconds(timer_name(self._service, _checked(name)))


class ServiceContext:
    """What is around one service.

    :param name: what the service is called.
    :param services: all services of the node, by name.
    :param timers: gives the timers of the node.
    :param changed: called with the service's name and each topic that it says has changed, and with the name of each
        other service that it asks for, and ``None``: it may call that one's commands.
    """

    def __init__(
        self,
        name: str,
        services: Mapping[str, object],
        timers: Callable[[], Timers],
        changed: Callable[[str, str | None], None],
    ) -> None:
        self.timers = ServiceTimers(name, timers)
        self._name = name
        self._services = services
        self._node_timers = timers
        self._changed = changed

    @property
    def now(self) -> ReplicatedTime:
        """The replicated time."""
        return self._node_timers().now

    @property
    def siblings(self) -> tuple[Any, ...]:
        """All services of the node."""
        for name in self._services:
            self._changed(name, None)
        return tuple(self._services.values())

    def sibling(self, kind: type[T], name: str | None) -> T:
        """Another service of the node.

        :raises LookupError: if it runs no such service.
        """
        wanted = kind.__name__ if name is None else name
        found = self._services.get(wanted)
        if type(found) is not kind:
            has = ", ".join(f"{type(one).__name__} as {known!r}" for known, one in self._services.items())
            raise LookupError(f"no service {wanted!r} of {kind.__name__} is beside {self._name!r}: there are {has}")
        self._changed(wanted, None)
        return found

    def changed(self, topic: str) -> None:
        """A topic of the service has changed."""
        self._changed(self._name, topic)


def context_without_node(service: object) -> ServiceContext:
    """What is around a service that runs on no node, as in a unit test: timers of its own, and no other service."""
    timers = Timers()
    timers.allow_changes(True)
    name = type(service).__name__
    return ServiceContext(name, {name: service}, lambda: timers, lambda _name, _topic: None)


def _checked(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the name of a timer must be a str, not {type(name).__name__}")
    return name
