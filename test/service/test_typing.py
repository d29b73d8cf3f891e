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
import asyncio

from bank import Bank, NotEnough
from txpaxos import Client, Remote, Service, ServiceError, application_of, command, encode_call, query, state
from txpaxos import aio, each_change, watch
from txpaxos.aio.recipe_types import Queue as QueueOfCoroutines
from txpaxos.aio.recipe_types import Session as SessionOfCoroutines
from txpaxos.recipes import Queue, Recipes, Session
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

    @query(topic="stock {what}", changes_kept=True)
    def has(self, what: str) -> bool:
        return what in self.stock

    @query(topic=5)  # error: "query" matches argument type "int"
    def first(self) -> None: ...

    @query(changes_kept="yes")  # error: "query" matches argument type "str"
    def last(self) -> None: ...

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


async def watched(client: Client) -> None:
    bank, shop = client.service(Bank), client.service(Shop)
    async for left in watch(bank.balance, "ann"):
        number: int = left
        text: str = left  # error: "int", variable has type "str"
    answers = watch(bank.balance, account="ann")
    deferred: Deferred[int] = answers.next()
    wrong: Deferred[str] = answers.next()  # error: "Deferred[int]", variable has type "Deferred[str]"
    answers.after(5)  # error: "after"
    answers.close()
    watch(bank.balance)  # error: "account"
    watch(bank.balance, 5)  # error: "int"; expected "str"
    watch(bank.balance, "ann", "bob")  # error: Too many arguments
    watch(len, "ann")  # error: "Callable[[Sized], int]"; expected "RemoteMethod
    async for change in each_change(shop.has, "tea").after(5):
        has: bool = change.answer
        text = change.answer  # error: "bool", variable has type "str"
        number = change.version
        change.text  # error: "text"
    changes = each_change(shop.has, what="tea")
    changes.after("5")  # error: "str"; expected "int"
    seen: str = changes.version  # error: "int | None", variable has type "str"
    each_change(shop.has, 5)  # error: "int"; expected "str"
    each_change(shop.has, who="tea")  # error: "who"
    each_change(Shop.has)  # error: "what"


async def watched_in_asyncio(client: aio.Client) -> None:
    bank, shop = client.service(Bank), client.service(Shop)
    async for left in aio.watch(bank.balance, "ann"):
        number: int = left
        text: str = left  # error: "int", variable has type "str"
    answers = aio.watch(bank.balance, account="ann")
    task: asyncio.Task[int] = asyncio.create_task(answers.next())
    wrong: asyncio.Task[str] = asyncio.create_task(answers.next())  # error: "Coroutine[Any, Any, int]"
    answers.next().addCallback(print)  # error: "addCallback"
    answers.close()
    aio.watch(bank.balance)  # error: "account"
    aio.watch(bank.balance, 5)  # error: "int"; expected "str"
    aio.watch(len, "ann")  # error: "Callable[[Sized], int]"; expected "RemoteMethod
    async for change in aio.each_change(shop.has, "tea").after(5):
        has: bool = change.answer
        text = change.answer  # error: "bool", variable has type "str"
        number = change.version
    changes = aio.each_change(shop.has, what="tea")
    first = asyncio.create_task(changes.next())
    has = (await first).answer
    changes.after("5")  # error: "str"; expected "int"
    aio.each_change(shop.has, 5)  # error: "int"; expected "str"
    aio.each_change(shop.has, who="tea")  # error: "who"


async def with_deferreds(own: Recipes, jobs: Queue[int], session: Session) -> None:
    number: Deferred[int] = jobs.put(5).addCallback(abs)
    asyncio.create_task(jobs.put(5))  # error: "Deferred[int]"; expected "Generator | Coroutine[Any, Any
    await jobs.put("5")  # error: "str"; expected "int"


async def with_coroutines(client: aio.Client) -> None:
    own = aio.recipes(client, deadline_seconds=5.0)
    jobs: QueueOfCoroutines[int] = own.queue("jobs", int)
    put: asyncio.Task[int] = asyncio.create_task(jobs.put(5))
    jobs.put(5).addCallback(abs)  # error: "addCallback"
    asyncio.create_task(jobs.put("5"))  # error: "str"; expected "int"
    async with await own.session(ttl_seconds=5.0) as session:
        same: SessionOfCoroutines = session
        async with jobs.take(session) as job:
            text: str = job.value  # error: "int", variable has type "str"
        taken = await jobs.take(session)
        await asyncio.gather(taken.give_back(), own.counter("hits").add())
        async with session.lock("reports") as hold:
            over = asyncio.create_task(hold.over())
            token: str = hold.token  # error: "int", variable has type "str"
        async for leader in session.election("lead").leaders():
            leader.value  # error: "value"
        asyncio.create_task(session.close())
    async for entry in own.map("limits", int).entries():
        text = entry.value  # error: "int", variable has type "str"
    jobs.take("session")  # error: "str"; expected "Session"
    both: Queue[int] = jobs  # error: "txpaxos.aio.recipe_types.Queue[int]"
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
