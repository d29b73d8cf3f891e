"""The ``txpaxos`` command. Each subcommand has a module; they share ``options``, ``running`` and ``printing``."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections import UserDict
from importlib import import_module
from typing import Any

import click

from txpaxos import __version__
from txpaxos.cli.running import INTERRUPTED, CommandError
from txpaxos.errors import PaxosError

_MODULES = {
    name: (name, "command")
    for name in (
        *(
            "submit",
            "read",
            "ask",
            "queue",
            "map",
            "status",
            "top",
            "members",
            "lead",
            "clock",
            "doctor",
            "keys",
            "backup",
        ),
        *("restore", "recover", "replay", "explain", "demo", "simulate", "check", "init", "play"),
    )
} | {
    "lock": ("lock", "lock_command"),
    "elect": ("lock", "elect_command"),
    "service-schema": ("service", "schema_command"),
    "check-service": ("service", "check_command"),
}
"""The module of each subcommand, and the subcommand's name in there."""


class _Loaded(UserDict[str, Any]):
    """Subcommands that are loaded when they are called for: most need little of what all of them need together."""

    def __getitem__(self, name: str) -> click.Command:
        module, attribute = self.data[name]
        command: click.Command = getattr(import_module(f"{__name__}.{module}"), attribute)
        return command


class _Commands(click.Group):
    """Subcommands whose errors become one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # It came before the reactor ran, or the subcommand needs none.
            click.echo("txpaxos: interrupted", err=True)
            raise SystemExit(INTERRUPTED) from None
        except PaxosError as error:
            raise CommandError(str(error)) from None
        except OSError as error:
            raise _command_error(error) from None

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line. An error of standard output becomes one line, also while ``--help`` is printed."""
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            _command_error(error).show()
            _discard_output()
            raise SystemExit(1) from None
        finally:
            leaving = sys.exc_info()[1]
            _flush_output(has_failed=isinstance(leaving, SystemExit) and bool(leaving.code))


def _flush_output(has_failed: bool) -> None:
    """Write what waits for standard output, so that its error becomes one line, too, unless another was printed."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except ValueError:
        pass  # It is closed.
    except OSError as error:
        if error.errno != errno.EPIPE and not has_failed:
            CommandError(f"standard output cannot be written: {error.strerror}").show()
        _discard_output()
        raise SystemExit(1) from None


def _discard_output() -> None:
    """Drop what waits for standard output, which cannot be written: Python would try again, and end with 120."""
    with contextlib.suppress(OSError, ValueError):
        output, nothing = sys.stdout.fileno(), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, output)
        os.close(nothing)


def _command_error(error: OSError) -> CommandError:
    """The one line for ``error``. The error of a file names the file; that of standard output names none.

    :raises OSError: if the reader of standard output is gone. click ends quietly then.
    """
    if error.errno == errno.EPIPE:
        raise error
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    if error.filename is None and frame.f_globals["__name__"].startswith("click."):  # click writes to nothing else.
        return CommandError(f"standard output cannot be written: {error.strerror}")
    return CommandError(str(error))


@click.group(cls=_Commands, commands=_Loaded(_MODULES), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Talk to the nodes of a replicated service, which `twistd paxos` runs.

    Exit status: 0 if all is well, 1 after an error (one line says which), 2 if the command line is wrong, 130 after
    Ctrl-C, 143 after SIGTERM.
    """
