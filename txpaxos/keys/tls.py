"""TLS with keys: who dials and who accepts, whose certificate is believed, and what went wrong in one phrase.

OpenSSL does all of it, with TLS 1.3 only. Sessions are not resumed, so each connection has keys of its own, and each
certificate is verified anew. No name is sent in the clear: certificates are encrypted, and the dialling side does not
say by which name it knows the other.

Three things are to be known about TLS 1.3. The side that dials has finished its handshake before the other side has
looked at its certificate, so a refusal reaches it later, as the reason for which the connection is lost: it is accepted
when the other side has answered. The name of a peer is known when the handshake is finished, and not before. And an
authority that is removed, or a certificate that is revoked, ends no connection that is there: see :func:`refusal_of`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import attrs
from cryptography.x509 import Certificate
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.python.failure import Failure
from zope.interface import implementer

from txpaxos.errors import ConfigError
from txpaxos.keys import trust
from txpaxos.keys.folder import Keys
from txpaxos.log_lines import printable

NO_CERTIFICATE = "it showed no certificate"
FORGED = "what it sent is damaged, forged, or recorded on another connection"
HANDSHAKE_ROUNDS_MAX = 8
"""How often each side has something to say in a handshake, at most."""

NOT_TLS = "it does not speak TLS 1.3: keys are on here, and probably off there"
CLOSED_EARLY = "it closed the connection within the handshake: are keys off there?"

_ALERTS = {
    "certificate expired": f"our certificate {trust.EXPIRED}",
    "bad certificate": f"our certificate {trust.NOT_YET_VALID}",  # What OpenSSL says then, and for little else.
    "unknown ca": f"our certificate {trust.UNKNOWN_AUTHORITY}",
    "certificate unknown": f"our certificate {trust.WRONG_NAME}",
    "internal error": f"our certificate {trust.WRONG_NAME}",  # What OpenSSL 4 says when a callback refuses.
    "certificate revoked": f"our certificate {trust.REVOKED}",
    "unsupported certificate": f"our certificate {trust.WRONG_PURPOSE}",
    "certificate required": "we showed no certificate",
    "protocol version": "we do not speak its version of TLS",
}
"""What the other side says when it refuses us."""

_NOT_TLS = (
    *("wrong version number", "http request", "https proxy request", "unsupported protocol", "packet length too long"),
    *("unexpected message", "bad record type", "record layer failure", "unknown protocol", "no protocols available"),
    *("version too low", "invalid alert", "record too small"),
)
"""What OpenSSL says about bytes that are not TLS 1.3."""


class NotBelieved(SSL.Error):
    """The certificate of the other side is not believed. It is an error of OpenSSL's kind, so Twisted hands it on.

    :ivar phrase: why, as :func:`reason_of` tells it.
    """

    def __init__(self, phrase: str) -> None:
        super().__init__([("txpaxos", "", phrase)])
        self.phrase = phrase


class _Connection(SSL.Connection):
    """A connection whose peer is verified here. A name is taken from no other connection.

    :ivar is_finished: whether the handshake is finished. OpenSSL calls a connection that was finished unfinished again
        while a message of TLS has come in part, for as long as the other side likes.
    """

    is_finished = False

    def do_handshake(self) -> None:
        """Go on with the handshake. Raises if it is not finished yet, and if the peer is not believed."""
        super().do_handshake()
        self.is_finished = True


@attrs.frozen(eq=False)
class _Believed:
    """Decides whether a peer is believed.

    :ivar names: the names of which the peer must have one; any if ``None``.
    """

    names: Collection[str] | None

    def verify(self, connection: Any, shown: X509, error: int, depth: int, is_fine: int) -> bool:
        """Look at one certificate of the chain. OpenSSL calls this, from the authority down.

        :raises NotBelieved: if this certificate is a reason not to believe the peer.
        """
        if not is_fine and error not in trust.LIST_ERRORS:
            raise NotBelieved(f"its certificate {trust.PHRASES.get(error, f'{trust.NOT_VALID} (error {error})')}")
        if depth == 0:
            certificate = _read(shown)  # Two libraries read it, and one of them may not be able to.
            if certificate is None:
                raise NotBelieved(f"its certificate {trust.NOT_VALID}")
            self._check_name(trust.common_name(certificate))
        return True

    def _check_name(self, name: str) -> None:
        if not name:
            raise NotBelieved(f"its certificate {trust.WRONG_NAME}: none that a node or a client can have")
        if self.names is not None and name not in self.names:
            raise NotBelieved(f"its certificate {trust.WRONG_NAME}: {name}, and not {' or '.join(sorted(self.names))}")


@implementer(IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator)
class ConnectionCreator:
    """Makes the TLS connections of one purpose. For ``TLSMemoryBIOFactory``, ``listenSSL`` and ``wrapClientTLS``."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """A connection that dials."""
        return _Connection(self._context, None)

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """A connection that accepts."""
        return _Connection(self._context, None)


def peer_dial(keys: Keys, expected_name: str, *, at: datetime | None = None) -> ConnectionCreator:
    """For a node that dials another node, and shows its own certificate.

    :param expected_name: the node that must be there.
    :param at: when certificates have to be valid; at the time of each handshake if not given.
    """
    return _creator(keys, keys.nodes, at, names=frozenset({expected_name}))


def peer_accept(keys: Keys, *, at: datetime | None = None) -> ConnectionCreator:
    """For a node that other nodes dial. They have to show the certificate of a node."""
    return _creator(keys, keys.nodes, at)


def client_accept(keys: Keys, *, at: datetime | None = None) -> ConnectionCreator:
    """For a node that clients dial. They may show the certificate of a client, and need not."""
    return _creator(keys, keys.clients, at, is_required=False)


def client_dial(keys: Keys, names: Iterable[str] | None = None, *, at: datetime | None = None) -> ConnectionCreator:
    """For a client that dials a node. It shows its certificate, if it has one.

    :param names: the nodes of which one must be there; any node if not given."""
    return _creator(keys, keys.nodes, at, names=None if names is None else frozenset(names))


def _creator(
    keys: Keys,
    authorities: Iterable[Certificate],
    at: datetime | None,
    names: Collection[str] | None = None,
    is_required: bool = True,
) -> ConnectionCreator:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    if keys.chain:
        context.use_certificate(keys.chain[0])
        for other in keys.chain[1:]:
            context.add_extra_chain_cert(other)
        context.use_privatekey(keys.private_key)
    store = context.get_cert_store()
    assert store is not None
    trust.fill_store(store, authorities, keys.revoked, at)
    mode = SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if is_required else 0)
    context.set_verify(mode, _Believed(names).verify)
    return ConnectionCreator(context)


def refuse_unusable(keys: Keys, at: datetime | None = None) -> None:
    """See that OpenSSL can use ``keys``, by a handshake in memory: a node is both sides of it. So each thing is refused
    that TLS 1.3 refuses, as a private key that is too short, or of a kind that it does not know.

    :param at: when certificates have to be valid; now if not given.
    :raises ConfigError: if it cannot."""
    if not keys.chain:
        return
    try:
        if keys.role == "node":
            accept, dial = peer_accept(keys, at=at), peer_dial(keys, keys.name, at=at)
        else:  # Only nodes know who signs clients.
            accept, dial = _creator(keys, (), at, is_required=False), ConnectionCreator(SSL.Context(SSL.TLS_METHOD))
        _shake_hands(accept.serverConnectionForTLS(None), dial.clientConnectionForTLS(None))
    except (SSL.Error, TypeError, ValueError) as error:
        why = reason_of(Failure(error)) if isinstance(error, SSL.Error) else str(error)
        raise ConfigError(
            f"{keys.folder} cannot be used for TLS 1.3 ({printable(why)}): take keys of another kind, or longer ones"
        ) from None


def _shake_hands(accepting: SSL.Connection, dialling: SSL.Connection) -> None:
    """Carry a handshake through in memory.

    :raises SSL.Error: if a side refuses the other one."""
    accepting.set_accept_state()
    dialling.set_connect_state()
    left = [dialling, accepting]
    for _ in range(HANDSHAKE_ROUNDS_MAX):
        for one, other in ((dialling, accepting), (accepting, dialling)):
            with suppress(SSL.WantReadError):
                one.do_handshake()
                left = [side for side in left if side is not one]
            with suppress(SSL.WantReadError):
                while True:
                    other.bio_write(one.bio_read(2**14))
        if not left:
            return
    raise SSL.Error([("txpaxos", "", "the handshake does not end")])


def name_of(transport: Any) -> str:
    """The name in the certificate of the other side, which was verified. Empty if it showed none, if the handshake is
    not finished, or if ``transport`` was not made with a creator of this module."""
    certificate = _certificate_of(transport)
    return "" if certificate is None else trust.common_name(certificate)


def refusal_of(transport: Any, authorities: Iterable[Certificate], keys: Keys, at: datetime | None = None) -> str:
    """Why the other side would not be believed any more with new keys; empty if it would be, or showed nothing.

    For connections that are there when keys are loaded anew.

    :param authorities: ``keys.nodes`` for a node on the other side, ``keys.clients`` for a client.
    """
    certificate = _certificate_of(transport)
    if certificate is None:
        return ""
    # What it has sent along and OpenSSL had no use for may be anything.
    others = [one for one in map(_read, transport.getHandle().get_peer_cert_chain() or ()) if one is not None]
    return trust.refusal(certificate, others, authorities, keys.revoked, at or datetime.now(UTC))


def show_the_same(transport: Any, other: Any) -> bool:
    """Whether the other sides of two connections have shown the same certificate."""
    return _certificate_of(transport) == _certificate_of(other)


def export_key(transport: Any, label: bytes, length: int) -> bytes:
    """Bytes that only the two sides of this connection know, equal on both (RFC 5705, RFC 8446 section 7.5).

    :param label: what they are for; other labels give other bytes.
    :param length: how many.
    """
    connection = _connection_of(transport)
    assert connection is not None, "no connection with keys whose handshake is finished"
    return connection.export_keying_material(label, length)


def reason_of(failure: Failure, transport: Any = None) -> str:
    """Why a connection with keys came to nothing, in one short phrase; empty if that has nothing to do with keys.

    The side that refuses learns more than the other one, which is told a class of reasons only.

    :param failure: what ``connectionLost`` was given.
    :param transport: the transport that was lost. With it, an end before the handshake was finished is a reason, too:
        a side without keys ends a connection so, when it is dialled by a side with keys.
    """
    error = failure.value
    if isinstance(error, NotBelieved):
        return error.phrase
    if not isinstance(error, SSL.Error):
        is_unfinished = isinstance(_handle_of(transport), _Connection) and _connection_of(transport) is None
        return CLOSED_EARLY if is_unfinished else ""
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    said = [str(one[-1]) for one in queue] or ["no reason is known"]
    return next((phrase for one in said if (phrase := _phrase(one))), f"TLS failed: {said[-1]}")


def _phrase(said: str) -> str:
    """What one error of OpenSSL's means; empty if it is not a known one."""
    _, is_alert, alert = said.partition("alert ")
    if is_alert:
        return f"it says that {_ALERTS[alert]}" if alert in _ALERTS else f"it refuses the connection: {alert}"
    if "did not return a certificate" in said:
        return NO_CERTIFICATE
    if "bad record mac" in said:
        return FORGED
    return NOT_TLS if any(one in said for one in _NOT_TLS) else ""


def _read(certificate: X509) -> Certificate | None:
    """``certificate`` as the other library has it; ``None`` if that one cannot read it. Its errors for that are of no
    common class."""
    try:
        return certificate.to_cryptography()
    except Exception:
        return None


def _handle_of(transport: Any) -> Any:
    return transport.getHandle() if hasattr(transport, "getHandle") else None


def _connection_of(transport: Any) -> SSL.Connection | None:
    """The connection of ``transport``, if it was made here and its handshake is finished."""
    handle = _handle_of(transport)
    return handle if isinstance(handle, _Connection) and handle.is_finished else None


def _certificate_of(transport: Any) -> Certificate | None:
    connection = _connection_of(transport)
    return None if connection is None else connection.get_peer_certificate(as_cryptography=True)
