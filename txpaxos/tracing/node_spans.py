"""The spans of a node: what becomes of a command between its arrival and its answer.

It is an observer of the node, and a companion: the node knows nothing of it. While no command with a trace is in work
it looks at no event.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txpaxos.core.messages import AcceptedSlot, AcceptSlot, Ballot, NodeId, Slot
from txpaxos.core.ready import Chosen, Ready, Voted
from txpaxos.errors import CodecError
from txpaxos.log_lines import for_log
from txpaxos.node.events import Event, MessageReceived, Observer, ReadyReleased, SaveFinished
from txpaxos.tracing.contexts import remote_context
from txpaxos.wire.client_messages import Submit
from txpaxos.wire.commands import decode_batch

if TYPE_CHECKING:
    from txpaxos.cluster import Address
    from txpaxos.keys.folder import Keys

OPEN_MAX = 4096
"""The most commands with spans that a node has in work. One more has none."""


@attrs.define(eq=False)
class _Traced:
    """A command with a span.

    :ivar span: from its arrival until its answer.
    :ivar context: that of the spans that belong to it.
    :ivar begun_ns: when the last step was over, in nanoseconds as OpenTelemetry counts them.
    :ivar slot: where it is; 0 while this node knows of none.
    :ivar ballot: the last ballot in which this node has proposed it or voted for it there; ``None`` without one.
    :ivar sent_in: the last ballot in which this node has sent it to the others, and ``sent_ns``, when.
    :ivar voters: the nodes whose votes for it in that ballot are known to be saved.
    """

    session: bytes
    sequence: int
    span: Span
    context: Context
    begun_ns: int
    slot: Slot = 0
    ballot: Ballot | None = None
    sent_in: Ballot | None = None
    sent_ns: int = 0
    is_taken_up: bool = False
    is_chosen: bool = False
    voters: set[NodeId] = attrs.field(factory=set)


@attrs.frozen
class _Found:
    """The commands with spans that a slot has.

    :ivar value: what they were found in. A slot may have another value in a later ballot.
    """

    value: bytes
    commands: list[_Traced]


class NodeSpans:
    """Makes the spans of one node, for commands whose client has named its own span.

    :param tracer: makes and ends the spans.
    :param now_ns: the time, in nanoseconds since 1970.
    """

    log = Logger()

    def __init__(self, tracer: Tracer, now_ns: Callable[[], int] = time.time_ns) -> None:
        if not isinstance(tracer, Tracer):
            raise TypeError(f"tracer must be a Tracer of opentelemetry, not {type(tracer).__name__}")
        self._tracer = tracer
        self._now_ns = now_ns
        self._node: NodeId = ""
        self._save_ns = 0  # How long the last save took.
        self._open: dict[bytes, dict[int, _Traced]] = {}
        self._open_count = 0
        self._at: dict[Slot, _Found] = {}
        self._has_failed = False

    # as a companion

    @property
    def observers(self) -> Sequence[Observer]:
        """What is called with each step of the node."""
        return (self.observe,)

    def check(self, taken: Sequence[Address] = ()) -> None:
        """There is nothing that could keep it from starting."""

    def start(self, surroundings: Any) -> None:
        """Have clients of the node say which spans they have.

        :param surroundings: those of a companion."""
        self._node = surroundings.node.name
        surroundings.client_port.tracing = self

    def use_keys(self, keys: Keys) -> None:
        """No keys are needed."""

    def stop(self) -> Deferred[None]:
        """End all spans."""
        for traced in [one for of_session in self._open.values() for one in of_session.values()]:
            self._guarded(self._end, traced, None)
        return succeed(None)

    # as what the client port calls

    def begin(self, submit: Submit, parents: Mapping[int, bytes]) -> Callable[[Any], Any]:
        """Commands of ``submit`` have arrived that belong to traces.

        :returns: to be called with the result."""
        begun: list[_Traced] = []
        self._guarded(self._begin, submit, parents, begun)

        def answered(result: Any) -> Any:
            for traced in begun:
                self._guarded(self._end, traced, result)
            return result

        return answered

    def _begin(self, submit: Submit, parents: Mapping[int, bytes], begun: list[_Traced]) -> None:
        for number, parent in parents.items():
            index, context = number - submit.request, remote_context(parent)
            sequence = submit.sequence + index
            if context is None or not 0 <= index < len(submit.commands) or self._open_count >= OPEN_MAX:
                continue
            if sequence in self._open.get(submit.session, ()):
                continue  # It was sent before, and is in work.
            now_ns = self._now_ns()
            attributes: dict[str, str | int] = {
                "txpaxos.node": self._node,
                "txpaxos.sequence": sequence,
                "txpaxos.command_bytes": len(submit.commands[index]),
            }
            span = self._tracer.start_span("txpaxos command", context, SpanKind.SERVER, attributes, start_time=now_ns)
            own = set_span_in_context(span, Context())
            traced = _Traced(submit.session, sequence, span, own, now_ns)
            self._open.setdefault(submit.session, {})[sequence] = traced
            self._open_count += 1
            begun.append(traced)

    def _end(self, traced: _Traced, result: Any) -> None:
        of_session = self._open.get(traced.session, {})
        if of_session.pop(traced.sequence, None) is None:
            return
        self._open_count -= 1
        if not of_session:
            del self._open[traced.session]
        found = self._at.get(traced.slot)
        if found is not None:
            found.commands.remove(traced)
            if not found.commands:
                del self._at[traced.slot]
        now_ns = self._now_ns()
        if traced.is_chosen:
            self._step_over(traced, "txpaxos apply", now_ns)
        if isinstance(result, Failure):
            name = type(result.value).__name__
            traced.span.set_attribute("error.type", name)
            traced.span.set_status(StatusCode.ERROR, name)
        traced.span.end(now_ns)

    # as an observer

    def observe(self, event: Event) -> None:
        """Take a step of the node."""
        if self._open_count:
            self._guarded(self._step, event)

    def _step(self, event: Event) -> None:
        match event:
            case SaveFinished(seconds):
                self._save_ns = int(seconds * 1e9)
            case ReadyReleased(ready):
                self._released(ready)
            case MessageReceived(sender, AcceptedSlot(ballot, slot)) if slot in self._at:
                for traced in self._at[slot].commands:
                    self._heard_vote(traced, ballot, sender)

    def _released(self, ready: Ready) -> None:
        now_ns = self._now_ns()
        for record in ready.save:
            if type(record) is Voted:
                for traced in self._found(record.slot, record.value):
                    self._voted(traced, record.ballot, now_ns)
        for envelope in ready.send:
            message = envelope.message
            if type(message) is AcceptSlot:
                for traced in self._found(message.slot, message.value):
                    self._proposed(traced, message.ballot, now_ns)
        for chosen in ready.chosen:
            if type(chosen) is Chosen:
                for traced in self._found(chosen.slot, chosen.value):
                    if not traced.is_chosen:
                        traced.is_chosen = True
                        self._step_over(traced, "txpaxos choose", now_ns)

    def _found(self, slot: Slot, value: bytes) -> Sequence[_Traced]:
        """The commands with spans that are in ``value``, which this node has in ``slot``."""
        if slot in self._at:
            if self._at[slot].value == value:
                return self._at[slot].commands
            for traced in self._at.pop(slot).commands:  # They will be in another slot.
                traced.slot, traced.ballot, traced.sent_in = 0, None, None
        found: list[_Traced] = []
        try:
            runs = decode_batch(value)
        except CodecError:
            return ()  # A change of the members, for one.
        for run in runs:
            of_session = self._open.get(run.session)
            for sequence, traced in () if of_session is None else of_session.items():
                if sequence in run.sequences and not traced.slot:
                    found.append(traced)
        for traced in found:
            traced.slot = slot
            traced.span.set_attribute("txpaxos.slot", slot)
        if found:
            self._at[slot] = _Found(value, found)
        return found

    def _voted(self, traced: _Traced, ballot: Ballot, now_ns: int) -> None:
        """This node has saved its vote for the value with the command: in its own ballot, if it leads."""
        saving_ns = now_ns - self._save_ns
        self._taken_up(traced, ballot, saving_ns)
        if self._node not in traced.voters:
            traced.voters.add(self._node)
            self._span(traced, "txpaxos save", max(traced.begun_ns, saving_ns), now_ns, self._node)

    def _proposed(self, traced: _Traced, ballot: Ballot, now_ns: int) -> None:
        """This node leads, and is about to send the value with the command."""
        self._taken_up(traced, ballot, now_ns)
        if ballot != traced.sent_in:  # It is sent again until there are votes.
            traced.sent_in, traced.sent_ns = ballot, now_ns

    def _taken_up(self, traced: _Traced, ballot: Ballot, now_ns: int) -> None:
        """The command waits no more: it is in a slot, in ``ballot``."""
        if ballot == traced.ballot:
            return
        if not traced.is_taken_up:
            traced.is_taken_up = True
            self._step_over(traced, "txpaxos queue", max(traced.begun_ns, now_ns))
        traced.ballot = ballot
        traced.voters.clear()
        traced.span.set_attribute("txpaxos.ballot", str(ballot))

    def _heard_vote(self, traced: _Traced, ballot: Ballot, peer: NodeId) -> None:
        """A follower has saved its vote, and its answer has come."""
        if ballot == traced.sent_in and peer not in traced.voters:
            traced.voters.add(peer)
            self._span(traced, "txpaxos save", traced.sent_ns, self._now_ns(), peer)

    def _step_over(self, traced: _Traced, name: str, now_ns: int) -> None:
        """A step has ended. The next begins."""
        self._span(traced, name, traced.begun_ns, now_ns, self._node)
        traced.begun_ns = now_ns

    def _span(self, traced: _Traced, name: str, from_ns: int, to_ns: int, node: NodeId) -> None:
        attributes: dict[str, str | int] = {"txpaxos.node": node}
        if traced.slot:
            attributes["txpaxos.slot"] = traced.slot
        self._tracer.start_span(name, traced.context, SpanKind.INTERNAL, attributes, start_time=from_ns).end(to_ns)

    # whatever a tracer does

    def _guarded(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call ``function``. A tracer that raises must not end the node: it has no spans any more."""
        if self._has_failed:
            return
        try:
            function(*arguments)
        except Exception:
            self._has_failed = True
            self._open.clear()
            self._at.clear()
            self._open_count = 0
            self.log.failure(
                "node {node} makes no spans any more: the tracer raised",
                for_log(),
                node=self._node,
                event="tracing_failed",
            )
