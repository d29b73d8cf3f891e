"""The table of the registers: decided once, forgotten on purpose, sealed once, and the same in every snapshot."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from txpaxos.errors import CodecError
from txpaxos.node.registers import CHUNK_BYTES, NO_COMMAND, NOT_SEALED, RegisterDecided, Registers
from txpaxos.node.sessions import decode_result
from txpaxos.wire.registers import (
    DecideRegister,
    ForgetRegister,
    ImportRegisters,
    RegisterCommand,
    SealRegisters,
    encode_command,
)

KING, QUEEN = RegisterDecided("king", b"Arthur"), RegisterDecided("queen", b"Guinevere")


def apply(registers: Registers, command: RegisterCommand, slot: int = 9) -> Any:
    outcome = registers.apply(slot, encode_command(command))
    return decode_result(outcome) if isinstance(outcome, bytes) else outcome


def sealed(*registers: RegisterDecided) -> Registers:
    """A table that is sealed at slot 2, with these registers."""
    table = Registers()
    apply(table, ImportRegisters(registers), 1)
    apply(table, SealRegisters(), 2)
    table.take_news()
    return table


def restored(registers: Registers) -> Registers:
    """The table that comes out of a snapshot of ``registers``."""
    table = Registers()
    for chunk in registers.dump():
        table.add(chunk)
    return table


class TestCommands:
    def test_the_first_value_is_decided(self) -> None:
        table = sealed()
        assert [apply(table, DecideRegister("king", value)) for value in (b"Arthur", b"Mordred")] == [b"Arthur"] * 2
        assert (table.get("king"), "king" in table, len(table)) == (b"Arthur", True, 1)
        assert (table.get("queen"), "queen" in table) == (None, False)

    def test_an_empty_value_is_a_value(self) -> None:
        table = sealed()
        assert apply(table, DecideRegister("king", b"")) == b""
        assert apply(table, DecideRegister("king", b"Mordred")) == b""

    def test_what_is_forgotten_is_decided_anew(self) -> None:
        table = sealed(KING)
        assert apply(table, ForgetRegister("king")) == b"Arthur"
        assert (table.get("king"), len(table)) == (None, 0)
        assert apply(table, ForgetRegister("king")) is None
        assert apply(table, DecideRegister("king", b"Mordred")) == b"Mordred"

    def test_an_import_changes_nothing_that_is_decided(self) -> None:
        table = Registers()
        apply(table, ImportRegisters((KING,)))
        apply(table, ImportRegisters((("king", b"Mordred"), QUEEN)))
        assert (table.get("king"), table.get("queen")) == (b"Arthur", b"Guinevere")

    def test_nothing_is_imported_after_the_seal(self) -> None:
        """The import of a node that has sealed later than another one may be in the log at any place."""
        table = sealed(KING)
        apply(table, ForgetRegister("king"))
        apply(table, ImportRegisters((KING, QUEEN)))
        assert len(table) == 0

    def test_the_first_seal_counts(self) -> None:
        table = sealed()
        apply(table, SealRegisters(), 7)
        assert table.sealed_at == 2

    @pytest.mark.parametrize("command", [DecideRegister("king", b"x"), ForgetRegister("king")])
    def test_before_the_seal_nothing_is_decided_or_forgotten(self, command: RegisterCommand) -> None:
        table = Registers()
        apply(table, ImportRegisters((KING,)))
        assert apply(table, command) == NOT_SEALED
        assert table.get("king") == b"Arthur"

    @pytest.mark.parametrize(
        "payload",
        [
            b"",
            b"\x01",
            b"\x05\x80",
            b"\x01\x80",
            encode_command(SealRegisters()) + b"x",
            encode_command(DecideRegister("", b"x")),
            encode_command(DecideRegister("x" * 513, b"x")),
            encode_command(ForgetRegister("ö" * 257)),
            encode_command(ImportRegisters((KING, ("", b"x")))),
        ],
    )
    def test_what_is_no_command_fails_alike_everywhere_and_changes_nothing(self, payload: bytes) -> None:
        table = Registers()
        assert table.apply(9, payload) == NO_COMMAND
        assert (len(table), table.sealed_at) == (0, 0)


class TestNews:
    def test_each_decision_is_told_once(self) -> None:
        table = Registers()
        apply(table, ImportRegisters((KING,)))
        apply(table, SealRegisters())
        for subject in ("king", "queen"):
            apply(table, DecideRegister(subject, b"Guinevere"))
        assert table.take_news() == [KING, QUEEN]
        assert table.take_news() == []

    def test_a_snapshot_tells_what_it_decides_otherwise(self) -> None:
        old, new = sealed(KING, QUEEN), sealed(("king", b"Mordred"), QUEEN, ("knight", b"Gawain"))  # type: ignore[arg-type]
        new.replaces(old)
        assert new.take_news() == [("king", b"Mordred"), ("knight", b"Gawain")]

    def test_news_that_were_not_told_before_a_snapshot_are_told_with_it(self) -> None:
        old, new = Registers(), sealed(KING)
        apply(old, ImportRegisters((QUEEN,)))
        new.replaces(old)
        assert new.take_news() == [QUEEN, KING]


class TestSnapshots:
    @pytest.mark.parametrize("sizes", [[], [0], [5] * 10, [CHUNK_BYTES + 1] * 3, [CHUNK_BYTES // 3] * 20])
    def test_what_goes_in_comes_out(self, sizes: list[int]) -> None:
        table = sealed(*(RegisterDecided(f"{number}", bytes(size)) for number, size in enumerate(sizes)))
        again = restored(table)
        assert list(again.dump()) == list(table.dump())
        assert again.sealed_at == 2
        assert [again.get(f"{number}") for number in range(len(sizes))] == [bytes(size) for size in sizes]

    def test_a_register_that_is_forgotten_is_in_no_snapshot(self) -> None:
        table = sealed(KING, QUEEN)
        apply(table, ForgetRegister("king"))
        assert (restored(table).get("king"), restored(table).get("queen")) == (None, b"Guinevere")

    def test_a_table_that_was_never_used_is_not_there(self) -> None:
        """So the snapshot is the same as one of an earlier release."""
        assert list(Registers().dump()) == []

    def test_a_half_imported_table_is_not_sealed(self) -> None:
        table = Registers()
        apply(table, ImportRegisters((KING,)))
        assert (restored(table).sealed_at, restored(table).get("king")) == (0, b"Arthur")

    def test_the_table_may_change_while_it_is_dumped(self) -> None:
        table = sealed(*(RegisterDecided(f"{number}", bytes(CHUNK_BYTES)) for number in range(4)))
        chunks = table.dump()
        again = Registers()
        again.add(next(chunks))
        apply(table, ForgetRegister("3"))
        apply(table, DecideRegister("4", b"x"))
        for chunk in chunks:
            again.add(chunk)
        assert (again.get("3"), again.get("4")) == (bytes(CHUNK_BYTES), None)

    @pytest.mark.parametrize(
        ("chunk", "reason"),
        [
            (b"", "no table of registers"),
            (msgspec.msgpack.encode([2, 0, []]), "table of registers of version 2"),
            (msgspec.msgpack.encode([1, 0, [["king", 5]]]), "no table of registers"),
        ],
    )
    def test_what_is_no_dump_is_refused(self, chunk: bytes, reason: str) -> None:
        with pytest.raises(CodecError, match=reason):
            Registers().add(chunk)
