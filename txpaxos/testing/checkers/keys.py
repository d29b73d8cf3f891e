"""Rules about sealed datagrams: none is like another one, and each is taken once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import attrs

from txpaxos.core.messages import NodeId
from txpaxos.wire.sealed import Cipher


class KeysChecker:
    """Sees every datagram that is sealed or opened.

    :param broken: called with a rule that is broken, and with what has happened.
    :ivar newest: the message that was sealed last.
    """

    def __init__(self, broken: Callable[[str, str], None]) -> None:
        self.newest = b""
        self._broken = broken
        self._nonces_sealed: defaultdict[bytes, set[bytes]] = defaultdict(set)
        self._nonces_opened: defaultdict[bytes, set[bytes]] = defaultdict(set)

    def watch(self, node: NodeId, key: bytes, cipher: Cipher) -> Cipher:
        """A cipher that does what ``cipher`` does, while the checker looks on.

        :param node: the node that uses it."""
        return _WatchedCipher(self, node, key, cipher)

    def sealed(self, node: NodeId, key: bytes, nonce: bytes, message: bytes) -> None:
        """A datagram with ``message`` is sealed. Two with one key and one nonce would tell what both are."""
        if nonce in self._nonces_sealed[key]:
            self._broken("a counter seals one datagram", f"{node} has used {nonce.hex()} before")
        self._nonces_sealed[key].add(nonce)
        self.newest = message

    def took(self, node: NodeId, key: bytes, nonce: bytes) -> None:
        """A datagram is opened."""
        if nonce in self._nonces_opened[key]:
            self._broken("a datagram is taken once", f"{node} took {nonce.hex()} again")
        self._nonces_opened[key].add(nonce)


@attrs.frozen
class _WatchedCipher:
    checker: KeysChecker
    node: NodeId
    key: bytes
    cipher: Cipher

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        """See :class:`~txpaxos.wire.sealed.Cipher`."""
        self.checker.sealed(self.node, self.key, nonce, data)
        return self.cipher.encrypt(nonce, data, associated_data)

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        """See :class:`~txpaxos.wire.sealed.Cipher`."""
        message = self.cipher.decrypt(nonce, data, associated_data)
        self.checker.took(self.node, self.key, nonce)
        return message
