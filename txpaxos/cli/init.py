"""``txpaxos init``: a folder with what a cluster is run from."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from txpaxos.cli import init_files, keys
from txpaxos.cli.options import CommandWithJson, NamedPath
from txpaxos.cluster import NAME, NAME_RULE, Address, Cluster, Member, check_host
from txpaxos.errors import ConfigError
from txpaxos.rights import ALL_RIGHTS, Rights

DEFAULT_NODES = ("a=127.0.0.1:4001", "b=127.0.0.1:4002", "c=127.0.0.1:4003")
CLIENT_PORT_AHEAD = 1000
"""How far the port for clients is above the port for nodes."""

USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}\Z")


def _check_name(ctx: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    if name is not None and not NAME.match(name):
        raise click.BadParameter(f"{name!r} cannot be a name: {NAME_RULE}.")
    return name


def _check_user(ctx: click.Context, parameter: click.Parameter, user: str) -> str:
    if not USER.match(user):
        raise click.BadParameter(f"{user!r} cannot be a user: small letters, digits, '_' and '-', at most 32.")
    return user


def _check_application(ctx: click.Context, parameter: click.Parameter, name: str) -> str:
    """The value of ``--app``, with the whole path of a file. Nothing is loaded: it may be there on the nodes only."""
    source, colon, attribute = name.rpartition(":")
    if not (colon and source and attribute.isidentifier()) or not name.isprintable():
        raise click.BadParameter(f"{name!r} must be MODULE:CLASS or FILE.py:CLASS.")
    return f"{os.path.abspath(source)}:{attribute}" if source.endswith(".py") else name


def _member(text: str) -> tuple[str, Member]:
    """A node of ``NAME=HOST:PORT``."""
    name, _, place = text.partition("=")
    if not NAME.match(name):
        raise click.BadParameter(f"{name!r} cannot be a node: {NAME_RULE}.")
    try:
        address = Address.parse(place)
        check_host(address.host, listens=False)
        client = Address.parse(str(Address(address.host, address.port + CLIENT_PORT_AHEAD)))
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}; write NAME=HOST:PORT, and clients are at PORT + 1000.") from None
    return name, Member(address, client)


def _members(ctx: click.Context, parameter: click.Parameter, texts: Sequence[str]) -> dict[str, Member]:
    """The nodes of all values of ``--nodes`` together."""
    members: dict[str, Member] = {}
    for text in (one for many in texts or DEFAULT_NODES for one in many.split(",")):
        name, member = _member(text)
        if name in members:
            raise click.BadParameter(f"{name!r} is there twice.")
        members[name] = member
    return members


@click.command("init", cls=CommandWithJson, short_help="Write a folder that a cluster is run from.")
@click.argument("folder", metavar="DIR", type=NamedPath(path_type=Path))
@click.option(
    *("--nodes", "--node", "members"),
    metavar="NAME=HOST:PORT,...",
    multiple=True,
    callback=_members,
    help="The nodes, and where the others reach each one. Clients reach it at a port that is 1000 higher. May be given"
    " more often.  [default: a, b and c on this machine]",
)
@click.option("--name", callback=_check_name, help="The cluster's name.  [default: the name of DIR]")
@click.option(
    "--app",
    "application",
    metavar="MODULE:CLASS",
    default="txpaxos.counter:Counter",
    show_default=True,
    callback=_check_application,
    help="What the nodes run; also FILE.py:CLASS.",
)
@click.option("--user", default="txpaxos", show_default=True, callback=_check_user, help="The user of the unit.")
@click.option("--keys", "wants_keys", is_flag=True, help="Keys, too: an authority, the nodes', and those of a client.")
@click.option("--client", default="admin", show_default=True, callback=_check_name, help="With --keys: the client.")
@click.option("--json", "wants_json", is_flag=True, help="The files, and the next commands, as JSON.")
def command(
    folder: Path,
    members: dict[str, Member],
    name: str | None,
    application: str,
    user: str,
    wants_keys: bool,
    client: str,
    wants_json: bool,
) -> None:
    """Write into DIR what a cluster is run from: a cluster file, a systemd unit with its environment file, a README,
    and keys if you want some. The README says which commands come next.

    DIR may have other files. Nothing is overwritten: if a file is there already, nothing is written at all.

    \b
    txpaxos init counter
    txpaxos init counter --keys --nodes a=10.0.0.1:4001,b=10.0.0.2:4001,c=10.0.0.3:4001
    """
    rights = Rights({client: frozenset(ALL_RIGHTS)}) if wants_keys else None
    name = name or _name_of(folder)
    cluster = Cluster(name, members) if rights is None else Cluster(name, members, rights=rights)
    cluster.check()
    plan = init_files.Plan(cluster, application, user, client if wants_keys else "", *_programs())
    written = _write(folder, plan)
    commands = _next(plan)
    if wants_json:
        shown = {"folder": str(folder), "cluster": name, "files": written, "next": commands}
        click.echo(json.dumps(shown, indent=2))
    else:
        click.echo("\n".join(["Written:", *(f"  {folder / path}" for path in written)]))
        click.echo("\n".join(["Next:", *(f"  {one}" for one in [shlex.join(["cd", str(folder)]), *commands])]))
        click.echo(f"{folder / init_files.README} has the rest.")


def _name_of(folder: Path) -> str:
    """The name of a cluster that is run from ``folder``."""
    name = folder.absolute().resolve().name
    return name if NAME.match(name) else "txpaxos"


def _programs() -> tuple[str, str]:
    """The twistd that belongs to this Python, whether it is there or not, since machines of one kind have it in one
    place; and this Python itself."""
    return str(Path(sys.executable).absolute().parent / "twistd"), os.path.realpath(sys.executable)


def _next(plan: init_files.Plan) -> list[str]:
    """The commands to type next in the folder."""
    if plan.is_local:
        starts = [init_files.start_command(plan, node) for node in plan.nodes]
        return [*starts, init_files.client_command(plan, "status")]
    return [init_files.copy_command(plan, node) for node in plan.nodes]


def _write(folder: Path, plan: init_files.Plan) -> list[str]:
    """Write all files, or none.

    :returns: their paths in ``folder``.
    :raises ConfigError: if something is there already.
    """
    texts = init_files.texts(plan)
    if plan.client:
        keys.library()  # Without it there is no authority, which is said before anything is written.
    for path in [*texts, *([init_files.KEYS] if plan.client else [])]:
        if os.path.lexists(folder / path):
            raise ConfigError(f"{folder / path} is there already, and nothing is overwritten: name another folder")
    made = _missing_above(folder / init_files.UNIT)
    with _removed_on_error(made, folder / init_files.KEYS):
        for above in made:
            above.mkdir()
        for path, text in texts.items():
            with (folder / path).open("x", encoding="utf-8") as file:
                made.append(folder / path)
                file.write(text)
        if plan.client:
            (folder / init_files.KEYS).mkdir(mode=0o700)
            made.append(folder / init_files.KEYS)
            return [*texts, *_write_keys(folder, plan)]
    return [*texts]


def _missing_above(path: Path) -> list[Path]:
    """The folders above ``path`` that are not there, the highest one first."""
    return [above for above in reversed(path.parents) if not above.exists()]


@contextmanager
def _removed_on_error(made: list[Path], keys_made: Path) -> Iterator[None]:
    """Remove what was made if not all can be: folders that are empty then, files, and ``keys_made`` as a whole."""
    try:
        yield
    except BaseException:
        for path in reversed(made):
            with contextlib.suppress(OSError):
                if path == keys_made:
                    shutil.rmtree(path)
                elif path.is_dir():
                    path.rmdir()
                else:
                    path.unlink()
        raise


def _write_keys(folder: Path, plan: init_files.Plan) -> list[str]:
    """Make an authority, and the keys of each node and of the client. Returns the folders."""
    authority_folder: Any = keys.library().AuthorityFolder
    authority, now = f"{init_files.KEYS}/authority", datetime.now(UTC)
    authority_folder.create(folder / authority, now)
    with authority_folder.open(folder / authority) as opened:
        for node in plan.nodes:
            opened.issue(node, "node", folder / plan.keys_of(node), now)
        opened.issue(plan.client, "client", folder / plan.keys_of(plan.client), now)
    return [authority, *(plan.keys_of(name) for name in (*plan.nodes, plan.client))]
