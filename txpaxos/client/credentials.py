"""What a client shows nodes when keys are on, and what it makes of a node that does not take it.

A client that has no keys imports nothing of this.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from txpaxos.errors import ConfigError
from txpaxos.keys import load_keys

if TYPE_CHECKING:
    from txpaxos.keys.folder import Keys

ADVICE = (
    (
        "our certificate is of an unknown authority",
        "the nodes' clients.pem needs the authority that signed this client",
    ),
    ("our certificate has expired", "issue a new certificate for this client"),
    ("our certificate was revoked", "issue a new certificate for this client, if it is to get in again"),
    ("our certificate", "look at this client's certificate, and compare the clocks"),
    ("its certificate is of an unknown authority", "this client's nodes.pem needs the authority that signed the node"),
    ("its certificate", "issue a new certificate for the node, or compare the clocks"),
    ("does not speak TLS", "start the node with --keys, or this client without keys"),
)
"""What to do, by a part of the reason."""

CANCELLED = "it refuses the connection: user cancel"
"""How the reason begins if a node has heard nothing for long: the keys are not to blame, and it is tried again."""

WARN_DAYS = 30
"""How long before its certificate expires a client begins to warn, once a day."""

WARN_SECONDS = 86_400.0


def credentials_of(keys: Keys | str | os.PathLike[str]) -> Credentials:
    """What a client shows that has these keys, or the folder with them.

    :raises ConfigError: if the folder cannot be used, or a library that keys need is not installed.
    """
    return Credentials(load_keys(os.fspath(keys), "client") if isinstance(keys, str | os.PathLike) else keys)


class Credentials:
    """The certificate or the token of a client.

    :ivar name: the name in the certificate; empty if the client has a token.
    :ivar token: the token; empty if the client has a certificate.
    """

    log = Logger()

    def __init__(self, keys: Keys) -> None:
        from txpaxos.keys import factories, tls

        self.name = keys.name
        self.token = keys.token.encode()
        self._keys = keys
        self._warn_at = float("-inf")
        self._creator = tls.client_dial(keys)
        self._factory = factories.TlsFactory
        self._tls = tls

    def wrap(self, factory: ClientFactory, reactor: Any) -> ClientFactory:
        """The factory of connections with TLS, on which those of ``factory`` are carried."""
        wrapped: Any = self._factory(self._creator, True, factory, reactor)
        return cast(ClientFactory, wrapped)

    def name_of(self, transport: Any) -> str:
        """The name in the certificate of the node at the other end."""
        return self._tls.name_of(transport)

    def why(self, reason: Failure) -> str:
        """What was the matter with the keys on a connection that has ended, and what to do; empty if nothing was."""
        phrase = self._tls.reason_of(reason)
        if phrase.startswith(CANCELLED):
            return ""
        advice = next((what for part, what in ADVICE if part in phrase), "")
        return f"{phrase}: {advice}" if advice else phrase

    def check_successor(self, other: Credentials, principal: str | None) -> None:
        """See that ``other`` can take the place of these: that the client's session is of use then.

        :param principal: the name under which nodes know the client; ``None`` if no node has said so yet.
        :raises ConfigError: if they are those of another client.
        """
        before = self.name or principal
        if before and other.name and other.name != before:
            raise ConfigError(
                f"these keys are those of {other.name!r}, and this client is {before!r}, to whom its session belongs:"
                f" load keys of {before!r}, or make a new client"
            )

    def warn_of_expiry(self, seconds: float, now: datetime | None = None) -> None:
        """Warn that the certificate expires, or has expired, if the last warning was a day ago.

        :param seconds: the time of a monotonic clock.
        :param now: the time of day; that of the machine if not given.
        """
        if seconds < self._warn_at or not self._keys.chain:
            return
        left = self._keys.expires_in(now or datetime.now(UTC))
        self._warn_at = seconds + WARN_SECONDS
        line = ""
        if left <= timedelta():
            line = "the certificate of client {name} has expired: no node takes a new connection of it"
        else:
            self._warn_at = min(self._warn_at, seconds + left.total_seconds())
            if left < timedelta(days=WARN_DAYS):
                line = "the certificate of client {name} expires in {days} days, at {at}: issue a new one, and use it"
        if line:
            self.log.warn(
                line,
                name=self.name,
                days=left.days,
                at=f"{self._keys.not_after:%Y-%m-%d %H:%M} UTC",
                event="certificate_expiring",
            )
