"""What of the recipes is on the wire and on disks stays as ``schema.json`` says, as users are told to check theirs.

A change that earlier clients, logs and snapshots survive is written into the file by ``TXPAXOS_REWRITE=1 python -m
pytest test/recipes/test_schema.py``. One that they do not survive is not.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path

from test.cli.test_commands import invoke
from txpaxos.recipes import COORDINATION, Coordinator
from txpaxos.service.compatibility import changes_between
from txpaxos.service.schema import dump_schema, load_schema, schema_of

GOLDEN = Path(__file__).parent / "schema.json"
SCHEMA = schema_of(Coordinator.definitions.values())


def test_the_recipes_read_what_an_earlier_release_has_written() -> None:
    changes = changes_between(load_schema(GOLDEN.read_text(), GOLDEN.name), SCHEMA)
    assert [one.text for one in changes if not one.allowed] == []
    if os.environ.get("TXPAXOS_REWRITE"):
        GOLDEN.write_text(dump_schema(SCHEMA))


def test_the_golden_file_has_all_that_there_is_now() -> None:
    assert GOLDEN.read_text() == dump_schema(SCHEMA), "TXPAXOS_REWRITE=1 writes it anew if the change is allowed"
    assert list(load_schema(GOLDEN.read_text(), GOLDEN.name)["services"]) == [one.__name__ for one in COORDINATION]


def test_the_commands_that_users_are_told_to_run() -> None:
    printed = invoke("service-schema", "txpaxos.recipes:Coordinator")
    assert printed.stdout == GOLDEN.read_text()
    checked = invoke("check-service", str(GOLDEN), "txpaxos.recipes:Coordinator")
    assert (checked.exit_code, checked.stdout) == (0, "nothing has changed\n")


def test_a_change_of_any_method_state_or_class_is_noticed() -> None:
    for name, service in SCHEMA["services"].items():
        for part in ("commands", "queries", "state"):
            for one in service[part]:
                changed = copy.deepcopy(SCHEMA)
                del changed["services"][name][part][one]
                assert [change.allowed for change in changes_between(SCHEMA, changed)] == [False], (name, one)
        for one in service["classes"]:
            changed = copy.deepcopy(SCHEMA)
            changed["services"][name]["classes"][one]["fields"].pop()
            assert [change.allowed for change in changes_between(SCHEMA, changed)] == [False], (name, one)
