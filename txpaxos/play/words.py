"""Messages, records and values in words, as the page shows them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from txpaxos.core.messages import (
    NO_OP,
    Accept,
    Accepted,
    AcceptedSlot,
    AcceptSlot,
    ChosenValues,
    Decided,
    Fetch,
    Heartbeat,
    HeartbeatAck,
    Message,
    Nack,
    Prepare,
    PrepareLog,
    PreVote,
    PreVoteGranted,
    Promise,
    PromiseLog,
    Proposal,
    ReadIndexReply,
    ReadIndexRequest,
    Slot,
    TakeOver,
    Truncated,
)


def value_in_words(value: bytes) -> str:
    """A value, for people."""
    return "no-op" if value == NO_OP else value.decode(errors="backslashreplace")


def proposal_in_words(proposal: Proposal | None) -> str:
    """What an acceptor accepted, for people."""
    return "nothing" if proposal is None else f"{value_in_words(proposal.value)} in {proposal.ballot}"


def entries_in_words(first_slot: Slot, values: Iterable[bytes]) -> str:
    """Chosen values and their slots, for people."""
    return ", ".join(f"{slot} = {value_in_words(value)}" for slot, value in enumerate(values, first_slot))


def nodes_in_words(nodes: Iterable[str]) -> str:
    """Names in a row: ``a, b and c``."""
    *first, last = sorted(nodes) or ["none"]
    return f"{', '.join(first)} and {last}" if first else last


def message_in_words(message: Message) -> str:
    """One message, for people."""
    match message:
        case Prepare(ballot):
            return f"Prepare {ballot}"
        case Promise(ballot, accepted):
            return f"Promise {ballot}, accepted {proposal_in_words(accepted)}"
        case Accept(ballot, value):
            return f"Accept {ballot} {value_in_words(value)}"
        case Accepted(ballot, value):
            return f"Accepted {ballot} {value_in_words(value)}"
        case Nack(ballot, promised):
            return f"Nack {ballot}, promised {promised}"
        case Decided(value):
            return f"Decided {value_in_words(value)}"
        case Heartbeat(ballot, chosen_through) | HeartbeatAck(ballot, chosen_through):
            kind = "Heartbeat" if isinstance(message, Heartbeat) else "HeartbeatAck"
            return f"{kind} {ballot}, chosen through {chosen_through}"
        case PreVote():
            return "PreVote"
        case PreVoteGranted():
            return "PreVoteGranted"
        case _:
            return _of_the_log(message)


def _of_the_log(
    message: PrepareLog
    | PromiseLog
    | AcceptSlot
    | AcceptedSlot
    | TakeOver
    | Fetch
    | ChosenValues
    | Truncated
    | ReadIndexRequest
    | ReadIndexReply,
) -> str:
    match message:
        case PrepareLog(ballot, first_slot):
            return f"PrepareLog {ballot} from slot {first_slot}"
        case PromiseLog(ballot, first_slot, values, votes):
            knows = f", knows {entries_in_words(first_slot, values)}" if values else ""
            accepted = ", ".join(f"{slot} = {value_in_words(value)} in {of}" for slot, of, value in votes) or "nothing"
            return f"PromiseLog {ballot}{knows}, accepted {accepted}"
        case AcceptSlot(ballot, slot, value, chosen_through):
            return f"AcceptSlot {ballot} {slot} = {value_in_words(value)}, chosen through {chosen_through}"
        case AcceptedSlot(ballot, slot):
            return f"AcceptedSlot {ballot} {slot}"
        case Fetch(first_slot):
            return f"Fetch from slot {first_slot}"
        case ChosenValues(first_slot, values, chosen_through):
            return f"ChosenValues {entries_in_words(first_slot, values)}, chosen through {chosen_through}"
        case TakeOver() | Truncated() | ReadIndexRequest() | ReadIndexReply():  # Nothing on the stage causes these.
            return type(message).__name__
        case _:
            assert_never(message)
