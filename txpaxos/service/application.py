"""What a node runs of typed services: one application, which has the services, and calls their methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, ClassVar, TypeVar, cast

import attrs
import msgspec
from msgspec.structs import asdict
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from txpaxos.core.messages import NodeId, Slot
from txpaxos.errors import CallRefused, ConfigError, QueryFailed
from txpaxos.fields import without_sets
from txpaxos.protocol import PaxosProtocol
from txpaxos.reading import Consistency, Reading
from txpaxos.service.calls import FAILED_CODE, UNUSABLE, call_with, decoder_of, error_as_result, plain
from txpaxos.service.context import SEPARATOR, ServiceContext, timer_name
from txpaxos.service.declaration import CONTEXT, Remote, S, Service, ServiceError
from txpaxos.service.definition import MethodDefinition, ServiceDefinition, definition_of
from txpaxos.service.kept_changes import KEEP, QUESTION, KeptChanges
from txpaxos.service.remote import remote_service
from txpaxos.service.state import ServicesState
from txpaxos.service.watches import Topic, Watches

T = TypeVar("T")


class ServiceApplication(PaxosProtocol):
    """The application of a node that runs typed services. :func:`application_of` makes the class.

    :cvar definitions: the services, by name.
    """

    definitions: ClassVar[dict[str, ServiceDefinition]] = {}

    def __init__(self) -> None:
        self._services = {name: one.kind() for name, one in self.definitions.items()}
        for name, service in self._services.items():
            setattr(service, CONTEXT, ServiceContext(name, self._services, lambda: self.timers, self._topic_changed))
        both = [(one, self._services[name]) for name, one in self.definitions.items()]
        self._state = ServicesState(both)
        self._commands = _Methods((command, service) for one, service in both for command in one.commands.values())
        self._queries = _Methods((query, service) for one, service in both for query in one.queries.values())
        self._told: dict[Topic, None] | None = None  # Topics that may have changed, while a service may change any.
        self._watches = Watches(
            self._answer, self._topic_of, self._later, lambda: self.applied_through, self._at_end_of_turn
        )
        self._kept = self._no_kept_changes()

    def _no_kept_changes(self) -> KeptChanges:
        return KeptChanges(
            self._queries.answer,
            self._queries.topic_of_kept,
            lambda name, seconds: self.timers.set(timer_name("", name), seconds),
            lambda name: self.timers.due_in_seconds(timer_name("", name)),
            lambda name: self._watches.changed("", name),
            lambda: "" if self._node is None else self._node.cluster.name,
        )

    def apply(self, slot: Slot, command: bytes) -> object:
        """Call a command. Bytes that are no call of one are refused, on every node alike, and change nothing."""
        if command.startswith(KEEP):
            return self._kept.keep(command)
        call = self._commands.decoded(command)
        # Also without a watch: each node must call the command from the same depth, since it may exceed the limit.
        return self._watched(self._commands.service_of(call), self._commands.make, call)

    def query(self, query: bytes) -> object:
        """Call a query, or have one watched."""
        answer = self._watches.query(query)
        return self._answer(query) if answer is None else answer

    def timer_fired(self, slot: Slot, name: str, payload: bytes) -> None:
        """Tell the service that has set the timer. Of a service that this release does not run any more, none is."""
        service, _, own_name = name.partition(SEPARATOR)
        if service in self._services:
            self._watched(service, self._services[service].timer_fired, own_name, payload)
        elif not service:
            self._kept.drop(own_name)

    def leadership_changed(self, previous: NodeId | None, current: NodeId | None) -> None:
        """Let no caller wait for long at a node that is cut off."""
        self._watches.leader_changed(current is not None)

    def snapshot(self) -> Iterator[bytes]:
        """The state of all services, and the changes that are kept for callers, in chunks."""
        return chain(self._state.chunks(), self._kept.chunks())

    def restore(self, chunks: Iterator[bytes]) -> None:
        """Replace the state of all services by that of a snapshot."""
        kept = self._no_kept_changes()
        self._state.load(kept.load(chunks))
        self._kept = kept
        self._watches.look_at_all()

    def _watched(self, service: str, work: Callable[..., T], *arguments: Any) -> T:
        """Let a service do something that may change its state, and note which watched queries that may concern."""
        told = self._told = {(service, None): None}
        failed: str | None = service
        try:
            result = work(*arguments)
            failed = None
        finally:
            self._told = None
            if failed is not None:  # It may have changed something, and not have come to say so.
                self._watches.look_at_all(service)
            for topic in told:
                self._watches.changed(*topic)
            self._kept.look(told, failed)
        return result

    def _topic_changed(self, service: str, topic: str | None) -> None:
        """A service has said so, or (without a topic) was asked for by another, which may call its commands."""
        if self._told is not None:
            self._told[service, topic] = None

    def _answer(self, query: bytes) -> object:
        """Call a query, or look into the changes that are kept."""
        return self._kept.changes(query) if query.startswith(QUESTION) else self._queries.call(query)

    def _topic_of(self, query: bytes) -> Topic:
        return self._kept.topic_of_question(query) if query.startswith(QUESTION) else self._queries.topic_of(query)

    def _later(self, seconds: float, function: Callable[[], None]) -> IDelayedCall:
        return self.clock.callLater(seconds, function)

    def _at_end_of_turn(self, function: Callable[[], None]) -> bool:
        return self._node is not None and self._node.at_end_of_turn(function)

    def service(
        self,
        kind: type[S],
        name: str | None = None,
        *,
        deadline_seconds: float | None = None,
        consistency: Consistency = "linearizable",
    ) -> Remote[S]:
        """The commands and queries of one of these services, each of which gives a Deferred, as a client has them.

        :param name: what the service is called; by default the name of its class.
        :param deadline_seconds: how long each call may take; no limit if not given.
        :param consistency: how fresh the answers of queries must be, see :data:`~txpaxos.reading.Consistency`.
        :raises ConfigError: if this node does not run that service.
        """
        definition = definition_of(kind, name)
        if self.definitions.get(definition.name) is not definition:
            has = ", ".join(f"{one.kind.__name__} as {name!r}" for name, one in self.definitions.items())
            raise ConfigError(f"this node runs no service {definition.name!r} of {kind.__name__}: it runs {has}")
        return remote_service(_Here(self), kind, name, deadline_seconds, consistency)

    def state_of(self, kind: type[S], name: str | None = None) -> S:
        """The object that has the state of one of these services here, for tests. A change to it is on this node only.

        :raises KeyError: if this node does not run that service.
        """
        return cast("S", self._services[definition_of(kind, name).name])


_Method = tuple[Callable[[Any], Any], tuple[type[ServiceError], ...], MethodDefinition]


class _Methods:
    """The commands of all services, or their queries: decodes a call, and makes it.

    :param methods: each with the object that it is a method of.
    """

    def __init__(self, methods: Iterable[tuple[MethodDefinition, Service]]) -> None:
        self._methods: dict[type[Any], _Method] = {}
        for method, service in methods:
            function = method.function.__get__(service)
            errors = tuple(error.kind for error in method.errors.values())
            self._methods[method.call.shape] = call_with(method.call, function), errors, method
        self._decode = decoder_of(list(self._methods))

    def call(self, data: bytes) -> object:
        """Make the call that ``data`` holds.

        :returns: its result, or what stands for an error that it raised on purpose.
        :raises CallRefused: if that is no call of any of these methods.
        """
        return self.make(self.decoded(data))

    def make(self, call: Any) -> object:
        """Make a decoded call.

        :returns: its result, or what stands for an error that it raised on purpose.
        """
        make, errors, method = self._methods[type(call)]
        try:
            return make(call)
        except errors as error:
            return error_as_result(error, method.errors)

    def service_of(self, call: Any) -> str:
        """The name of the service that a decoded call is for."""
        return self._methods[type(call)][2].service

    def topic_of(self, data: bytes) -> Topic:
        """With what the answer to a call of a query changes.

        :raises CallRefused: as :meth:`call`.
        """
        call = self.decoded(data)
        _, _, method = self._methods[type(call)]
        return method.service, None if method.topic is None else method.topic.format(**asdict(call))

    def topic_of_kept(self, data: bytes) -> Topic:
        """The topic of a call of a query whose changes may be kept.

        :raises CallRefused: if it is none.
        """
        method = self._methods[type(self.decoded(data))][2]
        if not method.changes_kept:
            raise CallRefused(f"{method.call.tag} is not declared with changes_kept")
        return self.topic_of(data)

    def answer(self, data: bytes) -> bytes:
        """Make a call while commands are applied, on every node alike: the MessagePack of its result.

        What it raises by mistake stands there with its name only, since a text might differ from node to node.
        """
        try:
            return msgspec.msgpack.encode(without_sets(self.call(data)))
        except (MemoryError, KeyboardInterrupt):
            raise
        except BaseException as error:
            return msgspec.msgpack.encode(msgspec.msgpack.Ext(FAILED_CODE, type(error).__name__.encode()))

    def decoded(self, data: bytes) -> Any:
        """The call that ``data`` holds.

        :raises CallRefused: if that is no call of any of these methods.
        """
        try:
            return self._decode(data)
        except UNUSABLE as error:
            raise CallRefused(f"{' '.join(str(error).split())}; is the caller of another release?") from None


class _Here:
    """Carries calls to the node of an application, and gives answers that share nothing with its state."""

    def __init__(self, application: PaxosProtocol) -> None:
        self._application = application

    def submit(self, command: bytes, deadline_seconds: float | None = None, /) -> Deferred[Any]:
        """Have a command applied."""
        return self._application.submit(command, deadline_seconds)

    def read(
        self, query: bytes, consistency: Consistency = "linearizable", deadline_seconds: float | None = None, /
    ) -> Deferred[Reading]:
        """Have a query answered."""
        return self._application.read(query, consistency, deadline_seconds).addCallback(_without_sharing)


def _without_sharing(reading: Reading) -> Reading:
    try:
        return attrs.evolve(reading, result=plain(reading.result))
    except UNUSABLE as error:
        raise QueryFailed(f"what the query returned cannot be sent: {error}") from None


def application_of(*kinds: type[Service], **named: type[Service]) -> type[ServiceApplication]:
    """The application class that runs typed services: several on one node, or one in the simulator.

    .. code-block:: python

        Shop = application_of(Bank, Jobs)                     # twistd paxos --app shop.py:Shop
        Vault = application_of(savings=Bank, current=Bank)    # client.service(Bank, "savings")

    :param kinds: services that are called by the names of their classes.
    :param named: services that are called otherwise.
    :raises ConfigError: one line, if the class of a service is wrong, or two services have one name.
    """
    services = [definition_of(kind) for kind in kinds] + [definition_of(kind, name) for name, kind in named.items()]
    definitions = {one.name: one for one in services}
    if not services or len(definitions) < len(services):
        names = ", ".join(one.name for one in services) or "none"
        raise ConfigError(
            f"the services of a node have names of their own, and these are {names}: as in a=Bank, b=Bank"
        )
    modules, own = [one.kind.__module__ for one in services], [_name_with(one) for one in services]
    name = "+".join([own[0], *(f"{one}:{rest}" for one, rest in zip(modules[1:], own[1:], strict=True))])
    text = f"The application of a node that runs {', '.join(definitions)}."
    namespace = {"definitions": definitions, "__module__": modules[0], "__qualname__": name, "__doc__": text}
    return type(services[0].kind.__name__, (ServiceApplication,), namespace)


def _name_with(definition: ServiceDefinition) -> str:
    """The name of a service's class, with the name of the service where that is another."""
    kind = definition.kind
    return kind.__qualname__ if definition.name == kind.__name__ else f"{kind.__qualname__}[{definition.name}]"
