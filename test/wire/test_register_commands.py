"""Commands of the registers: to bytes and back, and how an import is divided among them."""

from __future__ import annotations

import pytest

from txpaxos.wire.registers import (
    IMPORT_BYTES,
    IMPORTED_MAX,
    SUBJECT_BYTES_MAX,
    DecideRegister,
    ForgetRegister,
    ImportRegisters,
    RegisterCommand,
    SealRegisters,
    decode_command,
    encode_command,
    import_commands,
)

EVERY_COMMAND: tuple[RegisterCommand, ...] = (
    DecideRegister("king", b"Arthur"),
    ForgetRegister("king"),
    ImportRegisters((("king", b"Arthur"), ("queen", b""))),
    SealRegisters(),
)


@pytest.mark.parametrize("command", EVERY_COMMAND)
def test_a_command_comes_back(command: RegisterCommand) -> None:
    assert decode_command(encode_command(command)) == command


def test_no_bytes_are_no_command() -> None:
    with pytest.raises(ValueError, match="an empty command"):
        decode_command(b"")


@pytest.mark.parametrize("subject", ["", "k" * (SUBJECT_BYTES_MAX + 1)])
def test_a_command_about_a_name_that_no_register_can_have_is_refused(subject: str) -> None:
    for command in (DecideRegister(subject, b""), ForgetRegister(subject), ImportRegisters(((subject, b""),))):
        with pytest.raises(ValueError, match="the name of a register has"):
            decode_command(encode_command(command))


def divided(registers: dict[str, bytes]) -> list[int]:
    """How many registers each command imports. Together they import them all, in the order of their names."""
    commands = list(import_commands(registers))
    assert [one for command in commands for one in command.registers] == sorted(registers.items())
    assert [decode_command(encode_command(command)) for command in commands] == commands
    return [len(command.registers) for command in commands]


def test_an_import_is_divided_by_its_bytes() -> None:
    half = IMPORT_BYTES // 2 - 1
    assert divided({}) == []
    assert divided({"c": b"", "a": bytes(half), "b": bytes(half)}) == [2, 1]
    assert divided({"a": bytes(half), "b": bytes(half + 1), "c": bytes(half)}) == [1, 1, 1]


def test_a_register_too_big_for_one_command_has_one_of_its_own() -> None:
    assert divided({"a": b"", "b": bytes(2 * IMPORT_BYTES), "c": b""}) == [1, 1, 1]


def test_an_import_is_divided_by_the_number_of_its_registers() -> None:
    assert divided({f"{number}": b"" for number in range(IMPORTED_MAX + 1)}) == [IMPORTED_MAX, 1]
