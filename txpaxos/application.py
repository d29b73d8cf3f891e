"""The hooks of an application, which a node calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from txpaxos.core.messages import NodeId, Slot
from txpaxos.fields import dump_fields, load_fields


class Application:
    """The hooks of an application. All are called in the reactor thread. None needs to call ``super``.

    :cvar state_fields: the names of the attributes that make up the application's state. The ``snapshot`` and
        ``restore`` of this class save and restore them. The values of these attributes, and the keys of dictionaries in
        them, may be anything that MessagePack knows, sets, and attrs or dataclass objects if the class annotates the
        attribute. The order of a dictionary is a part of the state.
    """

    state_fields: ClassVar[tuple[str, ...]] = ()

    _node: Any = None
    """The node that this application runs on. It is the only name that an application must not use."""

    def apply(self, slot: Slot, command: bytes) -> object:
        """Apply ``command``. Every node applies every command once, in the same order.

        The result must depend only on the command, on the commands applied before, and on the replicated time
        (:attr:`~txpaxos.PaxosProtocol.now`): not on a clock of this machine, a random number, or the order of a set. If
        this raises, the command counts as applied on every node, and ``submit`` fails with
        :class:`~txpaxos.errors.CommandFailed`. After a restart a new object gets the state of the last snapshot, if
        there is one, and then the commands of the log after it.

        :param slot: the slot of the log that ``command`` is in. Several commands may be in one slot.
        :returns: the result, with which ``submit`` fires.
        """

    def timer_fired(self, slot: Slot, name: str, payload: bytes) -> None:
        """Do what was to happen later: the timer ``name`` is due, which ``apply`` or this hook has set
        (:attr:`~txpaxos.PaxosProtocol.timers`).

        As ``apply``, it may change the state, does the same on every node, and is called in the order of the log. It
        returns nothing. If it raises, that is logged, and the timer counts as fired.
        """

    def query(self, query: bytes) -> object:
        """Answer ``query`` from the current state, without changing it.

        If this raises, ``read`` fails with :class:`~txpaxos.errors.QueryFailed`.

        :returns: the result, with which ``read`` fires, or a Deferred that fires with it.
        """
        raise NotImplementedError("this service answers no queries: it has no query hook")

    def snapshot(self) -> bytes | Iterable[bytes]:
        """The whole current state, as bytes or in chunks. A chunk should have no more than 1 MiB.

        The node reads a few chunks at a time and applies commands in between. These must not change the chunks: copy
        the state first (``list(self.items.items())`` is quick), and make the chunks then. Equal states must give equal
        bytes on every node: sort whatever has no order.
        """
        return dump_fields(self, self.state_fields)

    def restore(self, chunks: Iterator[bytes]) -> None:
        """Replace the state by that of a snapshot, which ``snapshot`` returned on this node or another one."""
        load_fields(self, self.state_fields, b"".join(chunks))

    def value_chosen(self, subject: str, value: bytes) -> None:
        """Note that ``subject`` was decided on ``value``.

        After a restart this is called again for each subject. It is also called again for a subject that was forgotten
        and is decided anew."""

    def leadership_acquired(self) -> None:
        """Note that this node has become the leader."""

    def leadership_lost(self) -> None:
        """Note that this node is no longer the leader."""

    def leadership_changed(self, previous: NodeId | None, current: NodeId | None) -> None:
        """Note that the leader known to this node has changed from ``previous`` to ``current``; ``None``: unknown."""


def name_of(application: Application | type[Application]) -> str:
    """The name of an application, ``module:class``: what people compare to see that all nodes run the same."""
    kind = application if isinstance(application, type) else type(application)
    return f"{kind.__module__}:{kind.__qualname__}"


def has_snapshots(application: Application) -> bool:
    """Whether the application has snapshots: its own ``snapshot``, ``state_fields``, or no state since it has no
    ``apply``."""
    kind: Any = type(application)
    has_no_state = kind.apply is Application.apply
    return bool(kind.state_fields) or kind.snapshot is not Application.snapshot or has_no_state
