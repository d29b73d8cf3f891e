"""What the clients of a cluster may do, when keys are on. The cluster file says so, and nodes look it up.

.. code-block:: toml

    [rights]
    shop       = ["read", "write"]            # the principal of this name
    operator   = ["status", "members"]
    "*"        = ["status"]                   # each client that has shown who it is
    anonymous  = []                           # each client, also one that has shown nothing
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from txpaxos.errors import ConfigError

READ = "read"
WRITE = "write"
ASK = "ask"
STATUS = "status"
MEMBERS = "members"
ALL_RIGHTS = (READ, WRITE, ASK, STATUS, MEMBERS)

EACH_PRINCIPAL = "*"
"""The entry for all clients that have shown who they are."""
ENTRIES_MAX = 10_000
"""Entries that there may be. All of them are in the answer to a node that joins."""

ANONYMOUS = "anonymous"
"""The entry for all clients, also those that have shown nothing."""


@attrs.frozen
class Rights:
    """What is granted to whom.

    :ivar granted: the rights of each principal by its name, of ``"*"`` and of ``"anonymous"``.
    """

    granted: Mapping[str, frozenset[str]]

    def of(self, principal: str) -> frozenset[str]:
        """The rights of ``principal``, which is the name of a client, or empty for one that has shown nothing."""
        rights = self.granted.get(ANONYMOUS, frozenset())
        if principal:
            rights = rights | self.granted.get(EACH_PRINCIPAL, frozenset()) | self.granted.get(principal, frozenset())
        return rights

    @classmethod
    def parse(cls, table: Any, name: re.Pattern[str]) -> Rights:
        """Read the table ``[rights]`` of a cluster file.

        :param name: what a client can be called.
        :raises ConfigError: one line that says what is wrong.
        """
        if not isinstance(table, dict):
            raise ConfigError('[rights] must be a table with lines like NAME = ["read", "write"]')
        if len(table) > ENTRIES_MAX:
            raise ConfigError(f"[rights] has {len(table)} entries and may have {ENTRIES_MAX}: grant some to '*'")
        granted = {}
        for principal, rights in table.items():
            shown = ascii(principal)[:100]
            if principal != EACH_PRINCIPAL and not name.match(principal):
                raise ConfigError(f"{shown} in [rights] cannot be a client's name, and is not '*'")
            if not isinstance(rights, list) or not all(one in ALL_RIGHTS for one in rights):
                known = ", ".join(f'"{one}"' for one in ALL_RIGHTS)
                raise ConfigError(f"{shown} = {ascii(rights)[:100]} in [rights]: must be a list of {known}")
            granted[principal] = frozenset(rights)
        return cls(granted)

    def as_lists(self) -> dict[str, tuple[str, ...]]:
        """What is granted to each, as other nodes and data folders are told it."""
        return {name: tuple(sorted(rights)) for name, rights in self.granted.items()}

    @classmethod
    def from_lists(cls, granted: Mapping[str, Iterable[str]]) -> Rights:
        """The rights of which that was told."""
        return cls({name: frozenset(rights) for name, rights in granted.items()})

    def dumps(self) -> str:
        """The table as text of a cluster file."""
        lines = (f'"{name}" = [{_listed(rights)}]' for name, rights in self.granted.items())
        return "\n".join(["[rights]", *lines, ""])


NO_RIGHTS = Rights({})
"""No client may do anything."""

DEFAULT_RIGHTS = Rights({EACH_PRINCIPAL: frozenset(ALL_RIGHTS)})
"""The rights where none are granted by name: each client that has shown who it is may do everything."""


def _listed(rights: frozenset[str]) -> str:
    return ", ".join(f'"{one}"' for one in ALL_RIGHTS if one in rights)
