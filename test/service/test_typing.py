"""Type checkers know the methods of a service, at its callers and inside of it, without a plugin.

The program below says in a comment what mypy must find in a line. What it finds elsewhere, or does not find, fails.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
from bank import Bank, NotEnough
from txpaxos import Client, Remote, Service, ServiceError, application_of, command, encode_call, query, state
from twisted.internet.defer import Deferred


class Shop(Service):
    stock: dict[str, int] = state(dict)
    sold: int = state(int)
    wrong: int = state(str)  # error: "str"

    @command
    def sell(self, what: str, count: int = 1, *, gift: bool = False) -> int:
        self.stock[what] -= count
        self.sold += "1"  # error: "str"
        return self.left(what)

    @command(raises=NotEnough)
    def sell_all(self, what: str) -> int:
        self.sell(5)  # error: "int"; expected "str"
        missing: str = self.sell(what)  # error: "int", variable has type "str"
        return self.sell(what, self.left(what), gift=True)

    @query
    def left(self, what: str) -> int:
        return self.stock[what]

    @command(raises=ValueError)  # error: "type[ValueError]"
    def odd(self) -> None: ...


async def calls(client: Client) -> None:
    bank = client.service(Bank, deadline_seconds=5.0)
    again: Remote[Bank] = bank
    left: int = await again.transfer("ann", "bob", 5)
    left = await bank.transfer("ann", target="bob", amount=5)
    deferred: Deferred[int] = bank.balance("ann")
    await bank.transfer("ann", "bob", "5")  # error: "str"; expected "int"
    await bank.transfer("ann", "bob")  # error: "amount"
    await bank.transfer("ann", "bob", 5, 6)  # error: Too many arguments
    await bank.transfer("ann", "bob", sum=5)  # error: "sum"
    await bank.withdraw("ann", 5)  # error: "withdraw"
    text: str = await bank.balance("ann")  # error: "int", variable has type "str"
    bank.balance("ann") + 5  # error: "Deferred[int]"
    await client.service(Shop).sell("tea", gift=1)  # error: "int"; expected "bool"
    client.service(int)  # error: "service"


def inside(bank: Bank) -> None:
    left: int = bank.transfer("ann", "bob", 5)
    bank.transfer("ann", "bob", "5")  # error: "str"; expected "int"
    encode_call(Bank, Bank.transfer, "ann", "bob", 5)
    encode_call(Bank, Bank.transfer, "ann", "bob", "5")  # error: "str"; expected "int"
    application_of(Bank, shop=Shop)().service(Shop).left("tea").addCallback(print)
    application_of(int)  # error: "type[int]"
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """What mypy finds in the program, by line."""
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("typing")
    (folder / "program.py").write_text(PROGRAM)
    (folder / "none.ini").write_text("[mypy]\n")
    options = ["--strict", "--config-file", "none.ini", "--follow-imports=silent", "--cache-dir", "cache"]
    result = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "program.py"],
        cwd=folder,
        env={**os.environ, "MYPYPATH": f"{ROOT}{os.pathsep}{ROOT / 'examples'}"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert result.stderr == ""
    errors: dict[int, str] = {}
    for number, text in re.findall(r"^program\.py:(\d+): error: (.*)$", result.stdout, re.MULTILINE):
        errors[int(number)] = errors.get(int(number), "") + text
    return errors


def wanted() -> dict[int, list[str]]:
    """What mypy must find, by line."""
    lines = enumerate(PROGRAM.splitlines(), 1)
    return {number: line.split("# error: ")[1].split(" | ") for number, line in lines if "# error: " in line}


@pytest.mark.parametrize("number", wanted())
def test_a_mistake_is_found(number: int, found: dict[int, str]) -> None:
    text = found.get(number, "")
    assert [part for part in wanted()[number] if part not in text] == [], text


def test_nothing_else_is_found(found: dict[int, str]) -> None:
    assert {number: text for number, text in found.items() if number not in wanted()} == {}
