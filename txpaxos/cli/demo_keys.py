"""The keys of ``txpaxos demo --secure``: an authority of its own, for this one run, and what it keeps out."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import click

from txpaxos.cli.demo_scene import STEP_SECONDS_MAX, Scene
from txpaxos.cli.keys import library
from txpaxos.cli.running import CommandError
from txpaxos.client import Client
from txpaxos.errors import NotAllowed, PaxosError
from txpaxos.keys import load_keys
from txpaxos.rights import ALL_RIGHTS, READ, Rights

OWNER, READER = "owner", "reader"
"""The clients: one that may do everything, and one that may only read."""

RIGHTS = Rights({OWNER: frozenset(ALL_RIGHTS), READER: frozenset({READ})})
DAYS = 1


@attrs.frozen
class DemoKeys:
    """The folders of keys of the nodes and the clients.

    :ivar folder: where they are, beside the authority.
    """

    folder: Path

    @classmethod
    def make(cls, folder: Path, nodes: Iterable[str]) -> DemoKeys:
        """Make an authority in ``folder``, and keys for ``nodes`` and both clients.

        :raises PaxosError: if a package that this needs is not installed, or a file cannot be written.
        """
        AuthorityFolder = library().AuthorityFolder
        now, valid = datetime.now(UTC), timedelta(days=DAYS)
        keys = cls(folder)
        AuthorityFolder.create(folder / "authority", now)
        with AuthorityFolder.open(folder / "authority") as authority:
            for node in nodes:
                authority.issue(node, "node", keys.of(node), now, valid)
            for client in (OWNER, READER):
                authority.issue(client, "client", keys.of(client), now, valid)
        return keys

    def of(self, name: str) -> Path:
        """The folder of keys of a node or a client."""
        return self.folder / f"{name}.keys"

    async def show_refusals(self, scene: Scene) -> None:
        """Have clients try what they may not do.

        :raises CommandError: if one of them may.
        """
        await self._refused(scene, "A client without keys writes", None, "each node wants to see a certificate")
        attempt = f"The client {READER} has keys, and writes"
        await self._refused(scene, attempt, self.of(READER), "it only has the right to read")

    async def _refused(self, scene: Scene, attempt: str, keys: Path | None, why: str) -> None:
        loaded: Any = None if keys is None else load_keys(str(keys), "client")
        client = Client(scene.reactor, scene.nodes.cluster, keys=loaded)
        try:
            await client.submit(b"+1", STEP_SECONDS_MAX)
        except NotAllowed:
            refused = click.style("is refused", fg="red", bold=True)
            scene.say(f"{attempt}, and {refused}: {why}.")
        except PaxosError as error:
            raise CommandError(f"{attempt}, and is not refused but waits: {error}") from None
        else:
            raise CommandError(f"{attempt}, and that was counted")
        finally:
            client.close()
