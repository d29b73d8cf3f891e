"""Typed services in tests, with more checks than a node makes: they cost a copy of the state for each call."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from txpaxos.core.messages import Slot
from txpaxos.service.application import ServiceApplication, application_of
from txpaxos.service.calls import ResultReader, WrongResult, plain
from txpaxos.service.declaration import Service, ServiceError


class StrictApplication(ServiceApplication):
    """An application of typed services that notes what is wrong with them. :func:`strict_application_of` makes the
    class, for the simulator and for unit tests.

    It notes a command that has changed the state and raised, a query that has changed the state, a result that is not
    what its annotation says, and a state that does not come back from a snapshot as it was.

    :cvar faults: what all objects of this class have noted, one line each.
    """

    faults: ClassVar[list[str]] = []

    def apply(self, slot: Slot, command: bytes) -> object:
        """Call a command."""
        before = list(self.snapshot())
        raised = True
        try:
            result = super().apply(slot, command)
            raised = self._is_error(command, result)
        finally:
            after = list(self.snapshot())
            if raised and after != before:
                self._note(command, "has changed the state and raised: check first, and change afterwards")
            if not self._comes_back(after):
                self._note(command, "has made a state that does not come back from a snapshot as it was")
        return result

    def query(self, query: bytes) -> object:
        """Call a query."""
        before = list(self.snapshot())
        try:
            result = super().query(query)
            self._is_error(query, result)
        finally:
            if list(self.snapshot()) != before:
                self._note(query, "is a query and has changed the state")
        return result

    def _comes_back(self, chunks: list[bytes]) -> bool:
        """Whether a node could start from this snapshot, and would have the same state."""
        again = type(self)()
        try:
            again.restore(iter(chunks))
        except (msgspec.MsgspecError, TypeError):
            return False
        return list(again.snapshot()) == chunks

    def _is_error(self, call: bytes, result: object) -> bool:
        """Whether the method has raised an error on purpose, in place of a result."""
        service, _, name = msgspec.msgpack.decode(call)[0].partition(".")
        if service not in self.definitions:  # A watch, and not a call itself.
            return False
        try:
            ResultReader(self.definitions[service].method(name))(plain(result))
        except ServiceError:
            return True
        except WrongResult as error:
            self._note(call, str(error))
        return False

    def _note(self, call: bytes, what: str) -> None:
        """Note a fault once for each method."""
        line = f"{msgspec.msgpack.decode(call)[0]}: {what}"
        if line not in self.faults:
            self.faults.append(line)


def strict_application_of(*kinds: type[Service], **named: type[Service]) -> type[StrictApplication]:
    """As :func:`~txpaxos.service.application.application_of`, for tests. Look at ``faults`` of the class afterwards.

    .. code-block:: python

        app = strict_application_of(Bank)
        result = simulate(seed, app=app, workload=some_command)
        assert (result.violation, app.faults) == (None, [])
    """
    plain_kind = application_of(*kinds, **named)
    namespace: dict[str, Any] = {"definitions": plain_kind.definitions, "faults": [], "__doc__": plain_kind.__doc__}
    names = {"__module__": plain_kind.__module__, "__qualname__": plain_kind.__qualname__}
    return type(plain_kind.__name__, (StrictApplication,), namespace | names)
