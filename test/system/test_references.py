"""What docstrings and pages refer to is there: every ``:class:``, ``:meth:`` and the like, and what pages document."""

from __future__ import annotations

import builtins
import importlib
import inspect
import pkgutil
import re
from types import ModuleType
from typing import Any

import pytest

import txpaxos
from test.system.test_readme import text_of

ROLE = re.compile(r":(?:mod|class|func|meth|attr|data|exc):`(?:[^`<]*<)?[~!]?([\w.]+)(?:\(\))?>?`")
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(txpaxos.__path__, "txpaxos.") if "__main__" not in module.name
)


def has(owner: Any, name: str) -> bool:
    """Whether ``owner`` has an attribute ``name``: as it stands, by an annotation, or from its ``__init__`` on."""
    if hasattr(owner, name):
        return True
    if not inspect.isclass(owner):
        return False
    return any(
        name in vars(base).get("__annotations__", {}) or f"self.{name}" in inspect.getsource(base)
        for base in owner.__mro__
        if base.__module__.startswith("txpaxos.")
    )


def is_there(owner: Any, path: str) -> bool:
    """Whether the dotted ``path`` leads somewhere from ``owner``."""
    first, _, rest = path.partition(".")
    return has(owner, first) if not rest else hasattr(owner, first) and is_there(getattr(owner, first), rest)


def resolves(target: str, module: ModuleType) -> bool:
    """Whether a docstring of ``module`` may refer to ``target``: something of the module, of one of its classes, any
    other thing by its full name, or one in the module's package with a dot before it."""
    if target.startswith("."):
        package = module.__name__.rpartition(".")[0]
        return resolves(f"{package}{target}", module) or is_module(f"{package}{target}")
    classes = [one for one in vars(module).values() if inspect.isclass(one) and one.__module__ == module.__name__]
    if any(is_there(owner, target) for owner in (module, builtins, *classes)):
        return True
    name = target
    while "." in name:
        name, _, _ = name.rpartition(".")
        try:
            return is_there(importlib.import_module(name), target.removeprefix(f"{name}."))
        except ImportError:
            continue
    return False


def is_module(target: str) -> bool:
    try:
        return bool(importlib.import_module(target))
    except ImportError:
        return False


@pytest.mark.parametrize("name", ["txpaxos", *MODULES])
def test_references_lead_somewhere(name: str) -> None:
    module = importlib.import_module(name)
    targets = set(ROLE.findall(inspect.getsource(module)))
    assert {target for target in targets if not (resolves(target, module) or is_module(target))} == set()


def test_a_dead_reference_is_seen() -> None:
    module = importlib.import_module("txpaxos.storage.store")
    assert ROLE.findall(":meth:`Store.save`, :class:`~txpaxos.storage.disk.Disk`, :meth:`its stop <a.B.stop>`") == [
        "Store.save",
        "txpaxos.storage.disk.Disk",
        "a.B.stop",
    ]
    assert resolves("Store.save", module)
    assert resolves("txpaxos.storage.disk.Disk", module)
    assert resolves(".disk", module)
    assert resolves(".disk.Disk", module)
    assert not resolves(".dusk", module)
    assert not resolves("Store.sav", module)
    assert not resolves("txpaxos.storage.disk.Dusk", module)
    assert not is_module("txpaxos.storage.dusk")


@pytest.mark.parametrize("page", ["api", "parts"])
def test_what_the_pages_document_is_there(page: str) -> None:
    """The targets of ``autoclass`` and its like, each by its full name."""
    targets = re.findall(r"^\.\. auto\w+:: ([\w.]+)", text_of(page), re.MULTILINE)
    assert len(targets) >= 10
    assert {target for target in targets if not (resolves(target, txpaxos) or is_module(target))} == set()
