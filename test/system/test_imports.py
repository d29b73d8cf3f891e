"""The layers hold: imports point down, there are no cycles, the algorithm only decides, and no function is too long."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).parents[2]

ANY = frozenset({"*"})
PURE = frozenset(
    {"__future__", "bisect", "collections", "contextlib", "dataclasses", "enum", "functools", "hashlib", "heapq"}
    | {"itertools", "math", "operator", "struct", "types", "typing", "zlib"}
)


@attrs.frozen
class Layer:
    """Some modules, what they may import of txpaxos (besides themselves), and what from elsewhere (top-level names)."""

    modules: tuple[str, ...]
    inside: frozenset[str]
    outside: frozenset[str] = ANY


ERRORS = frozenset({"txpaxos.errors"})
CORE = ERRORS | {"txpaxos.core"}
PACKING = CORE | {"txpaxos.packing"}
BASIC_MODULES = (
    *(
        "txpaxos.arguments",
        "txpaxos.asyncio_reactor",
        "txpaxos.clock",
        "txpaxos.cluster",
        "txpaxos.eager_writer",
        "txpaxos.fields",
    ),
    *("txpaxos.host_names", "txpaxos.log_lines", "txpaxos.reading", "txpaxos.rights"),
    "txpaxos.replicated_time",
)
WIRE = PACKING | {"txpaxos.wire"} | {*BASIC_MODULES}
APPLICATION_MODULES = ("txpaxos.application", "txpaxos.application_checks")
NODE = WIRE | {"txpaxos.storage", *APPLICATION_MODULES, "txpaxos.keys", "txpaxos.node"}
PROTOCOL = NODE | {"txpaxos.protocol", "txpaxos.counter"}
# What a caller of a typed service needs of it, which is no node.
SERVICE = ERRORS | {*(f"txpaxos.{name}" for name in ("arguments", "fields", "reading", "replicated_time", "service"))}
RECORDING = NODE | {"txpaxos.recording"}
ENTRY_POINTS = PROTOCOL | {f"txpaxos.{name}" for name in ("recording", "explaining", "server", "client", "service")}
STATUS_PORT = NODE | {"txpaxos.metrics", "txpaxos.server", "txpaxos.status_port"}

LAYERS = (
    Layer(("txpaxos.errors",), frozenset(), PURE),
    Layer(("txpaxos.core",), CORE, PURE | {"attrs", "random"}),
    Layer(("txpaxos.packing",), CORE, PURE | {"attrs", "msgspec"}),
    # What the log says about members has their names and addresses, as a cluster file has them.
    Layer(("txpaxos.wire.members",), PACKING | {"txpaxos.cluster"}, PURE | {"attrs", "msgspec"}),
    # A value of the log has a time.
    Layer(("txpaxos.wire.stamps",), PACKING | {"txpaxos.replicated_time"}, PURE | {"msgspec"}),
    Layer(("txpaxos.wire.commands",), PACKING | {"txpaxos.wire.stamps"}, PURE | {"msgspec"}),
    Layer(("txpaxos.wire",), PACKING | {"txpaxos.replicated_time"}, PURE | {"attrs", "msgspec"}),
    Layer(("txpaxos.storage",), PACKING),
    Layer(BASIC_MODULES, ERRORS),
    Layer(APPLICATION_MODULES, CORE | {"txpaxos.fields", "txpaxos.log_lines"}),
    # Names of nodes are as in a cluster file, and what is encrypted goes to the kernel as all else does.
    Layer(("txpaxos.keys",), ERRORS | {"txpaxos.cluster", "txpaxos.eager_writer", "txpaxos.log_lines"}),
    Layer(("txpaxos.node",), NODE),
    Layer(("txpaxos.protocol", "txpaxos.counter"), NODE),
    Layer(("txpaxos.recording",), RECORDING),
    Layer(("txpaxos.recovery",), NODE | {"txpaxos.recovery"}),
    Layer(("txpaxos.service.application", "txpaxos.service.context"), PROTOCOL | SERVICE),
    Layer(("txpaxos.service",), SERVICE),
    # What makes spans for clients knows no node.
    Layer(("txpaxos.tracing.contexts", "txpaxos.tracing.client_spans"), frozenset({"txpaxos.tracing.contexts"})),
    Layer(("txpaxos.tracing",), NODE | {"txpaxos.tracing"}),
    Layer(("txpaxos.client",), WIRE | {"txpaxos.keys", "txpaxos.tracing.client_spans"} | SERVICE),
    # What a node remembers of its steps, and what story that tells.
    Layer(("txpaxos.explaining",), RECORDING | {"txpaxos.drawing", "txpaxos.explaining"}),
    Layer(
        ("txpaxos.server",),
        PROTOCOL
        | SERVICE
        | {f"txpaxos.{name}" for name in ("drawing", "explaining", "metrics", "recording", "tracing")},
    ),
    Layer(("txpaxos.metrics",), NODE),
    # What a node says of itself by HTTP.
    Layer(("txpaxos.status_port",), STATUS_PORT),
    # What a node runs of the recipes, and what a program has of them, which is no node.
    Layer(("txpaxos.recipes.coordinator",), PROTOCOL | SERVICE | {"txpaxos.recipes.replicated"}),
    Layer(("txpaxos.recipes.replicated",), SERVICE),
    Layer(("txpaxos.recipes",), SERVICE | {"txpaxos.client", "txpaxos.clock", "txpaxos.lazy_names"}),
    Layer(("txpaxos.aio",), ENTRY_POINTS | {"txpaxos.recipes", "txpaxos.lazy_names"}),
    Layer(("txpaxos.drawing",), frozenset(), PURE | {"attrs", "json", "html"}),
    Layer(("txpaxos.testing",), ENTRY_POINTS | {"txpaxos.drawing", "txpaxos.lazy_names"}),
    Layer(("txpaxos.play.runs", "txpaxos.play.site"), CORE | {"txpaxos.play"}),
    # What the page shows depends on the core alone.
    Layer(("txpaxos.play",), CORE, PURE | {"ast", "attrs", "inspect", "msgspec", "pathlib", "random", "textwrap"}),
    Layer(("txpaxos.tap",), ENTRY_POINTS | {"txpaxos.__version__", "txpaxos.status_port", "txpaxos.tracing"}),
    Layer(
        ("txpaxos.cli", "txpaxos.__main__"),
        ENTRY_POINTS
        | {f"txpaxos.{name}" for name in ("__version__", "drawing", "play", "recipes", "recovery", "tap", "testing")},
    ),
    Layer(("twisted.plugins.txpaxos_plugin",), frozenset(), frozenset({"twisted"})),
    # The public face: it loads what it names when that is first used.
    Layer(("txpaxos",), ENTRY_POINTS, PURE | {"importlib"}),
)

IMPURE_CALLS = frozenset({"open", "print", "input", "exec", "eval", "compile", "breakpoint", "__import__", "Random"})
"""What the algorithm may not call. (``Random`` because it has to be passed in.)"""


def python_files(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


LIBRARIES_OF_KEYS = ("OpenSSL", "cryptography", "service_identity")
"""What is loaded when keys are on. (Twisted loads some of it when it is there, but needs none.)"""

NEEDS_KEYS = (
    *(f"txpaxos.keys.{file.stem}" for file in python_files("txpaxos/keys") if file.stem != "__init__"),
    "txpaxos.node.peer_tls",
    "txpaxos.server.client_tls",
    "txpaxos.server.joining_tls",
    "txpaxos.testing.simulator.keys",
    "txpaxos.testing.simulator.keys_operator",
    "txpaxos.testing.simulator.tls",
)
"""The modules that need those libraries. They are loaded when keys are on."""

NEEDS_TRACING = tuple(f"txpaxos.tracing.{name}" for name in ("contexts", "client_spans", "node_spans"))
"""The modules that need the library of OpenTelemetry. They are loaded when there is a tracer."""


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def within(module: str, modules: frozenset[str] | tuple[str, ...]) -> bool:
    """Whether ``module`` is one of ``modules`` or in one of them (``txpaxos`` stands for itself alone)."""
    return any(module == one or (one != "txpaxos" and module.startswith(f"{one}.")) for one in modules)


def layer_of(module: str) -> Layer:
    return next(layer for layer in LAYERS if within(module, layer.modules))


def imported(tree: ast.AST) -> Iterator[str]:
    """The dotted names that a module imports, wherever in it. ``from a import b`` is ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def complaints(module: str, source: str) -> list[str]:
    """What is wrong with the imports of a module, and with its calls if it is the algorithm's."""
    layer, tree, found = layer_of(module), ast.parse(source), []
    for name in imported(tree):
        top = name.split(".")[0]
        if top == "txpaxos":
            if not within(name, layer.inside) and not within(name, layer.modules):
                found.append(f"{module} imports {name}, which is not in a lower layer")
        elif layer.outside is not ANY and top not in layer.outside:
            found.append(f"{module} imports {name}")
        elif top == "random" and name != "random.Random" and within(module, ("txpaxos.core",)):
            found.append(f"{module} imports {name}: only the type random.Random")
    if within(module, ("txpaxos.core",)):
        calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
        found += [f"{module} calls {f.id}" for f in calls if isinstance(f, ast.Name) and f.id in IMPURE_CALLS]
    return found


def import_graph() -> dict[str, set[str]]:
    """What each module of the package imports of it, under TYPE_CHECKING and in functions, too."""
    files = {module_name(file): file for file in python_files("txpaxos")}
    graph: dict[str, set[str]] = {}
    for module, file in files.items():
        names = imported(ast.parse(file.read_text()))
        found = {name if name in files else name.rpartition(".")[0] for name in names}
        graph[module] = {name for name in found if name in files and name != module}
    return graph


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """Some modules that import each other in a circle; none if there is no circle."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        for other in sorted(graph[module]):
            if found := visit(other, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := visit(module, []))), [])


@pytest.mark.parametrize("file", python_files("txpaxos", "twisted"), ids=module_name)
def test_imports_point_down(file: Path) -> None:
    assert complaints(module_name(file), file.read_text()) == []


def test_no_modules_import_each_other() -> None:
    assert cycle_in(import_graph()) == []


def test_a_cycle_is_seen() -> None:
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


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
        ("txpaxos.storage.disk", "from txpaxos.testing.store import contract"),
        ("txpaxos.arguments", "from txpaxos.node import reads"),
        ("txpaxos.protocol", "from txpaxos.cli import main"),
        ("txpaxos.keys.tls", "from txpaxos.node import peer_streams"),
        ("txpaxos.keys.folder", "from txpaxos.wire import codec"),
        ("txpaxos.wire.codec", "from txpaxos.keys import folder"),
        ("txpaxos.node.reads", "from txpaxos.client import Client"),
        ("txpaxos.node.reads", "from txpaxos.protocol import PaxosProtocol"),
        ("txpaxos.node.snapshots.taking", "from txpaxos.testing.simulator import cluster"),
        ("txpaxos.client.client", "from txpaxos.node import reads"),
        ("txpaxos.client.client", "from txpaxos.server import client_port"),
        ("txpaxos.server.service", "from txpaxos.client import Client"),
        ("txpaxos.testing.simulator.simulation", "from txpaxos import cli"),
        ("txpaxos.server.service", "from txpaxos import PaxosProtocol"),
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
        ("txpaxos.testing.simulator.simulation", "from txpaxos.protocol import PaxosProtocol"),
    ],
)
def test_right_import_is_let_through(module: str, line: str) -> None:
    assert complaints(module, line) == []


def loaded_by(statement: str) -> list[str]:
    """The modules that ``statement`` loads in a Python of its own."""
    program = f"import sys; {statement}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stderr == ""
    return result.stdout.split()


@pytest.mark.parametrize("module", ["txpaxos", "txpaxos.core", "txpaxos.core.replica", "txpaxos.wire"])
def test_import_loads_no_twisted(module: str) -> None:
    assert [name for name in loaded_by(f"import {module}") if name.split(".")[0] in ("twisted", "zope")] == []


@pytest.mark.parametrize(
    "statement",
    [
        *("import txpaxos.client", "from txpaxos import Client, Cluster, Reading", "import txpaxos.aio"),
        "from txpaxos.recipes import Recipes",
    ],
)
def test_a_client_loads_no_node(statement: str) -> None:
    above = ("txpaxos.node", "txpaxos.server", "txpaxos.storage", "txpaxos.protocol", "txpaxos.core.replica")
    assert [name for name in loaded_by(statement) if within(name, above)] == []


@pytest.mark.parametrize("command", ["submit", "read", "ask", "lead"])
def test_a_command_that_only_talks_to_nodes_loads_no_other_command(command: str) -> None:
    """Nor what others need, such as the simulator: it would take longer to load than the command takes."""
    loaded = loaded_by(f"from txpaxos.cli import main; main(['{command}', '--help'], standalone_mode=False)")
    modules = {f"txpaxos.cli.{name}" for name in (command, "options", "printing", "running")}
    assert {name for name in loaded if name.startswith("txpaxos.cli.")} <= modules
    above = ("txpaxos.node", "txpaxos.server", "txpaxos.storage", "txpaxos.testing", "txpaxos.core.replica")
    assert [name for name in loaded if within(name, above)] == []


def test_keys_cost_nothing_when_they_are_off() -> None:
    """All modules but those of the keys load without the libraries that keys need, and load none of the keys'."""
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in (*LIBRARIES_OF_KEYS, "opentelemetry"))
    modules = [module_name(file) for file in python_files("txpaxos")]
    others = [name for name in modules if name not in {*NEEDS_KEYS, *NEEDS_TRACING, "txpaxos.__main__"}]
    loaded = loaded_by(f"{blocked}; import {', '.join(others)}")
    assert [name for name in (*NEEDS_KEYS, *NEEDS_TRACING) if name in loaded] == []
    assert {"txpaxos.keys", "txpaxos.cli", "txpaxos.server.service"} <= set(loaded)


@pytest.mark.parametrize("file", python_files("txpaxos", "twisted"), ids=module_name)
def test_only_the_modules_of_keys_import_the_libraries_of_keys(file: Path) -> None:
    libraries = {name.split(".")[0] for name in imported(ast.parse(file.read_text()))} & {*LIBRARIES_OF_KEYS}
    assert not libraries or module_name(file) in NEEDS_KEYS


def test_nothing_stands_in_twisted_but_the_plugin() -> None:
    assert python_files("twisted") == [ROOT / "twisted/plugins/txpaxos_plugin.py"]


@pytest.mark.parametrize("file", python_files("txpaxos", "twisted", "test", "examples"), ids=module_name)
def test_functions_are_short_enough_to_read(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno + 1 <= 50, node.name
