"""The TLS of a stranger, which believes any node, and shows what it has."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

from txpaxos.keys.folder import Keys


@implementer(IOpenSSLClientConnectionCreator)
class Unchecked:
    """Dials without a look at the other side.

    :param keys: whose certificate it shows; none if ``None``.
    """

    def __init__(self, keys: Keys | None) -> None:
        self._context = SSL.Context(SSL.TLS_METHOD)
        if keys is not None:
            self._context.use_certificate(keys.chain[0])
            self._context.use_privatekey(keys.private_key)

    def clientConnectionForTLS(self, protocol: object) -> Any:
        return SSL.Connection(self._context, None)
