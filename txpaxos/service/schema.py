"""The schema of services: what of their classes is on the wire and on disks, as JSON, for a golden file.

A schema says nothing of what the methods do. Two schemas are compared by :mod:`txpaxos.service.compatibility`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable
from typing import Any, NotRequired, TypedDict

import msgspec
from msgspec import inspect

from txpaxos.errors import ConfigError
from txpaxos.fields import without_sets
from txpaxos.service.definition import Call, MethodDefinition, Parameter, ServiceDefinition

SCHEMA_VERSION = 2
_NAMES: dict[type[inspect.Type], str] = {
    inspect.NoneType: "None",
    inspect.AnyType: "Any",
    inspect.BoolType: "bool",
    inspect.IntType: "int",
    inspect.FloatType: "float",
    inspect.StrType: "str",
    inspect.BytesType: "bytes",
    inspect.ListType: "list",
    inspect.SetType: "set",
    inspect.FrozenSetType: "frozenset",
    inspect.DictType: "dict",
}


_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")
_CLASS = re.compile(r"(?<![\w.>])[A-Z][\w.<>]*")


def schema_of(definitions: Iterable[ServiceDefinition]) -> dict[str, Any]:
    """The schema of these services, as it is in JSON."""
    return {"txpaxos_schema": SCHEMA_VERSION, "services": {one.name: _service(one) for one in definitions}}


def dump_schema(schema: dict[str, Any]) -> str:
    """A schema as text. The same classes give the same text."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def load_schema(text: str, where: str) -> dict[str, Any]:
    """A schema from text.

    :param where: where the text is from, for the error.
    :raises ConfigError: one line, if it is no schema.
    """
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is no schema of services: {error}") from None
    if not isinstance(schema, dict) or schema.get("txpaxos_schema") != SCHEMA_VERSION:
        raise ConfigError(f"{where} is no schema of services that this release knows: write it with service-schema")
    try:
        for service in msgspec.convert(schema, _Schema)["services"].values():
            for one in service["classes"].values():
                msgspec.convert(one, _Enumeration if "values" in one else _Class)
            missing = sorted(_named(service) - service["classes"].keys())
            if missing:
                raise msgspec.ValidationError(f"it does not say what {missing[0]} is")
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where} is damaged ({error}): write it anew with service-schema") from None
    return schema


def _named(part: Any) -> set[str]:
    """The classes that the types in a part of a schema name, those whose names begin as most classes' do."""
    if isinstance(part, list):
        return set().union(*map(_named, part))
    if not isinstance(part, dict):
        return set()
    found: set[str] = set()
    for key, value in part.items():
        if key in ("type", "returns") and isinstance(value, str):
            found.update(_CLASS.findall(_QUOTED.sub("", value)))
        elif key not in ("default", "first", "values"):
            found |= _named(value)
    return found - {"Any", "Literal", "None", "True", "False"}


class _Field(TypedDict):
    name: str
    type: str


class _Method(TypedDict):
    parameters: list[_Field]
    returns: str
    raises: dict[str, list[_Field]]


class _Query(_Method):
    topic: NotRequired[str]
    changes_kept: NotRequired[bool]


class _State(TypedDict):
    type: str
    first: Any


class _Service(TypedDict):
    commands: dict[str, _Method]
    queries: dict[str, _Query]
    state: dict[str, _State]
    classes: dict[str, dict[str, Any]]


class _Enumeration(TypedDict):
    values: dict[str, Any]


class _Class(TypedDict):
    in_order: bool
    fields: list[_Field]


class _Schema(TypedDict):
    """What a schema has at least."""

    services: dict[str, _Service]


class _Types:
    """Writes the types of one service as text. A class in a type goes by its name.

    :ivar classes: what is in each class, by its name.
    """

    def __init__(self) -> None:
        self.classes: dict[str, Any] = {}
        self._of_name: dict[str, type] = {}

    def text(self, hint: Any) -> str:
        return self._text(inspect.type_info(hint))

    def _text(self, info: inspect.Type) -> str:
        match info:
            case inspect.Metadata(inner):
                return self._text(inner)
            case inspect.UnionType(types):
                return " | ".join(sorted(map(self._text, types)))
            case inspect.DictType(key_type, value_type):
                return f"dict[{self._text(key_type)}, {self._text(value_type)}]{self._limits(info)}"
            case inspect.VarTupleType(item_type):
                return f"tuple[{self._text(item_type)}, ...]{self._limits(info)}"
            case inspect.CollectionType(item_type):
                return f"{_NAMES[type(info)]}[{self._text(item_type)}]{self._limits(info)}"
            case inspect.TupleType(item_types):
                return f"tuple[{', '.join(map(self._text, item_types))}]"
            case inspect.LiteralType(values):
                return f"Literal[{', '.join(sorted(map(repr, values)))}]"
        cls = getattr(info, "cls", None)
        if cls is not None:
            return self._class(cls, info)
        name = _NAMES.get(type(info), type(info).__name__.removesuffix("Type").lower())
        return f"{name}{self._limits(info)}"

    def _limits(self, info: inspect.Type) -> str:
        """What msgspec's Meta says of a type, such as (ge=0)."""
        texts = []
        for name in info.__struct_fields__:
            value = getattr(info, name)
            if value is not None and not isinstance(value, inspect.Type):
                texts.append(f"{name}={value!r}")
        return f"({', '.join(texts)})" if texts else ""

    def _class(self, cls: type, info: inspect.Type) -> str:
        name = cls.__qualname__
        if self._of_name.setdefault(name, cls) is not cls:
            raise ConfigError(f"two classes in one service are called {name}: give one of them another name")
        if name in self.classes:
            return name
        described = self.classes[name] = {}
        if isinstance(info, inspect.EnumType):
            described["values"] = {one.name: one.value for one in cls}  # type: ignore[attr-defined]
            return name
        if isinstance(info, inspect.StructType):
            described["options"] = {
                "array_like": info.array_like,
                "tag": info.tag,
                "tag_field": info.tag_field,
                "forbid_unknown_fields": info.forbid_unknown_fields,
            }
        is_array = isinstance(info, inspect.NamedTupleType) or getattr(info, "array_like", False)
        described["in_order"] = is_array
        described["fields"] = [self._field(field) for field in info.fields]  # type: ignore[attr-defined]
        return name

    def _field(self, field: inspect.Field) -> dict[str, Any]:
        made: dict[str, Any] = {"name": field.encode_name, "type": self._text(field.type)}
        if field.default_factory is not msgspec.NODEFAULT:
            made["default"] = _value(field.default_factory())
        elif field.default is not msgspec.NODEFAULT:
            made["default"] = _value(field.default)
        elif not field.required:
            made["optional"] = True
        return made


def _service(definition: ServiceDefinition) -> dict[str, Any]:
    """A service, with its own classes: those of other services may have the same names."""
    types = _Types()
    made: dict[str, Any] = {
        "commands": {name: _method(one, types) for name, one in sorted(definition.commands.items())},
        "queries": {name: _query(one, types) for name, one in sorted(definition.queries.items())},
        "state": {
            name: {"type": types.text(field.hint), "first": _value(msgspec.msgpack.decode(field.first))}
            for name, field in definition.state.items()
        },
    }
    return {**made, "classes": dict(sorted(types.classes.items()))}


def _method(method: MethodDefinition, types: _Types) -> dict[str, Any]:
    return {
        "parameters": _parameters(method.call, types),
        "returns": types.text(method.returns),
        "raises": {name: _parameters(error.call, types) for name, error in sorted(method.errors.items())},
    }


def _query(method: MethodDefinition, types: _Types) -> dict[str, Any]:
    """A query, which has a topic in snapshots if its changes are kept."""
    made = _method(method, types)
    if method.topic is not None:
        made["topic"] = method.topic
    if method.changes_kept:
        made["changes_kept"] = True
    return made


def _parameters(call: Call, types: _Types) -> list[dict[str, Any]]:
    return [_parameter(one, types.text) for one in call.parameters]


def _parameter(parameter: Parameter, text: Callable[[Any], str]) -> dict[str, Any]:
    made: dict[str, Any] = {"name": parameter.name, "type": text(parameter.hint)}
    if parameter.has_default:
        made["default"] = _value(parameter.default)
    return made


def _value(value: Any) -> Any:
    """A value in JSON. What JSON has not is its MessagePack, in base 64."""
    data = msgspec.msgpack.encode(without_sets(value))
    try:
        made = json.loads(json.dumps(msgspec.msgpack.decode(data), allow_nan=False))
    except (TypeError, ValueError):
        made = None
    if (made is None and value is not None) or msgspec.msgpack.encode(made) != data:
        return {"msgpack": base64.b64encode(data).decode()}
    return made
