"""The house stands: imports point down, the algorithm does nothing but decide, and no function is too long to read."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).parent.parent

ANY = frozenset({"*"})
PURE = frozenset(
    {"__future__", "bisect", "collections", "contextlib", "dataclasses", "enum", "functools", "hashlib", "heapq"}
    | {"itertools", "math", "operator", "struct", "types", "typing", "zlib"}
)


@attrs.frozen
class Floor:
    """Some rooms, what they may import of txpaxos (besides themselves), and what from elsewhere (top-level names)."""

    rooms: tuple[str, ...]
    inside: frozenset[str]
    outside: frozenset[str]


LOWEST = frozenset({"txpaxos.errors"})
CORE = LOWEST | {"txpaxos.core"}
BESIDE_STORAGE = CORE | {"txpaxos.packing"}
LOWER = BESIDE_STORAGE | {"txpaxos.wire", "txpaxos.storage"}
PROTOCOL_ROOMS = (
    *("txpaxos.protocol", "txpaxos.alarm", "txpaxos.application", "txpaxos.applier", "txpaxos.arguments"),
    *("txpaxos.audits", "txpaxos.confirmation"),
    "txpaxos.acquaintances",
    "txpaxos.log_lines",
    "txpaxos.clock",
    *("txpaxos.cluster", "txpaxos.compaction", "txpaxos.fields", "txpaxos.local_session"),
    *("txpaxos.meeting", "txpaxos.network"),
    "txpaxos.node_status",
    *("txpaxos.application_checks", "txpaxos.names", "txpaxos.places", "txpaxos.refusals"),
    *("txpaxos.outlet", "txpaxos.performer", "txpaxos.questions", "txpaxos.reads", "txpaxos.sessions"),
    *("txpaxos.snapshots", "txpaxos.streams", "txpaxos.submissions", "txpaxos.transfer"),
)
PROTOCOL = LOWER | frozenset(PROTOCOL_ROOMS)

FLOORS = (
    Floor(("txpaxos", "txpaxos.errors"), LOWEST, PURE),
    Floor(("txpaxos.core",), CORE, PURE | {"attrs", "random"}),
    Floor(("txpaxos.packing",), CORE, PURE | {"attrs", "msgspec"}),
    Floor(("txpaxos.wire",), BESIDE_STORAGE, PURE | {"attrs", "msgspec"}),
    Floor(("txpaxos.storage",), BESIDE_STORAGE, ANY),
    Floor(PROTOCOL_ROOMS, LOWER, ANY),
    # Clients are part of a simulated cluster, and so is the counter that runs in it unless another service is given.
    Floor(("txpaxos.testing",), PROTOCOL | {"txpaxos.client", "txpaxos.client_door", "txpaxos.counter"}, ANY),
    # The doors of the workshop.
    Floor(
        ("txpaxos.cli.simulate", "txpaxos.cli.check"),
        PROTOCOL | {"txpaxos.testing", "txpaxos.tap", "txpaxos.cli.running"},
        ANY,
    ),
    Floor(("twisted.plugins.txpaxos_plugin",), frozenset(), frozenset({"twisted"})),
)
DOORS = Floor((), PROTOCOL | {"txpaxos"}, ANY)
"""Every module that stands on no other floor. Doors may import each other, and all but the workshop."""

IMPURE_CALLS = frozenset({"open", "print", "input", "exec", "eval", "compile", "breakpoint", "__import__", "Random"})
"""What the algorithm may not call. (``Random`` because it has to be passed in.)"""


def python_files(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def within(module: str, rooms: frozenset[str] | tuple[str, ...]) -> bool:
    """Whether ``module`` is one of ``rooms`` or in one of them (``txpaxos`` stands for itself alone)."""
    return any(module == room or (room != "txpaxos" and module.startswith(f"{room}.")) for room in rooms)


def floor_of(module: str) -> Floor:
    return next((floor for floor in FLOORS if within(module, floor.rooms)), DOORS)


def imported(tree: ast.AST) -> Iterator[str]:
    """The dotted names that a module imports, wherever in it. ``from a import b`` is ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def complaints(module: str, source: str) -> list[str]:
    """What is wrong with the imports of a module, and with its calls if it is the algorithm's."""
    floor, tree, found = floor_of(module), ast.parse(source), []
    for name in imported(tree):
        top = name.split(".")[0]
        if top == "txpaxos":
            door = floor is DOORS and (floor_of(name) is DOORS or name.startswith("txpaxos.cli."))
            if not (door or name == "txpaxos.__version__" or within(name, floor.inside) or within(name, floor.rooms)):
                found.append(f"{module} imports {name}, which does not stand below it")
        elif floor.outside is not ANY and top not in floor.outside:
            found.append(f"{module} imports {name}")
        elif top == "random" and name != "random.Random" and within(module, ("txpaxos.core",)):
            found.append(f"{module} imports {name}: only the type random.Random")
    if within(module, ("txpaxos.core",)):
        calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
        found += [f"{module} calls {f.id}" for f in calls if isinstance(f, ast.Name) and f.id in IMPURE_CALLS]
    return found


@pytest.mark.parametrize("file", python_files("txpaxos", "twisted"), ids=module_name)
def test_imports_point_down(file: Path) -> None:
    assert complaints(module_name(file), file.read_text()) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("txpaxos.core.log", "import socket"),
        ("txpaxos.core.log", "import os.path"),
        ("txpaxos.core.log", "import random"),
        ("txpaxos.core.log", "from random import randint"),
        ("txpaxos.core.log", "def f():\n    from time import monotonic"),
        ("txpaxos.core.log", "from twisted.internet import defer"),
        ("txpaxos.core.log", "import msgspec"),
        ("txpaxos.core.log", "from txpaxos import packing"),
        ("txpaxos.core.log", "from txpaxos.wire.codec import Codec"),
        ("txpaxos.core.log", "from . import replica"),
        ("txpaxos.core.log", "print(1)"),
        ("txpaxos.core.log", "from random import Random\nRandom(1)"),
        ("txpaxos.packing", "import txpaxos.wire.codec"),
        ("txpaxos.wire.codec", "from txpaxos.storage import disk"),
        ("txpaxos.wire.codec", "from txpaxos import protocol"),
        ("txpaxos.wire.frames", "import twisted"),
        ("txpaxos.storage.disk", "from txpaxos.wire import codec"),
        ("txpaxos.storage.disk", "from txpaxos.testing import store_contract"),
        ("txpaxos.protocol", "from txpaxos.cli import main"),
        ("txpaxos.reads", "from txpaxos.client import Client"),
        ("txpaxos.snapshots", "from txpaxos.testing import cluster"),
        ("txpaxos.testing.simulation", "from txpaxos import cli"),
        ("txpaxos.cli.demo", "from txpaxos.testing import simulation"),
        ("twisted.plugins.txpaxos_plugin", "import txpaxos.tap"),
    ],
)
def test_wrong_import_is_seen(module: str, line: str) -> None:
    assert complaints(module, line) != []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("txpaxos.core.log", "from txpaxos.core.messages import Slot\nfrom random import Random\nimport attrs"),
        ("txpaxos.core.log", "from txpaxos import errors"),
        ("txpaxos.wire.codec", "from txpaxos.packing import Packing\nimport msgspec"),
        ("txpaxos.storage.disk", "import os\nfrom txpaxos.packing import Packing"),
        ("txpaxos.protocol", "from txpaxos.wire import codec\nfrom txpaxos.storage import disk"),
        ("txpaxos.cli", "from txpaxos import __version__, tap\nfrom txpaxos.protocol import PaxosProtocol"),
        ("txpaxos.testing.simulation", "from txpaxos.protocol import PaxosProtocol"),
    ],
)
def test_right_import_is_let_through(module: str, line: str) -> None:
    assert complaints(module, line) == []


@pytest.mark.parametrize("module", ["txpaxos", "txpaxos.core", "txpaxos.core.replica", "txpaxos.wire"])
def test_import_loads_no_twisted(module: str) -> None:
    loaded = f"import sys, {module}; print([m for m in sys.modules if m.split('.')[0] in ('twisted', 'zope')])"
    result = subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def test_nothing_stands_in_twisted_but_the_plugin() -> None:
    assert python_files("twisted") == [ROOT / "twisted/plugins/txpaxos_plugin.py"]


@pytest.mark.parametrize("file", python_files("txpaxos", "twisted", "test", "examples"), ids=module_name)
def test_functions_are_short_enough_to_read(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno + 1 <= 50, node.name
