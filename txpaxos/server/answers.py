"""The messages that answer a client's request. :mod:`~txpaxos.server.connection` sends them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from typing import Any, cast

from twisted.python.failure import Failure

from txpaxos.errors import OutcomeUnknown, PaxosError, QueryFailed, error_name
from txpaxos.log_lines import described, text_of
from txpaxos.node.backups import BackupPart
from txpaxos.node.keep_alives import Kept
from txpaxos.node.sessions import ERROR_CHARACTERS_MAX, Failed, Outcome, encode_result
from txpaxos.reading import Reading
from txpaxos.server.member_changes import ChangeDone
from txpaxos.server.members_report import MembersReport
from txpaxos.wire.client_messages import (
    Answer,
    AskAnswer,
    BackupAnswer,
    ChangeAnswer,
    FromNode,
    HandedOver,
    JoinAnswer,
    MembersAnswer,
    MembersRequest,
    Read,
    ReadAnswer,
    Recall,
    Refused,
    Request,
    StatusAnswer,
    StatusRequest,
    TimersKept,
)

ANSWER_BYTES = 2**20
"""Bytes of results in one Answer, beyond the first result."""


def answers_to(number: int, requests: int, result: Any) -> Sequence[FromNode]:
    """What to send to the client that made ``requests`` requests, numbered from ``number`` on.

    :param result: what the node's Deferred fired with: the outcomes of a run of commands (a list), a
        :class:`~txpaxos.reading.Reading`, the numbers of keep-alives, a status (a dict), the new leader (a
        str), the value of a subject (bytes or ``None``), a report of the members, the end of a change of members, the
        answer to a node that joins, or a Failure that concerns all of the requests.
    """
    match result:
        case list():
            return _answers_to_run(number, result)
        case Failure():
            return (refusal(number, result.value, requests),)
        case Reading():
            return (_read_answer(number, result),)
        case Kept(numbers, period_ms):
            return (TimersKept(number, numbers, period_ms),)
        case dict():
            return (StatusAnswer(number, json.dumps(result).encode()),)
        case BackupPart(body):
            return (BackupAnswer(number, body),)
        case str():
            return (HandedOver(number, result),)
        case MembersReport(members):
            return (MembersAnswer(number, json.dumps(members).encode()),)
        case ChangeDone(line):
            return (ChangeAnswer(number, line),)
        case JoinAnswer():
            return (result,)
        case _:
            return (AskAnswer(number, result),)


def refusal(number: int, error: BaseException | None, count: int = 1) -> Refused:
    """What tells a client that its ``count`` requests from ``number`` on have failed with ``error``."""
    name = error_name(error) if isinstance(error, PaxosError) else PaxosError.__name__
    words = "" if error is None else text_of(error)[:ERROR_CHARACTERS_MAX]
    return Refused(number, name, words.encode(errors="backslashreplace").decode(), count)


def no_answer(request: Request, count: int, error: Exception) -> Refused:
    """What tells a client that its ``count`` requests, of which ``request`` is the message, were performed, and that no
    answer can be made of the result."""
    kind = QueryFailed if isinstance(request, Read | Recall | StatusRequest | MembersRequest) else OutcomeUnknown
    return refusal(request.request, kind(f"the node could not make an answer: {described(error)}"), count)


def _answers_to_run(number: int, outcomes: Sequence[Outcome]) -> Sequence[FromNode]:
    """Results are answered together, and so are commands that failed alike. The order is that of the commands."""
    if set(map(type, outcomes)) == {bytes}:  # Nearly always.
        results = cast("tuple[bytes, ...]", tuple(outcomes))
        if sum(map(len, results)) <= ANSWER_BYTES:
            return (Answer(number, results),)
    return [*_answers_in_parts(number, outcomes)]


def _answers_in_parts(number: int, outcomes: Sequence[Outcome]) -> Iterator[FromNode]:
    for kind, group in groupby(outcomes, type):
        if kind is bytes:
            results = [outcome for outcome in group if isinstance(outcome, bytes)]
            while results:
                fit = len(results)
                if sum(map(len, results)) > ANSWER_BYTES:
                    fit = sum(size <= ANSWER_BYTES for size in accumulate(map(len, results))) or 1
                yield Answer(number, tuple(results[:fit]))
                number += fit
                del results[:fit]
            continue
        failures = [(outcome.error, outcome.words) for outcome in group if isinstance(outcome, Failed)]
        for (error, words), alike in groupby(failures):
            count = len(list(alike))
            yield refusal(number, error(words), count)
            number += count


def _read_answer(number: int, reading: Reading) -> FromNode:
    """Of an object of a user's own, encoding it may raise anything: an attribute is missing, or is a property."""
    try:
        return ReadAnswer(number, reading.slot, encode_result(reading.result))
    except KeyboardInterrupt:
        raise
    except ValueError as error:
        reason = text_of(error)
    except BaseException as error:
        reason = described(error)
    return refusal(number, QueryFailed(f"what query returned cannot be sent: {reason}"))
