"""Calls of a typed service from outside: what ``client.service(Bank)`` returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeAlias, cast

from twisted.internet.defer import Deferred

from txpaxos.arguments import check_consistency, check_deadline
from txpaxos.errors import CommandFailed, ConfigError, QueryFailed
from txpaxos.reading import Consistency, Reading
from txpaxos.service.calls import ResultReader, WrongResult, encoder_of
from txpaxos.service.changes import EachChange
from txpaxos.service.declaration import R, Remote, RemoteMethod, S, Service
from txpaxos.service.definition import MethodDefinition, ServiceDefinition, definition_of
from txpaxos.service.watching import LongPoll, Watch

P = ParamSpec("P")
RemoteCall: TypeAlias = Callable[..., Deferred[Any]]


class Requests(Protocol):
    """What carries the calls: a client, or a node's own application."""

    def submit(self, command: bytes, deadline_seconds: float | None = None, /) -> Deferred[Any]:
        """Have a command applied."""

    def read(
        self, query: bytes, consistency: Consistency = "linearizable", deadline_seconds: float | None = None, /
    ) -> Deferred[Reading]:
        """Have a query answered."""


class RemoteService:
    """A service as a caller has it: an attribute for each command and query, and nothing else.

    :param definition: the service.
    :param methods: what is called for each.
    """

    def __init__(self, definition: ServiceDefinition, methods: dict[str, RemoteCall]) -> None:
        self.__dict__.update(methods)
        self.__dict__["__definition__"] = definition

    def __getattr__(self, name: str) -> Any:
        definition: ServiceDefinition = self.__dict__["__definition__"]
        if name in definition.state:
            hint = f"{name} is its state, which is on the nodes: write a query"
        else:
            hint = f"it has {', '.join([*definition.commands, *definition.queries])}"
        raise AttributeError(f"service {definition.name} has no command or query {name!r}: {hint}", name=name, obj=self)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"nothing can be set here: {name!r}", name=name, obj=self)

    def __repr__(self) -> str:
        definition: ServiceDefinition = self.__dict__["__definition__"]
        return f"<service {definition.name} ({definition.kind.__module__}:{definition.kind.__qualname__})>"


def with_other_calls(remote: Remote[S], make: Callable[[RemoteCall], Callable[..., Any]]) -> Remote[S]:
    """The same service for another kind of caller: what ``make`` makes of each of its calls."""
    calls = dict(vars(remote))
    definition: ServiceDefinition = calls.pop("__definition__")
    return cast("Remote[S]", RemoteService(definition, {name: make(call) for name, call in calls.items()}))


def remote_service(
    requests: Requests,
    kind: type[S],
    name: str | None = None,
    deadline_seconds: float | None = None,
    consistency: Consistency = "linearizable",
) -> Remote[S]:
    """The commands and queries of the service ``kind``, each of which gives a Deferred.

    :param requests: what carries the calls.
    :param name: what the nodes call the service; by default the name of its class.
    :param deadline_seconds: how long each call may take; no limit if not given.
    :param consistency: how fresh the answers of queries must be.
    :raises ConfigError: one line, if the class of the service is wrong.
    :raises TypeError: if one of the others is of a wrong type.
    :raises ValueError: if there is no such consistency, or the deadline is not finite or not above zero.
    """
    definition = definition_of(kind, name)
    seconds, consistency = check_deadline(deadline_seconds), check_consistency(consistency)
    methods = {one.name: _command(one, requests, seconds) for one in definition.commands.values()}
    methods |= {one.name: _query(one, requests, seconds, consistency) for one in definition.queries.values()}
    return cast("Remote[S]", RemoteService(definition, methods))


def _command(method: MethodDefinition, requests: Requests, seconds: float | None) -> RemoteCall:
    encode, read, submit = encoder_of(method.call), ResultReader(method), requests.submit
    plain = read.plain

    def result_of(result: Any) -> Any:
        if type(result) in plain:
            return result
        try:
            return read(result)
        except WrongResult as error:
            raise CommandFailed(f"applied, but {error}") from None

    def call(*args: Any, **kwargs: Any) -> Deferred[Any]:
        return submit(encode(*args, **kwargs), seconds).addCallbacks(result_of)

    call.__name__, call.__doc__ = method.name, method.function.__doc__
    return call


def _query(method: MethodDefinition, requests: Requests, seconds: float | None, consistency: Consistency) -> RemoteCall:
    encode, read, ask = encoder_of(method.call), ResultReader(method), requests.read

    def result_of(reading: Reading) -> Any:
        try:
            return read(reading.result)
        except WrongResult as error:
            raise QueryFailed(str(error)) from None

    def call(*args: Any, **kwargs: Any) -> Deferred[Any]:
        return ask(encode(*args, **kwargs), consistency, seconds).addCallbacks(result_of)

    def watched(*args: Any, **kwargs: Any) -> Watch[Any]:
        return Watch(LongPoll(ask, seconds), encode(*args, **kwargs), read)

    call.__name__, call.__doc__ = method.name, method.function.__doc__

    def each(*args: Any, **kwargs: Any) -> EachChange[Any]:
        call = encode(*args, **kwargs)
        return EachChange(LongPoll(ask, seconds), lambda command: requests.submit(command, seconds), call, read)

    call.watched = watched  # type: ignore[attr-defined]
    call.each = each if method.changes_kept else None  # type: ignore[attr-defined]
    return call


def watch(method: RemoteMethod[P, R], *args: P.args, **kwargs: P.kwargs) -> Watch[R]:
    """The answers of a query, from now on: first the one that it has, and then each time another one.

    .. code-block:: python

        async for amount in watch(bank.balance, "ann"):
            print(amount)

    The newest answer always comes, in order, whatever becomes of connections and leaders. Answers between may be left
    out: if the state has changed twice before the caller asks again, it gets the second one. Nothing of this is in the
    log, and a watch that is dropped leaves nothing behind.

    :param method: a query of a service, as ``client.service(Bank).balance``.
    :returns: what ``async for`` takes, also in a coroutine of Twisted's. It raises what the query raises on purpose,
        and what :meth:`Client.read() <txpaxos.Client.read>` fails with; after that it can be gone on with.
    :raises TypeError: if ``method`` is no query, or these are no arguments of it.
    """
    watched: Callable[..., Watch[R]] | None = getattr(method, "watched", None)
    if watched is None:
        name = getattr(method, "__name__", repr(method))
        raise TypeError(f"only the queries of a service can be watched, as client.service(Bank).balance, not {name}")
    return watched(*args, **kwargs)


def each_change(method: RemoteMethod[P, R], *args: P.args, **kwargs: P.kwargs) -> EachChange[R]:
    """Each change of the answer to a query, none missed: first the answer that it has, and then each other one.

    .. code-block:: python

        async for change in each_change(bank.balance, "ann"):
            print(change.version, change.answer)

    The changes come in order, each once, whatever becomes of connections, leaders and nodes. A later process goes on
    where this one was: ``each_change(bank.balance, "ann").after(version)``. The nodes keep changes for that, a limited
    number, while there is a caller and for ten minutes more.

    :param method: a query that is declared with ``changes_kept=True``, as ``client.service(Bank).balance``.
    :returns: what ``async for`` takes, also in a coroutine of Twisted's. It raises what the query raises on purpose,
        :class:`~txpaxos.errors.WatchBehind` if changes are not kept any more that the caller has not seen,
        :class:`~txpaxos.errors.Overloaded` if the nodes keep those of many calls already, and what
        :meth:`Client.submit() <txpaxos.Client.submit>` and :meth:`Client.read() <txpaxos.Client.read>` fail with; after
        that it can be gone on with.
    :raises TypeError: if ``method`` is no such query, or these are no arguments of it.
    """
    each: Callable[..., EachChange[R]] | None = getattr(method, "each", None)
    if each is None:
        name = getattr(method, "__name__", repr(method))
        raise TypeError(
            f"each change can be had of queries that are declared with @query(changes_kept=True), and {name} is not"
        )
    return each(*args, **kwargs)


def encode_call(kind: type[Service], method: RemoteMethod[P, Any], *args: P.args, **kwargs: P.kwargs) -> bytes:
    """The bytes of one call, as in ``encode_call(Bank, Bank.transfer, "ann", "bob", 5)``: for the simulator's workload,
    and for ``submit`` and ``read``. The service is called by the name of its class.

    :raises TypeError: if these are no arguments of the method.
    :raises ConfigError: one line, if the class of the service is wrong.
    """
    definition = definition_of(kind)
    try:
        found = definition.method(method.__name__)
    except KeyError:
        raise ConfigError(f"{method.__name__} is no command or query of {definition.name}") from None
    encode: Callable[..., bytes] = encoder_of(found.call)
    return encode(*args, **kwargs)
