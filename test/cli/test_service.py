"""``txpaxos service-schema`` and ``txpaxos check-service``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from test.cli.test_commands import invoke

BANK = f"{Path(__file__).parents[2]}/examples/bank.py:Bank"
BOTH = """
from txpaxos import Service, application_of, command

class Jobs(Service):
    @command
    def add(self, job: str) -> None: ...

class Timers(Service):
    pass

Shop = application_of(Jobs, clock=Timers)
"""


def test_a_schema_is_a_golden_file_of_itself(tmp_path: Path) -> None:
    golden = tmp_path / "bank.json"
    printed = invoke("service-schema", BANK)
    golden.write_text(printed.stdout)
    assert list(json.loads(printed.stdout)["services"]) == ["Bank"]
    for old, new in ((str(golden), BANK), (BANK, str(golden)), (str(golden), str(golden))):
        checked = invoke("check-service", old, new)
        assert (checked.exit_code, checked.stdout) == (0, "nothing has changed\n")


def test_an_application_of_several_services(tmp_path: Path) -> None:
    (tmp_path / "two_services.py").write_text(BOTH)
    printed = invoke("service-schema", f"{tmp_path}/two_services.py:Shop")
    assert list(json.loads(printed.stdout)["services"]) == ["Jobs", "clock"]


def test_each_change_is_a_line_and_one_that_breaks_something_ends_with_1(tmp_path: Path) -> None:
    schema = json.loads(invoke("service-schema", BANK).stdout)
    bank = schema["services"]["Bank"]
    del bank["commands"]["deposit"], bank["queries"]["total"]
    (tmp_path / "old.json").write_text(json.dumps(schema))
    grown = invoke("check-service", f"{tmp_path}/old.json", BANK)
    assert grown.exit_code == 0
    assert grown.stdout.splitlines() == [
        "allowed  command Bank.deposit is new: have all nodes run this release before it is called",
        "allowed  query Bank.total is new: have all nodes run this release before it is called",
    ]
    shrunk = invoke("check-service", BANK, f"{tmp_path}/old.json")
    assert shrunk.exit_code == 1
    assert shrunk.stdout.splitlines() == [
        "BREAKS   command Bank.deposit is gone: the log has calls of it",
        "BREAKS   query Bank.total is gone: earlier clients call it",
    ]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "golden.json cannot be read: No such file or directory"),
        (b"\xff\xfe", "golden.json is no schema of services: it is no text in UTF-8"),
        (b"{", "golden.json is no schema of services: "),
        (b'{"txpaxos_schema": 1}', "golden.json is no schema of services that this release knows"),
        (b"[]", "golden.json is no schema of services that this release knows"),
        (b'{"txpaxos_schema": 2}', "golden.json is damaged (Object missing required field `services`)"),
        (b'{"txpaxos_schema": 2, "services": {"Bank": 3}}', "golden.json is damaged (Expected `object`"),
        (
            b'{"txpaxos_schema": 2, "services": {"A": {"commands": {}, "queries": {}, "state": {},'
            b' "classes": {"B": {}}}}}',
            "golden.json is damaged (Object missing",
        ),
    ],
)
def test_what_is_no_schema_is_one_line(tmp_path: Path, content: bytes | None, line: str) -> None:
    golden = tmp_path / "golden.json"
    if content is not None:
        golden.write_bytes(content)
    for arguments in ((golden, BANK), (BANK, golden)):
        result = invoke("check-service", *map(str, arguments))
        assert result.exit_code == 1
        (shown,) = result.stderr.splitlines()
        assert line in shown


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("txpaxos.counter:Counter", "txpaxos.counter:Counter is no subclass of txpaxos.Service"),
        ("txpaxos.counter:Nothing", "SERVICE txpaxos.counter:Nothing: txpaxos.counter has no Nothing"),
        ("txpaxos.service.declaration:Service", "txpaxos.Service itself has no methods: write a subclass"),
        ("nothing.json", "nothing.json"),
    ],
)
def test_what_is_no_service_is_one_line(argument: str, line: str) -> None:
    for command in (("check-service", BANK), ("service-schema",)):
        if argument.endswith(".json") and command == ("service-schema",):
            continue
        result = invoke(*command, argument)
        assert result.exit_code == 1
        (shown,) = result.stderr.splitlines()
        assert line in shown


def test_a_schema_that_is_nested_too_deep_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    checked = invoke("check-service", f"{tmp_path}/deep.json", BANK)
    assert checked.exit_code == 1
    assert checked.stderr.startswith(f"txpaxos: {tmp_path}/deep.json is no schema of services: ")
    assert checked.stderr.count("\n") == 1


SHOP = """
import msgspec
from typing import Any, Literal
from txpaxos import Service, command, state

class Item(msgspec.Struct):
    name: str
    size: Literal["Small", "Large"] = "Small"

class Shop(Service):
    items: dict[str, Item] = state(dict)

    @command
    def add(self, item: Item, more: Any = None) -> None: ...

class Broken(Service):
    items: list[int] = state(lambda: 1 / 0)

print("loaded")
"""


def test_what_the_module_prints_is_no_part_of_the_schema(tmp_path: Path) -> None:
    (tmp_path / "shop_that_prints.py").write_text(SHOP)
    printed = invoke("service-schema", f"{tmp_path}/shop_that_prints.py:Shop")
    assert "Shop" in json.loads(printed.stdout)["services"]
    assert printed.stderr == "loaded\n"


def test_a_first_state_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "shop_without_state.py").write_text(SHOP.replace('print("loaded")', ""))
    printed = invoke("service-schema", f"{tmp_path}/shop_without_state.py:Broken")
    assert (printed.exit_code, printed.stdout) == (1, "")
    assert printed.stderr == (
        "txpaxos: the first state of Broken cannot be made: ZeroDivisionError: division by zero\n"
    )


def test_a_schema_in_which_a_class_is_missing_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "shop_with_items.py").write_text(SHOP.replace('print("loaded")', ""))
    golden, shop = tmp_path / "golden.json", f"{tmp_path}/shop_with_items.py:Shop"
    schema = json.loads(invoke("service-schema", shop).stdout)
    golden.write_text(json.dumps(schema))
    assert invoke("check-service", str(golden), shop).stdout == "nothing has changed\n"
    del schema["services"]["Shop"]["classes"]["Item"]
    golden.write_text(json.dumps(schema))
    for arguments in ((str(golden), shop), (shop, str(golden))):
        checked = invoke("check-service", *arguments)
        assert checked.exit_code == 1
        assert "golden.json is damaged (it does not say what Item is)" in checked.stderr
