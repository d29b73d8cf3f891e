"""What a client shows nodes when keys are on, and what it makes of a node that does not take it.

A client that has no keys imports nothing of this.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

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


def credentials_of(keys: Keys | str | os.PathLike[str]) -> Credentials:
    """What a client shows that has these keys, or the folder with them.

    :raises ConfigError: if the folder cannot be used, or a library that keys need is not installed.
    """
    return Credentials(load_keys(os.fspath(keys), "client") if isinstance(keys, str | os.PathLike) else keys)


class Credentials:
    """The certificate or the token of a client.

    :ivar token: the token; empty if the client has a certificate.
    """

    def __init__(self, keys: Keys) -> None:
        from txpaxos.keys import factories, tls

        self.token = keys.token.encode()
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
        """What was the matter with TLS on a connection that has ended, and what to do; empty if nothing was."""
        phrase = self._tls.reason_of(reason)
        advice = next((what for part, what in ADVICE if part in phrase), "")
        return f"{phrase}: {advice}" if advice else phrase
