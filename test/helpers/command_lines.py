"""Whether a command line is one: the program is there and takes what it is given. Nothing is run but the reading."""

from __future__ import annotations

import copy
import importlib
import itertools
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import click
from twisted.scripts.twistd import ServerOptions  # type: ignore[attr-defined]

from test.mutants.patches import load
from test.mutants.run import make_parser
from txpaxos import cli
from txpaxos.tap import Options

ROOT = Path(__file__).parents[2]

SETTING = re.compile(r"\w+=")
"""How a variable begins that a command is given, of the environment or of make."""

ON_A_SERVER = ("/opt/txpaxos/bin/pip", "apt-get", "install", "python3", "systemctl", "useradd")
"""What is run on a machine that is set up, with sudo."""


def check_command(command: str) -> None:
    """The command line is one of those that pages may show."""
    program, *arguments = itertools.dropwhile(SETTING.match, shlex.split(command.removeprefix("sudo ")))
    match program.removeprefix(".venv/bin/"):
        case "make":
            check_make(*arguments)
        case "txpaxos":
            check_txpaxos(*arguments)
        case "twistd":
            at = arguments.index("paxos")
            ServerOptions().parseOptions(arguments[: at + 1])
            check_options_of_paxos(arguments[at + 1 :])
        case "python" if arguments[:2] == ["-m", "pytest"]:
            assert (ROOT / arguments[2]).exists()
        case "python" if arguments[0] == "-m":
            check_module(*arguments[1:])
        case "python" if arguments[0] in ("stock.py", "test_stock.py", "shop.py"):
            first_hour = (ROOT / "docs" / "first-hour.rst").read_text()
            assert f"``{arguments[0]}``" in first_hour  # Whose test runs it.
        case "python":
            assert (ROOT / arguments[0]).is_file()
        case one if one in ON_A_SERVER:
            assert command.startswith("sudo "), command
        case "curl":
            assert arguments[-1].startswith("https://"), arguments
        case "cd" | "export" | "rsync":
            assert len(arguments) > (program == "rsync")
        case "docker":
            assert arguments[:3] == ["compose", "-f", "deploy/compose.yaml"]
            if arguments[3] == "exec":
                assert arguments[5] == "txpaxos"
                check_txpaxos(*arguments[6:])
        case "echo":
            assert arguments[-2:] == [">>", "cluster.toml"]
        case "eval":
            assert arguments == ["$(_TXPAXOS_COMPLETE=bash_source txpaxos)"]  # test/cli/test_json.py does it.
        case _:
            raise AssertionError(f"{program}: what is that?")


def check_make(*arguments: str) -> None:
    """The Makefile has such targets and variables, and what a target runs takes the ``ARGS``."""
    makefile = (ROOT / "Makefile").read_text()
    for argument in arguments:
        known = rf"^{argument.split('=')[0]} \?=" if SETTING.match(argument) else rf"^{argument}:"
        assert re.search(known, makefile, re.MULTILINE), argument
        if argument.startswith("ARGS="):
            recipes = re.findall(rf"^{arguments[0]}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
            (module,) = re.findall(r"\$\(RUN\) -m (\S+) .*ARGS", "".join(recipes))
            check_module(module, *shlex.split(argument.removeprefix("ARGS=")))


def check_module(module: str, *arguments: str) -> None:
    """There is such a module to run, and it takes these arguments."""
    if module == "pip":
        extras = [f"txpaxos[{extra}]" for extra in ("keys", "tracing")]
        assert arguments in [("install", "--editable", ".[test]"), *(("install", extra) for extra in extras)]
    elif module == "test.system.screenshots":
        (folder,) = arguments
        assert (ROOT / folder).is_dir()
    elif module == "test.mutants.run":
        names = make_parser().parse_args(arguments).names
        assert {*names} <= {mutant.name for mutant in load()}
    else:
        found = find_spec(module)
        assert found, module
        is_package = found.submodule_search_locations is not None
        main = importlib.import_module(f"{module}.__main__" if is_package else module).main
        check_click(main, module, *arguments)


def check_txpaxos(name: str, *arguments: str) -> None:
    """There is such a command, and it takes these arguments."""
    assert name in cli.main.commands, name
    check_click(cli.main.commands[name], name, *arguments)


def check_click(command: click.Command, name: str, *arguments: str) -> None:
    """The command takes these arguments. Nothing is read, looked up or run for them."""
    while isinstance(command, click.Group) and arguments and arguments[0] in command.commands:
        command, arguments = command.commands[arguments[0]], arguments[1:]
    if isinstance(command, click.Group):
        assert command.invoke_without_command, f"{name}: no such subcommand"
        command = click.Command(name, params=command.params)  # Else the name of any subcommand would do.
    command = copy.copy(command)
    command.params = [copy.copy(parameter) for parameter in command.params]
    for parameter in command.params:
        parameter.callback = None
        if isinstance(parameter.type, click.Path):
            parameter.type = click.Path()  # It need not be there.
    command.make_context(name, list(arguments))


def check_options_of_paxos(arguments: list[str]) -> None:
    """``twistd paxos`` has the options given, and takes nothing else."""
    options = Options()
    options.postOptions = lambda: None  # type: ignore[method-assign]  # which opens files
    options.parseOptions(arguments)


def unknown_in(literal: str) -> list[str]:
    """What a command that is named in a text has and does not exist: its name, or options. The rest may be left out,
    or be a word in capitals."""
    program, *words = literal.split()
    options = re.findall(r"(?<![\w-])--[a-z][\w-]*", literal.partition(" -- ")[0])
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        return [one for one in words[:1] if not re.search(rf"^{one}:", makefile, re.MULTILINE)]
    if program == "twistd":
        known = {f"--{one.rstrip('=')}" for one in (*Options().longOpt, *ServerOptions().longOpt)}
        return [one for one in options if one not in known]
    command: click.Command = cli.main
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    known = {"--help", *(name for one in command.params for name in (*one.opts, *one.secondary_opts))}
    named = words[:1] if isinstance(command, click.Group) and not command.invoke_without_command else []
    return [] if named == ["..."] else [one for one in (*named, *options) if one not in known and one.islower()]
