"""What a caller of ``recall`` asks for: a slot, a ballot, a command or a register."""

from __future__ import annotations

from typing import TypeAlias

from txpaxos.arguments import checked_bytes, checked_subject
from txpaxos.core.messages import Ballot, Slot
from txpaxos.wire.commands import SESSION_BYTES_MAX, SESSION_BYTES_MIN
from txpaxos.wire.registers import check_subject

NUMBER_MAX = 2**63 - 1

Question: TypeAlias = tuple[Slot, str, bytes, int, str]
"""A slot, a ballot, a session with a sequence, and a register, of which all but one are empty."""


def checked_question(slot: object, ballot: object, command: object, register: object) -> Question:
    """What is asked for, as :class:`~txpaxos.wire.client_messages.Recall` has it after its number.

    :raises TypeError: if an argument has the wrong type.
    :raises ValueError: if none is given, or more than one, or one is out of its bounds.
    """
    if not isinstance(slot, int) or isinstance(slot, bool):
        raise TypeError(f"a slot must be an int, not {type(slot).__name__}")
    if not isinstance(ballot, str):
        raise TypeError(f"a ballot must be a str, not {type(ballot).__name__}")
    session, sequence = (b"", 0) if command is None else _checked_command(command)
    name = checked_subject(register)
    if sum((slot != 0, bool(ballot), command is not None, bool(name))) != 1:
        raise ValueError("give just one: a slot, a ballot, a command, or a register")
    if not 0 <= slot <= NUMBER_MAX:
        raise ValueError(f"a slot must be from 1 to {NUMBER_MAX}, not {slot}")
    if ballot:
        ballot = str(Ballot.parse(ballot))
    if name:
        check_subject(name)
    return slot, ballot, session, sequence, name


def _checked_command(command: object) -> tuple[bytes, int]:
    if not isinstance(command, tuple) or len(command) != 2:
        raise TypeError(f"a command must be its session and its sequence, not {type(command).__name__}")
    session, sequence = checked_bytes(command[0], "a session"), command[1]
    if not isinstance(sequence, int) or isinstance(sequence, bool):
        raise TypeError(f"a sequence must be an int, not {type(sequence).__name__}")
    if not SESSION_BYTES_MIN <= len(session) <= SESSION_BYTES_MAX or not 0 <= sequence <= NUMBER_MAX:
        raise ValueError(
            f"a session must have {SESSION_BYTES_MIN} to {SESSION_BYTES_MAX} bytes, and a sequence be from 0 to"
            f" {NUMBER_MAX}"
        )
    return session, sequence
