"""What ``txpaxos`` itself offers: each name is there, is loaded when it is used, and has its documentation."""

from __future__ import annotations

import subprocess
import sys

import pytest

import txpaxos


@pytest.mark.parametrize("name", txpaxos.__all__)
def test_each_public_name_is_there(name: str) -> None:
    assert getattr(txpaxos, name) is not None
    assert name in dir(txpaxos)


def test_what_type_checkers_see_is_what_is_there() -> None:
    """The names are written twice: for type checkers, and for loading."""
    names = [name for names in txpaxos._MODULES.values() for name in names]
    assert sorted(names) == sorted(txpaxos.__all__) == sorted(set(names))


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'txpaxos' has no attribute 'Clients'"):
        _ = txpaxos.Clients


def test_nothing_is_loaded_before_it_is_used() -> None:
    program = "import sys, txpaxos; print([name for name in sys.modules if name.startswith('txpaxos.')])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")
