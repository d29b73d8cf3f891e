"""The public names of ``txpaxos``, its recipes and its test kit: each exists, and is imported when it is first used."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

import txpaxos
import txpaxos.recipes
import txpaxos.testing

FACES = [txpaxos, txpaxos.recipes, txpaxos.testing]


@pytest.mark.parametrize(("face", "name"), [(face, name) for face in FACES for name in face.__all__])
def test_each_public_name_exists(face: ModuleType, name: str) -> None:
    assert getattr(face, name) is not None
    assert name in dir(face)


@pytest.mark.parametrize("face", FACES)
def test_type_checkers_see_the_names_that_exist(face: ModuleType) -> None:
    """The names are written twice: for type checkers, and for the import on first use."""
    names = [name for names in face._MODULES.values() for name in names]
    assert sorted(names) == sorted(face.__all__) == sorted(set(names))


@pytest.mark.parametrize("face", FACES)
def test_a_name_that_does_not_exist(face: ModuleType) -> None:
    with pytest.raises(AttributeError, match=f"module '{face.__name__}' has no attribute 'Clients'"):
        _ = face.Clients


@pytest.mark.parametrize("face", FACES)
def test_nothing_is_imported_before_its_first_use(face: ModuleType) -> None:
    name = face.__name__
    program = f"import sys, {name}; print([one for one in sys.modules if one.startswith('{name}.')])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")
