"""What a user gets from ``pip install``: the library, the ``txpaxos`` command, and ``twistd paxos``."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import txpaxos
from test import release

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
    folders = ("bench", "deploy", "docs", "examples", "test", "twisted", "txpaxos")
    files = [file for folder in folders for file in (source / folder).rglob("*") if file.is_file()]
    files += [*source.glob("*.rst"), *(source / name for name in ("LICENSE", "Makefile", "pyproject.toml", "setup.py"))]
    wanted = {str(file.relative_to(source)) for file in files}
    run(sys.executable, "setup.py", "-q", "sdist", cwd=source)
    (archive,) = (source / "dist").iterdir()
    with tarfile.open(archive) as made:
        assert wanted - {name.partition("/")[2] for name in made.getnames()} == set()


def test_there_is_one_version() -> None:
    """It stands in the package, and setup.py reads it from there."""
    assert run(sys.executable, "setup.py", "--version", cwd=ROOT).splitlines()[-1] == txpaxos.__version__
    assert txpaxos.__version__ not in (ROOT / "setup.py").read_text()


# ------------------------------------------------------------------ releases


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, where things may be built and broken."""
    source = tmp_path_factory.mktemp("release") / "source"
    shutil.copytree(ROOT, source, ignore=NOT_SOURCE)
    return source


def test_a_release_is_built_checked_and_tried(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for library in ("build", "twine"):
        pytest.importorskip(library, reason="pip install 'txpaxos[release]'")
    assert release.main(["--offline", "--source", str(source)]) == 0
    version, (said, _, to_do) = txpaxos.__version__, capsys.readouterr().out.partition("\nLeft to do:\n")
    wheel, archive = f"txpaxos-{version}-py3-none-any.whl", f"txpaxos-{version}.tar.gz"
    assert said.splitlines()[0] == f"{wheel}, {archive}: twine finds nothing wrong"
    assert said.splitlines()[2:4] == [f"txpaxos, version {version}", "twistd --help lists paxos"]
    assert said.splitlines()[4].startswith("txpaxos demo: ")
    assert {one.name for one in (source / "dist").iterdir()} == {wheel, archive}
    assert f"twine upload {source}/dist/{wheel} {source}/dist/{archive}" in to_do
    assert ("CHANGELOG.rst: write the date" in to_do) == (release.UNRELEASED in (ROOT / "CHANGELOG.rst").read_text())


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["txpaxos/py.typed"], "lacks txpaxos/__init__.py"),
        (["txpaxos/__init__.py"], "lacks txpaxos/py.typed"),
        (["txpaxos/__init__.py", "txpaxos/py.typed", "twisted/__init__.py"], "would replace Twisted's own"),
    ],
)
def test_what_is_missing_keeps_it_from_being_released(tmp_path: Path, names: list[str], line: str) -> None:
    package = tmp_path / "txpaxos"
    package.mkdir()
    for name in ("__init__.py", "py.typed"):
        (package / name).write_text("")
    wheel, archive = tmp_path / "x.whl", tmp_path / "x.tar.gz"
    with zipfile.ZipFile(wheel, "w") as opened, tarfile.open(archive, "w:gz") as made:
        for name in names:
            opened.writestr(name, "")
        for file in package.iterdir():
            made.add(file, f"txpaxos-1/txpaxos/{file.name}")
    with pytest.raises(release.ReleaseError, match=line):
        release.check_contents(tmp_path, wheel, archive)


def test_a_program_that_fails_is_told_in_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "setup.py").write_text("raise SystemExit('no version')")
    assert release.main(["--source", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("not to be released: ")
