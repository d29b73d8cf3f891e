"""To type checkers, the recipes of asyncio have coroutines where those of Twisted give Deferreds, and else the same.

``TXPAXOS_REWRITE=1 python -m pytest test/aio/test_recipe_types.py`` writes the types anew.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from test.helpers.asyncio_face import CLASSES, method_of, stub, without_layout
from txpaxos.aio import recipe_types

FILE = Path(recipe_types.__file__).with_suffix(".pyi")
NAMES = [(module, name) for module, names in CLASSES.items() for name in names]


def test_the_types_are_those_of_the_classes() -> None:
    if os.environ.get("TXPAXOS_REWRITE"):
        FILE.write_text(stub())
        subprocess.run([sys.executable, "-m", "ruff", "format", "-q", FILE], check=True)
    assert without_layout(FILE.read_text()) == without_layout(stub()), "TXPAXOS_REWRITE=1 writes them anew"


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_each_type_has_a_name_when_a_program_runs(module: str, name: str) -> None:
    assert getattr(recipe_types, name).__module__ == module


def test_what_gives_a_deferred_is_a_coroutine_there() -> None:
    source = ast.parse("def put(self, value: T, n: int = 5) -> Deferred[int | None]:\n    return go()").body[0]
    assert isinstance(source, ast.FunctionDef)
    assert ast.unparse(method_of(source)) == "async def put(self, value: T, n: int=5) -> int | None:\n    ..."
    source = ast.parse("async def all(self) -> AsyncIterator[T]:\n    yield 5").body[0]
    assert isinstance(source, ast.AsyncFunctionDef)
    assert ast.unparse(method_of(source)) == "def all(self) -> AsyncIterator[T]:\n    ..."
