"""The state of services as the chunks of a snapshot, and back.

The first chunk is the number of the format. Each other one is a MessagePack array: the name of a service, the name of a
part of its state, and an array of values. A dictionary, a list or a set goes item by item, in as many chunks as it
needs; every other value is the only one in its array. A part that still has its first value is left out. So a release
that declares one more part of the state writes what an earlier one wrote, until it uses that part.

Equal states give equal bytes on every node: sets are sorted. The order of a dictionary is a part of the state.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, get_args, get_origin

import msgspec

from txpaxos.errors import ConfigError
from txpaxos.fields import without_sets
from txpaxos.service.annotations import has_sets, never_changes
from txpaxos.service.declaration import Service
from txpaxos.service.definition import FieldDefinition, ServiceDefinition

FORMAT = 1
CHUNK_BYTES = 2**16
"""A chunk is complete when it is as long as this. It is longer by at most one item of a dictionary, list or set."""

_ARRAY = struct.Struct(">BI")
_ARRAY_32 = 0xDD
_encoder = msgspec.msgpack.Encoder()
_Head = tuple[str, str, msgspec.Raw]


class FieldState:
    """Saves and loads one part of the state of one service.

    :param service: what the service is called.
    """

    def __init__(self, service: str, field: FieldDefinition) -> None:
        self.field = field
        origin, arguments = get_origin(field.kept), get_args(field.kept)
        self.collection: type[Any] | None = origin if origin in (dict, list, set) else None
        item: Any = field.kept
        if self.collection is not None:
            item = tuple[arguments] if origin is dict else arguments[0]  # type: ignore[valid-type]
        self._convert: Callable[[Any], Any] = without_sets if has_sets(item) else _same
        # Where an item can be changed later, it is encoded at once.
        self._may_wait = never_changes(item)
        self._decode = msgspec.msgpack.Decoder(list[item]).decode
        self._head = b"\x93" + _encoder.encode(service) + _encoder.encode(field.name)
        self._first_size = len(self.first()) if self.collection else 0

    def chunks(self, value: Any) -> Iterable[bytes]:
        """The chunks of the current value. They do not change when the state does."""
        if self._is_first(value):
            return ()
        items = self._items(value)
        made = self._encoded(items)
        return made if self._may_wait else list(made)

    def first(self) -> Any:
        """The first value, as an object of its own."""
        return msgspec.msgpack.decode(self.field.first, type=self.field.kept)

    def empty(self) -> Any:
        """What the items in chunks are added to; the first value of what does not go item by item."""
        return self.first() if self.collection is None else self.collection()

    def loaded(self, value: Any, data: msgspec.Raw) -> Any:
        """The value after one more chunk.

        :param value: the value before it.
        :raises msgspec.MsgspecError: if ``data`` does not have what the annotation says.
        """
        items = self._decode(data)
        if self.collection is None:
            (value,) = items
        elif self.collection is list:
            value.extend(items)
        else:
            value.update(items)
        return value

    def _is_first(self, value: Any) -> bool:
        if self.collection is not None and len(value) != self._first_size:
            return False
        return bool(_encoder.encode(without_sets(value)) == self.field.first)

    def _items(self, value: Any) -> Collection[Any]:
        if self.collection is None:
            return [value]
        if self.collection is dict:
            # A copy takes a tenth of the time that a list of pairs takes.
            return (value.copy() if self._may_wait else value).items()  # type: ignore[no-any-return]
        return list(value) if self.collection is list else sorted(value, key=self._sorting)

    def _sorting(self, item: Any) -> bytes:
        return _encoder.encode(self._convert(item))

    def _encoded(self, items: Collection[Any]) -> Iterator[bytes]:
        """Chunks of items; one chunk if there is no item, since the value is none of the first, which is not empty."""
        at, chunk, count = len(self._head), bytearray(), 0
        encode_into, convert = _encoder.encode_into, self._convert
        for item in items:
            if not chunk:
                chunk, count = bytearray(self._head + bytes(_ARRAY.size)), 0
            encode_into(convert(item), chunk, -1)
            count += 1
            if len(chunk) >= CHUNK_BYTES:
                _ARRAY.pack_into(chunk, at, _ARRAY_32, count)
                yield bytes(chunk)
                chunk = bytearray()
        if chunk or not items:
            chunk = chunk or bytearray(self._head + bytes(_ARRAY.size))
            _ARRAY.pack_into(chunk, at, _ARRAY_32, count if items else 0)
            yield bytes(chunk)


class ServicesState:
    """Saves and loads the state of all services of a node.

    :param services: each definition with the object that has the state.
    """

    def __init__(self, services: Iterable[tuple[ServiceDefinition, Service]]) -> None:
        self._fields = {
            (definition.name, name): (FieldState(definition.name, field), service)
            for definition, service in services
            for name, field in definition.state.items()
        }

    def chunks(self) -> Iterator[bytes]:
        """The chunks of the current state. They do not change when the state does."""
        made = [field.chunks(getattr(service, name)) for (_, name), (field, service) in self._fields.items()]
        return _one_after_another(made)

    def load(self, chunks: Iterator[bytes]) -> None:
        """Replace the state by that of a snapshot. If this raises, nothing is replaced.

        :raises ConfigError: one line, if the snapshot has what the services do not declare.
        :raises msgspec.MsgspecError: if it has values that the annotations do not allow.
        """
        number = msgspec.msgpack.decode(next(chunks, b"\xc0"))
        if number != FORMAT:
            raise ConfigError(f"the snapshot has format {number!r:.100} of a service's state, and not {FORMAT}")
        values: dict[tuple[str, str], Any] = {}
        for chunk in chunks:
            service, name, data = msgspec.msgpack.decode(chunk, type=_Head)
            field, _ = self._fields.get((service, name), (None, None))
            if field is None:
                raise ConfigError(
                    f"the snapshot has {name!r:.100} of a service {service!r:.100}, which is not declared: state that"
                    " once was in a snapshot must stay declared"
                )
            before = values[service, name] if (service, name) in values else field.empty()
            values[service, name] = field.loaded(before, data)
        for key, (field, service_object) in self._fields.items():
            setattr(service_object, key[1], values[key] if key in values else field.first())


def _one_after_another(made: list[Iterable[bytes]]) -> Iterator[bytes]:
    yield _encoder.encode(FORMAT)
    for chunks in made:
        yield from chunks


def _same(item: Any) -> Any:
    return item
