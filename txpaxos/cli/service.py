"""``txpaxos service-schema`` and ``txpaxos check-service``: what of a typed service is on the wire and on disks, and
whether a later release of it reads what an earlier one has written."""

from __future__ import annotations

import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from txpaxos.cli.options import CommandWithJson, json_option
from txpaxos.errors import ConfigError
from txpaxos.service.application import ServiceApplication
from txpaxos.service.compatibility import changes_between
from txpaxos.service.declaration import Service
from txpaxos.service.definition import definition_of
from txpaxos.service.schema import dump_schema, load_schema, schema_of
from txpaxos.tap import load_attribute


@click.command("service-schema")
@click.argument("service")
def schema_command(service: str) -> None:
    """Print the schema of a typed service, for a golden file.

    SERVICE is MODULE:CLASS or FILE.py:CLASS: a Service, or an application of several.
    """
    click.echo(dump_schema(_schema_of(service)), nl=False)


@click.command("check-service", cls=CommandWithJson)
@click.argument("old")
@click.argument("new")
@json_option("The changes as JSON, each with whether it is allowed.")
def check_command(old: str, new: str, wants_json: bool) -> None:
    """Check that a release of a typed service reads what an earlier one has written.

    OLD and NEW are schemas, as service-schema prints them, or MODULE:CLASS or FILE.py:CLASS. Prints each change in one
    line.

    Exits with 1 if one of them breaks something.
    """
    changes = changes_between(_read(old), _read(new))
    if wants_json:
        click.echo(json.dumps([{"allowed": change.allowed, "text": change.text} for change in changes], indent=2))
    else:
        lines = [f"{'allowed' if change.allowed else 'BREAKS '}  {change.text}" for change in changes]
        click.echo("\n".join(lines) or "nothing has changed")
    if not all(change.allowed for change in changes):
        raise SystemExit(1)


def _read(argument: str) -> dict[str, Any]:
    if ":" in argument and not os.path.exists(argument):
        return _schema_of(argument)
    try:
        text = Path(argument).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{argument} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{argument} is no schema of services: it is no text in UTF-8") from None
    return load_schema(text, argument)


def _schema_of(name: str) -> dict[str, Any]:
    with redirect_stdout(sys.stderr):  # What the module prints is no part of the schema.
        found = load_attribute(name, "SERVICE")
    if isinstance(found, type) and issubclass(found, ServiceApplication):
        return schema_of(found.definitions.values())
    if isinstance(found, type) and issubclass(found, Service):
        return schema_of([definition_of(found)])
    raise ConfigError(f"{name} is no subclass of txpaxos.Service, and no application of such")
