"""What a node does with its keys when it talks to other nodes: TLS for streams, a cipher for datagrams, and the time.

All of it is in one object, so that a simulated cluster can put another in its place, whose runs can be repeated:
OpenSSL draws random numbers that no seed decides.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from twisted.python.failure import Failure

from txpaxos.keys import tls
from txpaxos.keys.ciphers import WRONG_TAG, new_cipher
from txpaxos.keys.factories import TlsFactory
from txpaxos.keys.folder import Keys
from txpaxos.wire.sealed import SECRET_BYTES, Cipher

LABEL = b"EXPORTER-txpaxos-datagrams"
"""What the secret is for that is derived from a stream."""


class PeerTls:
    """TLS between nodes, by OpenSSL, and AES-GCM.

    :cvar wrong_tag: what a cipher raises if a tag is not right.
    """

    wrong_tag: type[Exception] = WRONG_TAG

    def new_cipher(self, key: bytes) -> Cipher:
        """A cipher with ``key`` for the datagrams of one direction."""
        return new_cipher(key)

    def utc_now(self) -> datetime:
        """When certificates have to be valid."""
        return datetime.now(UTC)

    def accepting(self, keys: Keys) -> Any:
        """What makes connections that other nodes have dialled."""
        return tls.peer_accept(keys)

    def dialling(self, keys: Keys, expected_name: str) -> Any:
        """What makes connections that this node dials, where the node ``expected_name`` has to be."""
        return tls.peer_dial(keys, expected_name)

    def factory(self, creator: Any, is_client: bool, wrapped: Any, clock: Any) -> Any:
        """What makes protocols that speak TLS, and hand on what is in it to the protocols that ``wrapped`` makes.

        :param creator: what makes the connections (:class:`~txpaxos.keys.factories.Newest`).
        :param is_client: whether this side dials.
        """
        return TlsFactory(creator, is_client, wrapped, clock)

    def refusal_of(self, transport: Any, keys: Keys) -> str:
        """Why the node on the other side would not be believed any more with new keys; empty if it would be, or showed
        nothing."""
        return tls.refusal_of(transport, keys.nodes, keys, self.utc_now())

    def name_of(self, transport: Any) -> str:
        """The name in the certificate of the other side, which was verified; empty if there is none yet."""
        return tls.name_of(transport)

    def show_the_same(self, transport: Any, other: Any) -> bool:
        """Whether the other sides of two connections have shown the same certificate."""
        return tls.show_the_same(transport, other)

    def secret_of(self, transport: Any) -> bytes:
        """The secret for the datagrams of the node that dialled, which only the two sides of a connection know."""
        return tls.export_key(transport, LABEL, SECRET_BYTES)

    def reason_of(self, failure: Failure) -> str:
        """Why a connection came to nothing, in one phrase; empty if that has nothing to do with keys."""
        return tls.reason_of(failure)
