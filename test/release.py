"""What ``make release`` does: the wheel and the source distribution are built, and what users will get is tried.

All but the upload: that is the last step, and a person's. What is left to do is printed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
UNRELEASED = "not released yet"


class ReleaseError(Exception):
    """What keeps this from being released, in one line."""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a program. Returns what it prints.

    :raises ReleaseError: with all that it printed, if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise ReleaseError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def version_of(source: Path) -> str:
    """The version, which stands in one place."""
    return run(sys.executable, "setup.py", "--version", cwd=source).splitlines()[-1]


def build(source: Path, target: Path, is_offline: bool) -> tuple[Path, Path]:
    """Build both distributions of the project in ``source``, the wheel from the other one.

    :param is_offline: whether this environment's setuptools builds, since there is no package index.
    :returns: the wheel and the source distribution.
    """
    options = ["--no-isolation"] if is_offline else []
    run(sys.executable, "-m", "build", *options, "--outdir", target, source, cwd=target)
    (wheel,), (archive,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return wheel, archive


def check_contents(source: Path, wheel: Path, archive: Path) -> int:
    """Check that both have each file of the packages. Returns how many.

    :raises ReleaseError: if one is missing, or if the wheel has what would replace Twisted's own."""
    folders = (source / "txpaxos", source / "twisted")
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    skipped = {"__pycache__", "dropin.cache"}
    wanted = {str(file.relative_to(source)) for file in files if not skipped & {*file.parts}}
    with zipfile.ZipFile(wheel) as opened:
        in_wheel = set(opened.namelist())
    with tarfile.open(archive) as made:
        in_archive = {name.partition("/")[2] for name in made.getnames()}
    for what, has in ((wheel, in_wheel), (archive, in_archive)):
        if missing := sorted(wanted - has):
            raise ReleaseError(f"{what.name} lacks {', '.join(missing)}")
    if "txpaxos/py.typed" not in in_wheel:
        raise ReleaseError(f"{wheel.name} has no py.typed, so type checkers leave it out")
    if strange := {name for name in in_wheel if name.startswith("twisted/") and name.endswith("__init__.py")}:
        raise ReleaseError(f"{wheel.name} has {', '.join(strange)}, which would replace Twisted's own")
    return len(wanted)


def new_environment(folder: Path, wheel: Path, is_offline: bool) -> Path:
    """A new virtual environment with the wheel. Returns the folder of its programs.

    :param is_offline: whether what the wheel needs is borrowed from this environment.
    """
    venv.create(folder, with_pip=not is_offline, symlinks=True)
    programs = folder / "bin"
    if is_offline:
        library = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder), "platbase": str(folder)}))
        borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (library / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
        pip = [sys.executable, "-m", "pip", "--python", str(programs / "python")]
        run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
        starter = f"#!{programs / 'python'}\nfrom twisted.scripts.twistd import run\nrun()\n"
        (programs / "twistd").write_text(starter)  # That of Twisted would be in the environment it is borrowed from.
        (programs / "twistd").chmod(0o755)
    else:
        run(programs / "pip", "install", "--quiet", f"{wheel}[keys]", cwd=folder)
    return programs


def try_out(programs: Path, folder: Path, version: str) -> list[str]:
    """Do what a user does first. Returns what was seen, a line each.

    :raises ReleaseError: if something is not there, or fails."""
    place = run(programs / "python", "-P", "-c", "import txpaxos; print(txpaxos.__file__)", cwd=folder).strip()
    if not Path(place).is_relative_to(programs.parent):
        raise ReleaseError(f"{place} was imported, and not what was installed")
    said = run(programs / "txpaxos", "--version", cwd=folder).strip()
    if not said.endswith(f" {version}"):
        raise ReleaseError(f"txpaxos --version says {said!r}, and this is {version}")
    listed = re.findall(r"^    (\w[\w-]*) ", run(programs / "twistd", "--help", cwd=folder), re.MULTILINE)
    if "paxos" not in listed:
        raise ReleaseError(f"twistd --help does not list paxos, but {', '.join(listed)}")
    demo = run(programs / "txpaxos", "demo", cwd=folder).strip().splitlines()
    return [said, "twistd --help lists paxos", f"txpaxos demo: {demo[-1].strip()}"]


def left_to_do(source: Path, wheel: Path, archive: Path, version: str) -> list[str]:
    """What a person does to release this."""
    steps = []
    if UNRELEASED in (source / "CHANGELOG.rst").read_text():
        steps.append(f'CHANGELOG.rst: write the date in place of "{UNRELEASED}", commit, and run this again')
    steps += [
        f"git tag -s v{version} -m 'txpaxos {version}' && git push origin v{version}",
        f"{sys.executable} -m twine upload --repository testpypi {wheel} {archive}",
        f"{sys.executable} -m twine upload {wheel} {archive}",
        "txpaxos/__init__.py: the next version; CHANGELOG.rst: a section for it",
    ]
    return steps


def release(source: Path, target: Path, is_offline: bool) -> None:
    """Build, check and try what is released. The distributions are moved to ``target`` when all is well."""
    version = version_of(source)
    with tempfile.TemporaryDirectory(prefix="txpaxos-release-") as place:
        made, folder = Path(place) / "dist", Path(place) / "elsewhere"
        made.mkdir()
        folder.mkdir()
        wheel, archive = build(source, made, is_offline)
        run(sys.executable, "-m", "twine", "check", "--strict", wheel, archive)
        print(f"{wheel.name}, {archive.name}: twine finds nothing wrong")
        print(f"both have all {check_contents(source, wheel, archive)} files of the packages")
        for line in try_out(new_environment(Path(place) / "environment", wheel, is_offline), folder, version):
            print(line)
        target.mkdir(exist_ok=True)
        wheel, archive = (Path(shutil.copy2(one, target / one.name)) for one in (wheel, archive))
    print("\nLeft to do:")
    for number, step in enumerate(left_to_do(source, wheel, archive, version), start=1):
        print(f"{number}. {step}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("--offline", action="store_true", help="Use what is installed here; ask no package index.")
    parser.add_argument("--source", type=Path, default=ROOT, help="The project.")
    parser.add_argument("--target", type=Path, default=None, help="Where the files go. [default: dist in the project]")
    options = parser.parse_args(arguments)
    try:
        release(options.source.resolve(), (options.target or options.source / "dist").resolve(), options.offline)
    except ReleaseError as error:
        print(f"not to be released: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
