"""What a typed service is written with: the class, its state, its commands and its queries.

Nothing here runs on a node. A program that only calls a service imports the service's class, and with it no node.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar, overload

import attrs
from twisted.internet.defer import Deferred

from txpaxos.replicated_time import ReplicatedTime

if TYPE_CHECKING:
    from txpaxos.service.context import ServiceContext, ServiceTimers

P = ParamSpec("P")
R = TypeVar("R")
Result = TypeVar("Result", covariant=True)
S = TypeVar("S", bound="Service")
T = TypeVar("T")

MARK = "__txpaxos_method__"
"""The attribute of a function that says that it is a command or a query."""
CONTEXT = "__txpaxos_context__"
"""The slot of a service for what is around it on its node."""


class ServiceError(Exception):
    """The base class of the errors that a command or a query raises on purpose, and names in its ``raises``.

    The caller gets such an error as what it is: an object of the same class, made with the same arguments. A subclass
    without an ``__init__`` takes a text. One with an ``__init__`` must annotate its parameters, as a command does; an
    attrs class will do, too.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(text)

    if not TYPE_CHECKING:  # What it is made with is what goes to the caller. Type checkers look at __init__ instead.

        def __new__(cls, *args: Any, **kwargs: Any) -> ServiceError:
            made = super().__new__(cls, *args)
            made.__dict__["_made_with"] = args, kwargs
            return made


@attrs.frozen
class Mark:
    """What a decorator says of a function.

    :ivar is_command: whether it is a command; otherwise it is a query.
    :ivar raises: the errors that it raises on purpose.
    :ivar topic: of a query, the pattern of the topic with which its answers change; ``None`` if it has none.
    :ivar changes_kept: of a query, whether callers may have each change of its answers kept.
    """

    is_command: bool
    raises: tuple[type[ServiceError], ...]
    topic: str | None = None
    changes_kept: bool = False


class RemoteMethod(Generic[P, Result]):
    """A command or a query of a service, as a caller has it, for type checkers: its call gives a Deferred.

    When a program runs it is a function.
    """

    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Deferred[Result]:
        """Make the call.

        :raises TypeError: if the arguments are not those of the method. Nothing was sent then.
        """
        raise NotImplementedError("only type checkers see this class")


class Method(Generic[P, Result]):
    """A command or a query of a service, as type checkers see it. When a program runs it is the function itself.

    On an object (``self.transfer`` in the service, ``Bank().transfer`` in a test) it is the method that was written. On
    the class it is what a caller has, since a type checker takes what ``client.service(Bank)`` returns for the class.
    """

    @overload
    def __get__(self, service: None, kind: type) -> RemoteMethod[P, Result]: ...

    @overload
    def __get__(self, service: object, kind: type) -> Callable[P, Result]: ...

    def __get__(self, service: object, kind: type) -> Any:
        raise NotImplementedError("only type checkers see this class")


@attrs.frozen
class StateField:
    """An attribute that is a part of the state.

    :ivar factory: makes its first value.
    """

    factory: Callable[[], Any]


def state(factory: Callable[[], T]) -> T:
    """Declare an attribute of a service that is a part of its state, as in ``balances: dict[str, int] = state(dict)``.

    :param factory: makes the first value, the same on every node.
    :raises TypeError: if it cannot be called.
    """
    if not callable(factory):
        raise TypeError(f"state() wants what makes the first value, as state(dict), not {factory!r}: write a lambda")
    field: Any = StateField(factory)
    return field  # type: ignore[no-any-return]


def mark_of(value: object) -> Mark | None:
    """What the decorator of a function says; ``None`` if it has neither of them."""
    mark: Mark | None = getattr(value, MARK, None)
    return mark


class _Body(dict[str, Any]):
    """The body of a service's class, while it is read. What is written again under one name would be lost."""

    def __init__(self, of: str) -> None:
        super().__init__()
        self._of = of

    def __setitem__(self, key: str, value: Any) -> None:
        _check_one_thing(self._of, key, self.get(key), value)
        super().__setitem__(key, value)


def _check_one_thing(owner: str, key: str, before: object, value: object) -> None:
    """See that a name that stands for a part of the state stands for no method, and the other way round.

    :raises TypeError: if it does.
    """
    one, other = (before, value) if isinstance(before, StateField) else (value, before)
    mark = mark_of(other)
    if isinstance(one, StateField) and mark is not None:
        what = "command" if mark.is_command else "query"
        raise TypeError(f"{owner}.{key} is a part of the state and a {what}: give one of them another name")


class ServiceType(type):
    """The type of services. The attributes of an object are its state and nothing else.

    An attribute that is no state would be in no snapshot. A node that starts from a snapshot would not have it, and
    would go another way than the others. So setting it raises AttributeError, on every node alike.
    """

    fields: dict[str, StateField]
    """The attributes that are the state, with those of the base classes, which come first."""

    @classmethod
    def __prepare__(mcls, name: str, bases: tuple[type, ...], /, **named: Any) -> dict[str, Any]:
        """What the body of the class is written into."""
        return _Body(name)

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> ServiceType:
        """Make the class, with a slot for each part of the state.

        :raises TypeError: if a name stands for a part of the state and for a command or query.
        """
        own = {key: value for key, value in namespace.items() if isinstance(value, StateField)}
        inherited: dict[str, StateField] = {}
        for base in reversed(bases):
            inherited |= getattr(base, "__txpaxos_fields__", {})
        slots = tuple(key for key in own if key not in inherited) if bases else (CONTEXT,)
        rest = {key: value for key, value in namespace.items() if key not in own}
        made = super().__new__(mcls, name, bases, {**rest, "__slots__": slots, "__txpaxos_fields__": inherited | own})
        if made.__dictoffset__:
            others = ", ".join(base.__name__ for base in bases if base.__dictoffset__)
            raise TypeError(f"{name}: {others} has attributes that are no state; write __slots__ = () in it")
        for key, field in made.__txpaxos_fields__.items():  # type: ignore[attr-defined]
            for one in made.__mro__:
                _check_one_thing(name, key, field, vars(one).get(key))
        return made


class Service(metaclass=ServiceType):
    """A replicated service with methods. Subclass it, declare its state, and write its commands and queries.

    .. code-block:: python

        class Bank(Service):
            balances: dict[str, int] = state(dict)

            @command
            def deposit(self, account: str, amount: int) -> int:
                self.balances[account] = self.balances.get(account, 0) + amount
                return self.balances[account]

            @query
            def balance(self, account: str) -> int:
                return self.balances.get(account, 0)

    An object of the class needs no node: ``Bank().deposit("ann", 5)`` is a unit test. Every name is yours.
    :func:`~txpaxos.service.application.application_of` makes what a node runs, and
    :meth:`Client.service() <txpaxos.Client.service>` what a caller calls.
    """

    __slots__ = ()

    if not TYPE_CHECKING:  # Type checkers go by the __init__ of the subclass.

        def __new__(cls, *args: Any, **kwargs: Any) -> Service:
            made = super().__new__(cls)
            for name, field in fields_of(cls).items():
                setattr(made, name, field.factory())
            return made

    @property
    def now(self) -> ReplicatedTime:
        """The replicated time: in a command and in :meth:`timer_fired` that of the slot, in a query that of the last
        slot that was applied. Without a node it is the beginning of all time."""
        return context_of(self).now

    @property
    def timers(self) -> ServiceTimers:
        """The timers of this service, which are a part of the replicated state. Commands and :meth:`timer_fired` set
        and cancel them: ``self.timers.set("close", after_seconds=30)``."""
        return context_of(self).timers

    def timer_fired(self, name: str, payload: bytes) -> None:
        """Called on every node, at the same slot, when the timer ``name`` of this service is due."""

    def sibling(self, kind: type[S], name: str | None = None) -> S:
        """Another service of the same node, whose methods a command may call: they are part of the same step then.

        :param name: what that service is called; by default the name of its class.
        :raises LookupError: if the node runs no such service.
        """
        return context_of(self).sibling(kind, name)

    def siblings(self) -> tuple[Service, ...]:
        """All services of this node, this one included, in the order in which they were given."""
        return context_of(self).siblings

    def changed(self, topic: str) -> None:
        """Say in a command, or in :meth:`timer_fired`, that answers of queries with this topic may differ from now on.

        Those who watch such a query get the new answer. A query without a topic is looked at after each command.
        """
        context_of(self).changed(topic)


Remote: TypeAlias = type[S]
"""What ``client.service(Bank)`` returns is a ``Remote[Bank]``: its commands and queries, which give Deferreds. To type
checkers it is the class itself."""


def fields_of(kind: type[Service]) -> dict[str, StateField]:
    """The attributes that are the state of a service, by name, those of base classes first."""
    found: dict[str, StateField] = kind.__dict__["__txpaxos_fields__"]
    return found


def context_of(service: Service) -> ServiceContext:
    """What is around a service: its node, or what stands for one in a unit test."""
    try:
        context: ServiceContext = getattr(service, CONTEXT)
    except AttributeError:
        from txpaxos.service.context import context_without_node

        context = context_without_node(service)
        setattr(service, CONTEXT, context)
    return context


@overload
def command(function: Callable[Concatenate[Any, P], R], /) -> Method[P, R]: ...


@overload
def command(
    *, raises: type[ServiceError] | tuple[type[ServiceError], ...] = ()
) -> Callable[[Callable[Concatenate[Any, P], R]], Method[P, R]]: ...


def command(function: Any = None, /, *, raises: type[ServiceError] | tuple[type[ServiceError], ...] = ()) -> Any:
    """Make a method a command. Every node calls it once for each call of a client, in the same order.

    It must depend only on its arguments and on the state. Its parameters and its result are annotated.

    :param raises: the errors that it raises on purpose, subclasses of :class:`ServiceError`.
    :raises TypeError: if that is no function, or ``raises`` holds something else.
    """
    return _marked(function, "command", raises)


@overload
def query(function: Callable[Concatenate[Any, P], R], /) -> Method[P, R]: ...


@overload
def query(
    *,
    raises: type[ServiceError] | tuple[type[ServiceError], ...] = (),
    topic: str | None = None,
    changes_kept: bool = False,
) -> Callable[[Callable[Concatenate[Any, P], R]], Method[P, R]]: ...


def query(
    function: Any = None,
    /,
    *,
    raises: type[ServiceError] | tuple[type[ServiceError], ...] = (),
    topic: str | None = None,
    changes_kept: bool = False,
) -> Any:
    """Make a method a query. One node calls it for each call of a client. It must not change the state.

    :param raises: the errors that it raises on purpose, subclasses of :class:`ServiceError`.
    :param topic: with what its answers change, with the names of its parameters in braces: ``"lock {name}"``. A command
        that changes such an answer says so: ``self.changed("lock reports")``. Without a topic each command may change
        them.
    :param changes_kept: whether callers may have each change of its answers kept
        (:func:`~txpaxos.service.remote.each_change`). All nodes call it for that while they apply commands. So it must
        be as a command is: it depends on its arguments and the state alone.
    :raises TypeError: if that is no function, ``raises`` holds something else, ``topic`` is no str, or ``changes_kept``
        no bool.
    """
    if not isinstance(changes_kept, bool):
        raise TypeError(f"changes_kept must be a bool, not {type(changes_kept).__name__}")
    if topic is not None and not isinstance(topic, str):
        raise TypeError(f"the topic of a query must be a str, not {type(topic).__name__}")
    return _marked(function, "query", raises, topic, changes_kept)


def _marked(function: Any, word: str, raises: Any, topic: str | None = None, changes_kept: bool = False) -> Any:
    errors = raises if isinstance(raises, tuple) else (raises,)
    for error in errors:
        if not (isinstance(error, type) and issubclass(error, ServiceError)):
            raise TypeError(f"raises names {error!r}, which is no subclass of ServiceError")
    if function is None:
        return lambda function: _marked(function, word, errors, topic, changes_kept)
    if not inspect.isfunction(function):
        raise TypeError(f"@{word} is for functions in a service, not for {function!r:.100}")
    name = function.__qualname__
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{name} is an async function: a {word} must be a plain one; what takes time has no place in it"
        )
    if inspect.isgeneratorfunction(function):
        raise TypeError(f"{name} has a yield in it, so that its body would never run: return the result")
    if (mark := mark_of(function)) is not None:
        other = "command" if mark.is_command else "query"
        raise TypeError(f"{name} is a {other} and a {word}: a method is one of them")
    setattr(function, MARK, Mark(word == "command", errors, topic, changes_kept))
    return function
