"""What an application reimplements: the hooks of a node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from txpaxos.core.messages import NodeId, Slot
from txpaxos.fields import dump_fields, load_fields


class Application:
    """The hooks. All are called in the reactor thread; none needs ``super``.

    :cvar state_fields: the attributes that are the whole of the application's state, for the ``snapshot`` and
        ``restore`` that stand here. Their values, and the keys of dictionaries in them, consist of what MessagePack
        knows, of sets, and of attrs or dataclass objects if the class annotates the attribute. The order of a
        dictionary is a part of the state.
    """

    state_fields: ClassVar[tuple[str, ...]] = ()

    _node: Any = None
    """The node that this application runs on. The one name that is not the application's own."""

    def apply(self, slot: Slot, command: bytes) -> object:
        """Apply ``command``: on every node, in the same order, once. What it returns answers ``submit``.

        It must depend on nothing but the command and what was applied before: no clock, no chance, no order of a set.
        If it raises, the command counts as applied, on every node alike, and ``submit`` fails with
        :class:`~txpaxos.errors.CommandFailed`. A node that restarts goes on from its last snapshot, or, without any,
        applies the whole log again, to a new object.
        """

    def query(self, query: bytes) -> object:
        """Answer ``query`` from the state as it is, and change nothing. What it returns answers ``read``; it may be a
        Deferred, which fires when there is something to tell.

        If it raises, ``read`` fails with :class:`~txpaxos.errors.QueryFailed`.
        """
        raise NotImplementedError("this service answers no queries: it has no query hook")

    def snapshot(self) -> bytes | Iterable[bytes]:
        """The whole state as it is now, at once or chunk by chunk (up to 1 MiB each is good).

        Chunks are taken a few at a time while the node works on, so what they tell must not change by what is applied
        meanwhile: copy first (``list(self.items.items())`` is quick), then make the chunks. The same state must give
        the same bytes on every node: put what has no order into one.
        """
        return dump_fields(self, self.state_fields)

    def restore(self, chunks: Iterator[bytes]) -> None:
        """Take on the state that ``snapshot`` told, here or on another node, instead of the present one."""
        load_fields(self, self.state_fields, b"".join(chunks))

    def value_chosen(self, subject: str, value: bytes) -> None:
        """``subject`` was decided on ``value``. A node that restarts is told of all it knew, again."""

    def leadership_acquired(self) -> None:
        """This node leads."""

    def leadership_lost(self) -> None:
        """This node led, and does no longer."""

    def leadership_changed(self, previous: NodeId | None, current: NodeId | None) -> None:
        """The node that leads, as far as this one knows, was ``previous`` and is ``current``; ``None``: unknown."""


def name_of(application: Application) -> str:
    """The name of an application, ``module:class``: what people compare to see that all nodes run the same."""
    kind = type(application)
    return f"{kind.__module__}:{kind.__qualname__}"


def has_snapshots(application: Application) -> bool:
    """Whether the application can tell its state."""
    kind: Any = type(application)
    return bool(kind.state_fields) or kind.snapshot is not Application.snapshot
