"""A service as its class declares it: its methods, their parameters, the errors and the state.

Everything else goes by this: the bytes of a call, the snapshot, the golden file. A mistake in the class is found here,
and one line says what to do.
"""

from __future__ import annotations

import inspect
import string
import typing
from collections.abc import Callable, Iterable
from functools import cache
from types import MappingProxyType
from typing import Any, NoReturn

import attrs
import msgspec

from txpaxos.errors import ConfigError
from txpaxos.fields import without_sets
from txpaxos.service.annotations import as_kept, check_state_type, check_value_type
from txpaxos.service.declaration import Service, ServiceError, fields_of, mark_of

ERROR_CODE = 0x65
"""The type of the MessagePack extension that holds an error raised on purpose, in place of a result."""

_encode = msgspec.msgpack.Encoder().encode


@attrs.frozen
class Parameter:
    """A parameter of a method, or of an error.

    :ivar hint: its annotation.
    :ivar default: its default; ``inspect.Parameter.empty`` if it has none.
    :ivar by_name_only: whether it stands behind a ``*``.
    """

    name: str
    hint: Any
    default: Any
    by_name_only: bool

    @property
    def has_default(self) -> bool:
        """Whether it has a default."""
        return self.default is not inspect.Parameter.empty


@attrs.frozen(eq=False)
class Call:
    """What can be called or raised, as MessagePack: an array of the tag and the arguments.

    :ivar tag: ``Bank.transfer``, or the name of an error's class.
    :ivar shape: the class of the array, which msgspec decodes.
    """

    tag: str
    parameters: tuple[Parameter, ...]
    shape: type[msgspec.Struct]

    @property
    def positional_max(self) -> int:
        """How many arguments may be given without their names."""
        return sum(not parameter.by_name_only for parameter in self.parameters)


@attrs.frozen(eq=False)
class ErrorDefinition:
    """An error that a method raises on purpose."""

    kind: type[ServiceError]
    call: Call


@attrs.frozen(eq=False)
class MethodDefinition:
    """A command or a query.

    :ivar function: the function, as it was written.
    :ivar returns: the annotation of its result.
    :ivar errors: what it raises on purpose, by the names of the classes.
    :ivar topic: of a query, the pattern of the topic with which its answers change; ``None`` if it has none.
    :ivar changes_kept: of a query, whether callers may have each change of its answers kept.
    """

    name: str
    function: Callable[..., Any]
    call: Call
    returns: Any
    errors: MappingProxyType[str, ErrorDefinition]
    topic: str | None = None
    changes_kept: bool = False

    @property
    def service(self) -> str:
        """What its service is called."""
        return self.call.tag.partition(".")[0]


@attrs.frozen(eq=False)
class FieldDefinition:
    """A part of the state.

    :ivar hint: its annotation.
    :ivar kept: the type by which it is decoded.
    :ivar first: the MessagePack of its first value, without sets.
    """

    name: str
    hint: Any
    kept: Any
    first: bytes


@attrs.frozen(eq=False)
class ServiceDefinition:
    """A service, under the name that its calls and its part of a snapshot have."""

    name: str
    kind: type[Service]
    commands: MappingProxyType[str, MethodDefinition]
    queries: MappingProxyType[str, MethodDefinition]
    state: MappingProxyType[str, FieldDefinition]

    def method(self, name: str) -> MethodDefinition:
        """The command or query of this name.

        :raises KeyError: if there is none.
        """
        return self.commands[name] if name in self.commands else self.queries[name]


def definition_of(kind: type[Service], name: str | None = None) -> ServiceDefinition:
    """What the class of a service declares: the same object each time.

    :param name: what the service is called; by default the name of the class.
    :raises ConfigError: one line that says what is wrong in the class.
    """
    if not (isinstance(kind, type) and issubclass(kind, Service)):
        raise ConfigError(f"{kind!r:.100} is no subclass of txpaxos.Service")
    if kind is Service:
        raise ConfigError("txpaxos.Service itself has no methods: write a subclass")
    service = kind.__name__ if name is None else name
    if not isinstance(service, str) or not service.isidentifier():
        raise ConfigError(f"{service!r:.100} is no name for a service: it must be a name of Python")
    return _definition(kind, service)


@cache
def _definition(kind: type[Service], service: str) -> ServiceDefinition:
    methods = [_method(kind, service, one) for one in _names_of_methods(kind)]
    return ServiceDefinition(
        service,
        kind,
        MappingProxyType({one.name: one for one, is_command in methods if is_command}),
        MappingProxyType({one.name: one for one, is_command in methods if not is_command}),
        MappingProxyType({one.name: one for one in _state(kind)}),
    )


def _names_of_methods(kind: type[Service]) -> Iterable[str]:
    """The names of the commands and queries, those of base classes first."""
    names: dict[str, None] = {}
    for one in reversed(kind.__mro__):
        for name, value in vars(one).items():
            if mark_of(value) is not None:
                names[name] = None
    return names


def _method(kind: type[Service], service: str, name: str) -> tuple[MethodDefinition, bool]:
    where = f"{kind.__name__}.{name}"
    function = inspect.getattr_static(kind, name)
    mark = mark_of(function)
    if mark is None:
        raise ConfigError(f"{where} stands for a command or query of a base class and is none: decorate it, too")
    hints = _hints(function, where)
    parameters = _parameters(list(inspect.signature(function).parameters.values())[1:], hints, where)
    if "return" not in hints:
        raise ConfigError(f"{where} does not say what it returns: annotate it, as in -> int, or -> None")
    _check(check_value_type, hints["return"], f"{where} returns what cannot be sent")
    definition = MethodDefinition(
        name,
        function,
        _call(f"{service}.{name}", parameters, where),
        hints["return"],
        MappingProxyType({error.__name__: _error(error) for error in mark.raises}),
        mark.topic,
        mark.changes_kept,
    )
    if mark.topic is not None:
        _check_topic(mark.topic, parameters, where)
    if len(definition.errors) != len(mark.raises):
        raise ConfigError(f"{where} raises two classes of the same name: give one of them another")
    return definition, mark.is_command


def _check_topic(topic: str, parameters: tuple[Parameter, ...], where: str) -> None:
    names = [one.name for one in parameters]
    try:
        used = [name for _, name, _, _ in string.Formatter().parse(topic) if name is not None]
    except ValueError as error:
        raise ConfigError(f"{where}: its topic {topic!r} is no pattern: {error}") from None
    for name in used:
        if name not in names:
            raise ConfigError(
                f"{where}: its topic {topic!r} names {name!r}, which is no parameter: use {', '.join(names) or 'none'}"
            )


def _error(kind: type[ServiceError]) -> ErrorDefinition:
    """How an error is sent."""
    hints = _hints(kind.__init__, kind.__name__)
    if attrs.has(kind):
        of_class = _hints(kind, kind.__name__)
        hints |= {field.alias: of_class[field.name] for field in attrs.fields(kind) if field.name in of_class}
    parameters = _parameters(list(inspect.signature(kind.__init__).parameters.values())[1:], hints, kind.__name__)
    return ErrorDefinition(kind, _call(kind.__name__, parameters, kind.__name__))


def _hints(owner: Any, where: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(owner, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise ConfigError(f"{where}: its annotations cannot be looked up: {error}") from None


def _parameters(found: Iterable[inspect.Parameter], hints: dict[str, Any], where: str) -> tuple[Parameter, ...]:
    parameters = []
    for one in found:
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            raise ConfigError(f"{where} takes *{one.name}: write each parameter, or one that is a list")
        if one.name not in hints:
            raise ConfigError(f"{where} does not say of what type {one.name} is: annotate it, as in {one.name}: int")
        _check(check_value_type, hints[one.name], f"{where}: {one.name} cannot be sent")
        parameters.append(Parameter(one.name, hints[one.name], one.default, one.kind is one.KEYWORD_ONLY))
    return tuple(parameters)


def _check(check: Callable[[Any], None], hint: Any, what: str) -> None:
    try:
        check(hint)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what}: {' '.join(str(error).split())}") from None


def _call(tag: str, parameters: tuple[Parameter, ...], where: str) -> Call:
    """The class of an array of the tag and the arguments, with the defaults of the parameters."""
    fields: list[Any] = [
        (one.name, one.hint) if not one.has_default else (one.name, one.hint, one.default) for one in parameters
    ]
    try:
        options: Any = {"tag": tag, "tag_field": "0", "array_like": True, "forbid_unknown_fields": True}
        shape = msgspec.defstruct(tag, fields, **options)
        msgspec.msgpack.Decoder(shape)
        for one in parameters:
            if one.has_default:
                msgspec.msgpack.decode(_encode(one.default), type=one.hint)
    except (TypeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{where}: its parameters or their defaults cannot be sent: {reason}") from None
    return Call(tag, parameters, shape)


def _state(kind: type[Service]) -> Iterable[FieldDefinition]:
    """The parts of the state, each of which must come back from a snapshot as it was."""
    fields = fields_of(kind)
    if not fields:
        return
    hints = _hints(kind, kind.__name__)
    try:
        service = kind()
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ConfigError(f"the first state of {kind.__name__} cannot be made: {reason}") from None
    for name in fields:
        where = f"{kind.__name__}.{name}"
        if name not in hints:
            raise ConfigError(f"{where} does not say of what type it is: annotate it, as in {name}: dict[str, int]")
        hint = hints[name]
        _check(check_state_type, hint, f"{where} cannot be in a snapshot")
        first = getattr(service, name)
        kept = as_kept(hint)
        try:
            data = _encode(without_sets(first))
            again = msgspec.msgpack.decode(data, type=kept)
        except (TypeError, ValueError, OverflowError) as error:
            _bad_first(where, first, str(error))
        if type(again) is not type(first) or again != first:
            _bad_first(where, first, f"it comes back as {again!r:.100}")
        yield FieldDefinition(name, hint, kept, data)


def _bad_first(where: str, first: object, reason: str) -> NoReturn:
    raise ConfigError(f"{where} begins as {first!r:.100}, which is not what its annotation says: {reason}")
