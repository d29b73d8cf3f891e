"""What a user gets from ``pip install``: the library, the ``txpaxos`` command, and ``twistd paxos``."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest

import txpaxos

ROOT = Path(__file__).parents[2]
NOT_SOURCE = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "dropin.cache")

TWISTD = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
PLUGIN_FILE = "from twisted.plugins import txpaxos_plugin; print(txpaxos_plugin.__file__)"


def run(*arguments: str | Path, cwd: Path) -> str:
    """Run a program; its standard output. Fails with all that it printed."""
    done = subprocess.run(arguments, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fresh_environment(folder: Path) -> Path:
    """A virtual environment of its own that borrows what this one has installed, so that no network is needed."""
    venv.create(folder, symlinks=True)
    library = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder), "platbase": str(folder)}))
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (library / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    return folder


@pytest.mark.parametrize("editable", [False, True], ids=["install", "install-editable"])
def test_install_brings_the_plugin(tmp_path: Path, editable: bool) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=NOT_SOURCE)
    environment = fresh_environment(tmp_path / "environment")
    python, elsewhere = environment / "bin" / "python", tmp_path / "elsewhere"
    elsewhere.mkdir()

    pip = (
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    )
    run(*pip, *(["--editable"] if editable else []), source, cwd=elsewhere)

    twistd = (python, "-P", "-c", TWISTD)
    listed = [line.split()[0] for line in run(*twistd, "--help", cwd=elsewhere).splitlines() if line]
    assert "paxos" in listed
    assert "paxos [options]" in run(*twistd, "paxos", "--help", cwd=elsewhere)
    plugin = Path(run(python, "-P", "-c", PLUGIN_FILE, cwd=elsewhere).strip())
    assert plugin.is_relative_to(source if editable else environment)  # this install's, and not a borrowed one
    assert [file.name for file in plugin.parent.parent.rglob("*.py")] == ["txpaxos_plugin.py"]  # no __init__.py
    assert (environment / "bin" / "txpaxos").exists()
    package = plugin.parents[2] / "txpaxos"
    assert (package / "py.typed").exists()
    assert (package / "aio" / "recipe_types.pyi").exists()
    page = {file.name for file in (package / "play" / "page").iterdir()}
    assert page == {"index.html", "play.css", "play.js"}


def test_a_source_distribution_has_all_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=NOT_SOURCE)
    folders = ("bench", "docs", "examples", "test", "twisted", "txpaxos")
    files = [file for folder in folders for file in (source / folder).rglob("*") if file.is_file()]
    files += [*source.glob("*.rst"), *(source / name for name in ("LICENSE", "Makefile", "pyproject.toml", "setup.py"))]
    wanted = {str(file.relative_to(source)) for file in files}
    run(sys.executable, "setup.py", "-q", "sdist", cwd=source)
    (archive,) = (source / "dist").iterdir()
    with tarfile.open(archive) as made:
        assert wanted - {name.partition("/")[2] for name in made.getnames()} == set()


def test_versions_agree() -> None:
    (setup,) = [
        node
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setup"
    ]
    (version,) = [ast.literal_eval(keyword.value) for keyword in setup.keywords if keyword.arg == "version"]
    assert txpaxos.__version__ == version
