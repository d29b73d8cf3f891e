"""``txpaxos keys``: a small authority for clusters that have none, and what folders of keys hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from txpaxos.cli import keys_reload
from txpaxos.cli.options import CommandWithJson, json_option
from txpaxos.cli.printing import DIGITS, Told, table
from txpaxos.errors import ConfigError
from txpaxos.log_lines import printable

if TYPE_CHECKING:
    from txpaxos.keys.authority_folder import AuthorityFolder, Record
    from txpaxos.keys.trust import Role

HEAD = ("name", "role", "serial", "fingerprint", "expires", "signed by", "state")
EXPIRES_SOON = timedelta(days=30)

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

FOLDER: Any = click.Path(path_type=Path, file_okay=True)
authority_option = click.option(
    "--authority",
    type=FOLDER,
    default="authority",
    show_default=True,
    envvar="TXPAXOS_AUTHORITY",
    help="The folder of the authority, which `txpaxos keys init` makes.",
)
days_option = click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=365,
    show_default=True,
    help="How long the certificate is valid. It never outlives the authority.",
)
told_option = json_option("What was done, as JSON; an error, too.")
role_option = click.option("--role", type=click.Choice(["node", "client"]), help="Nodes or clients only.")


@click.group("keys", short_help="Make, revoke, rotate and show keys.")
def command() -> None:
    """Make, revoke, rotate and show the keys by which nodes and clients know each other.

    An authority is two private keys: one signs nodes, the other one signs clients. Only `reload` talks to a cluster:
    the other commands write folders, which you copy to the machines. Those who have an authority of their own do not
    need these.

    \b
    txpaxos keys init authority
    txpaxos keys node a b c
    txpaxos keys client alice
    txpaxos keys show
    """


command.add_command(keys_reload.command)


@command.command("init", cls=CommandWithJson, short_help="Make an authority.")
@click.argument("folder", type=FOLDER, default="authority")
@told_option
def init(folder: Path, wants_json: bool) -> None:
    """Make an authority in FOLDER, which is `authority` unless given: it must not be there, or be empty."""
    library().AuthorityFolder.create(folder, _now())
    told = Told(wants_json)
    told.tell(
        f"{folder}: an authority for nodes, and another one for clients, valid for 10 years.", {"folder": str(folder)}
    )
    told.end(
        "A person who has this folder can make keys for your cluster: keep it off the nodes, and keep a copy.",
        f"Next, with the names of your nodes: txpaxos keys node a b c{_authority_of(folder)}",
    )


@command.command("node", cls=CommandWithJson, short_help="Make the folder of keys of a node.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--folder", type=FOLDER, help="The folder to write, for one NAME.  [default: NAME.keys]")
@days_option
@authority_option
@told_option
def node(names: Sequence[str], folder: Path | None, days: int, authority: Path, wants_json: bool) -> None:
    """Make a folder of keys for each node NAME: the name that it has in the cluster file.

    The folder must not be there, or be empty. A node may have several certificates: make another one before the first
    one expires, in another folder, or use `txpaxos keys renew`.
    """
    told = Told(wants_json)
    with library().AuthorityFolder.open(authority) as opened:
        for name, target in _targets(names, folder):
            _tell_issued(told, opened.issue(name, "node", target, _now(), timedelta(days=days)), target)
    told.end("Next: copy each folder to its node, readable by the user of the node only, and start the node with it.")


@command.command("client", cls=CommandWithJson, short_help="Make the folder of keys of a client.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--token", "wants_token", is_flag=True, help="A token in place of a certificate.")
@click.option("--folder", type=FOLDER, help="The folder to write, for one NAME.  [default: NAME.keys]")
@days_option
@authority_option
@told_option
def client(
    names: Sequence[str], wants_token: bool, folder: Path | None, days: int, authority: Path, wants_json: bool
) -> None:
    """Make a folder of keys for each client NAME: a person, or a program.

    A client with a certificate is known to every node at once. A token is known to a node when the node has the new
    file `tokens`; it does not expire.
    """
    told = Told(wants_json)
    with library().AuthorityFolder.open(authority) as opened:
        for name, target in _targets(names, folder):
            if wants_token:
                record = opened.issue_token(name, target, _now())
            else:
                record = opened.issue(name, "client", target, _now(), timedelta(days=days))
            _tell_issued(told, record, target)
    tokens = "Next: bring the new file `tokens` to the folders of all nodes: txpaxos keys update FOLDER..."
    told.end(
        *([tokens] if wants_token else []),
        "Next: copy each folder to its client, readable by the user of the client only.",
        f'What a client may do is in the table [rights] of the cluster file, as in: {names[0]} = ["read", "write"]',
    )


@command.command("renew", cls=CommandWithJson, short_help="Replace the certificate and the private key in folders.")
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True, type=FOLDER)
@days_option
@authority_option
@told_option
def renew(folders: Sequence[Path], days: int, authority: Path, wants_json: bool) -> None:
    """Put a new certificate and a new private key into each FOLDER of a node or client, for the same name.

    The earlier folder stays as FOLDER.before. Its certificate stays valid until it expires or is revoked.
    """
    told = Told(wants_json)
    with library().AuthorityFolder.open(authority) as opened:
        for folder in folders:  # All, or none: a second attempt would find the folders before those that were renewed.
            opened.check_renewable(folder)
        for folder in folders:
            record, before = opened.renew(folder, _now(), timedelta(days=days))
            _tell_issued(told, record, folder, before=str(before))
            told.tell(f"{before}: the earlier keys; remove them when the new ones are in use")
    told.end()


@command.command("update", cls=CommandWithJson, short_help="Bring authorities, revocations and tokens to folders.")
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True, type=FOLDER)
@authority_option
@told_option
def update(folders: Sequence[Path], authority: Path, wants_json: bool) -> None:
    """Bring what all have in common to each FOLDER of a node or client.

    These are the files nodes.pem, clients.pem, revoked.pem and tokens, which are also in the folder of the authority:
    you may copy them from there yourself. Certificates and private keys stay what they are.
    """
    told = Told(wants_json)
    with library().AuthorityFolder.open(authority) as opened:
        for folder in folders:
            changed = opened.update(folder)
            line = f"{folder}: {f'new {_listed(changed)}' if changed else 'nothing is new'}"
            told.tell(line, {"folder": str(folder), "new": list(changed)})
    told.end()


@command.command("revoke", cls=CommandWithJson, short_help="Let a certificate or token be believed no more.")
@click.argument("name")
@role_option
@click.option("--older", "keeps_newest", is_flag=True, help="All but the newest certificate of NAME.")
@click.option("--serial", default="", metavar="DIGITS", help="Only the certificate whose serial begins so.")
@authority_option
@told_option
def revoke(name: str, role: Role | None, keeps_newest: bool, serial: str, authority: Path, wants_json: bool) -> None:
    """Revoke the certificates and the tokens of NAME, for example since a private key is lost.

    This changes the authority's folder only. It has an effect where the new files are: see the last line.
    """
    told = Told(wants_json)
    with library().AuthorityFolder.open(authority) as opened:
        for record in opened.revoke(name, role, _now(), keeps_newest, serial.lower()):
            what = f"token {record.fingerprint[:DIGITS]}" if record.is_token else f"certificate {record.serial}"
            told.tell(f"revoked: {what} of {record.role} {record.name}", _known(record))
    told.end(
        "Next: txpaxos keys update FOLDER... for all nodes and clients, copy the folders; then: txpaxos keys reload"
    )


@command.group("rotate", short_help="Replace the authority itself, without a stop.")
def rotate() -> None:
    """Replace the authority itself, without a stop: three steps, each brought to all nodes before the next one.

    \b
    1. txpaxos keys rotate begin     a new authority, believed beside the old one
       txpaxos keys update FOLDER...
    2. txpaxos keys rotate issue     the new one signs from now on
       txpaxos keys renew FOLDER...
    3. txpaxos keys rotate end       the old one is believed no more
       txpaxos keys update FOLDER...

    Each time, copy the folders to all nodes and clients, and reload the nodes (txpaxos keys reload).
    """


@rotate.command("begin", cls=CommandWithJson)
@role_option
@authority_option
@told_option
def begin(role: Role | None, authority: Path, wants_json: bool) -> None:
    """Make a new authority, which is believed beside the old one, and signs nothing yet."""
    keys_library, told = library(), Told(wants_json)
    with keys_library.AuthorityFolder.open(authority) as opened:
        for signer in opened.begin_rotation(keys_library.ROLES if role is None else (role,), _now()):
            line = f"{signer.id}: a new authority for {signer.role}s, beside the old one"
            told.tell(line, {"authority": signer.id, "role": signer.role})
    told.end(
        "Next: txpaxos keys update FOLDER... for all nodes and clients, copy the folders; then: txpaxos keys reload",
        "Then, when all have it: txpaxos keys rotate issue",
    )


@rotate.command("issue", cls=CommandWithJson)
@authority_option
@told_option
def issue(authority: Path, wants_json: bool) -> None:
    """Let the new authority sign from now on. All nodes and clients must know it."""
    told = Told(wants_json)
    with library().AuthorityFolder.open(authority) as opened:
        for signer in opened.sign_with_the_new():
            left = opened.left_behind(signer.role, _now())
            known = {"authority": signer.id, "role": signer.role, "without": list(left)}
            told.tell(f"{signer.id}: signs {signer.role}s from now on", known)
            if left:
                told.tell(f"{signer.role}s without a certificate of it: {', '.join(left)}")
    told.end(
        "Next: txpaxos keys renew FOLDER... for all of them, copy the folders; then: txpaxos keys reload",
        "Then, when all use the new ones: txpaxos keys rotate end",
    )


@rotate.command("end", cls=CommandWithJson)
@click.option("--regardless", is_flag=True, help="Also if some have no certificate of the new authority.")
@authority_option
@told_option
def end(regardless: bool, authority: Path, wants_json: bool) -> None:
    """Believe the old authority no longer. All nodes and clients must use certificates of the new one."""
    told = Told(wants_json)
    with library().AuthorityFolder.open(authority) as opened:
        for signer in opened.end_rotation(_now(), regardless):
            line = f"{signer.id}: believed no more; {authority / signer.id}.key may be deleted"
            told.tell(line, {"authority": signer.id, "role": signer.role})
    told.end(
        "Next: txpaxos keys update FOLDER... for all nodes and clients, copy the folders; then: txpaxos keys reload"
    )


@command.command("show", cls=CommandWithJson, short_help="Show what an authority has issued, or what folders have.")
@click.argument("folders", metavar="[FOLDER]...", nargs=-1, type=FOLDER)
@json_option("All of it, as JSON, with whole serials and fingerprints; an error, too.")
@authority_option
def show(folders: Sequence[Path], wants_json: bool, authority: Path) -> None:
    """Show what each FOLDER of an authority, a node or a client has; the folder of the authority unless given.

    \b
    serial, fingerprint  their first digits; the fingerprint is the SHA-256
    state                signs; believed: an authority that does not sign, beside
                         one that does; retired: believed no more, like
                         all that it has signed; valid; expires soon: within 30
                         days; expired; revoked

    Private keys and tokens are never shown.
    """
    shown = [row for folder in folders or (authority,) for row in _rows(folder, not folders, _now())]
    click.echo(json.dumps(shown, indent=2) if wants_json else as_text(shown))


def as_text(shown: Sequence[dict[str, Any]]) -> str:
    """What was found, as a table."""
    rows = [
        (
            printable(one["name"]),
            one["role"],
            (one["serial"] or "-")[:DIGITS],
            one["fingerprint"][:DIGITS],
            (one["expires"] or "never")[:10],
            printable(one["signed_by"]) or "-",
            one["state"],
        )
        for one in shown
    ]
    return table(HEAD, rows)


def _rows(folder: Path, is_authority: bool, now: datetime) -> list[dict[str, Any]]:
    keys_library = library()
    if not is_authority and not (folder / keys_library.STATE).exists():
        return [_state_added(one, now) for one in _inspection().certificates_in(folder, keys_library.role_of(folder))]
    with keys_library.AuthorityFolder.open(folder) as opened:
        trusted = {signer.id for role in keys_library.ROLES for signer in opened.trusted(role)}
        return [*_authorities(opened, now), *(_issued(one, trusted, now) for one in opened.state.issued)]


def _authorities(opened: AuthorityFolder, now: datetime) -> list[dict[str, Any]]:
    rows = []
    for signer in opened.state.signers:
        row = _inspection().described(opened.certificate(signer), f"{signer.role}s")
        state = "retired" if not signer.is_trusted else "signs" if signer.signs else "believed"
        is_expired = datetime.fromisoformat(row["expires"]) <= now
        rows.append({**row, "name": signer.id, "state": "expired" if is_expired else state})
    return rows


def _issued(record: Record, trusted: set[str], now: datetime) -> dict[str, Any]:
    row = {
        **_known(record),
        "signed_by": record.authority,
        "revoked": None if record.revoked_at is None else record.revoked_at.isoformat(),
    }
    shown = _state_added(row, now)
    is_retired = not record.is_token and record.authority not in trusted and record.revoked_at is None
    return {**shown, "state": "retired"} if is_retired else shown


def _state_added(row: dict[str, Any], now: datetime) -> dict[str, Any]:
    left = timedelta.max if row["expires"] is None else datetime.fromisoformat(row["expires"]) - now
    if row.get("revoked"):
        state = "revoked"
    elif left <= timedelta(0):
        state = "expired"
    else:
        state = "expires soon" if left < EXPIRES_SOON else "valid"
    return {**row, "state": state}


def _targets(names: Sequence[str], folder: Path | None) -> list[tuple[str, Path]]:
    if folder is not None and len(names) > 1:
        raise click.UsageError("--folder is for one NAME: leave it out, or name one node or client at a time.")
    return [(name, Path(f"{name}.keys") if folder is None else folder) for name in names]


def _tell_issued(told: Told, record: Record, target: Path, **known: str) -> None:
    until = "a token" if record.not_after is None else f"valid until {record.not_after:%Y-%m-%d}"
    line = f"{target}: keys of {record.role} {record.name}, {until}"
    told.tell(line, {**_known(record), "folder": str(target), **known})


def _known(record: Record) -> dict[str, Any]:
    """What may be told of a certificate or a token."""
    return {
        "name": record.name,
        "role": record.role,
        "serial": record.serial,
        "fingerprint": record.fingerprint,
        "expires": None if record.not_after is None else record.not_after.isoformat(),
    }


def _authority_of(folder: Path) -> str:
    return "" if folder == Path("authority") else f" --authority {folder}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _now() -> datetime:
    return datetime.now(UTC)


def library() -> ModuleType:
    """The module that makes keys.

    :raises ConfigError: if a package that it needs is not installed.
    """
    try:
        from txpaxos.keys import authority_folder
    except ImportError as error:
        raise ConfigError(f"keys need more packages ({error}): pip install 'txpaxos[keys]'") from None
    return authority_folder


def _inspection() -> ModuleType:
    from txpaxos.keys import inspection

    return inspection
