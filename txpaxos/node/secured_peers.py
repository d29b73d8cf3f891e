"""Messages to peers and from peers while keys are on: streams in TLS, and sealed datagrams.

A node seals its datagrams to a peer with the secret of the stream that it has opened to that peer. While there is none,
a datagram is dropped, and the algorithm sends it again. When the stream breaks, its secret is used on until there is a
newer stream, so a pair of nodes can talk as long as datagrams pass.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from txpaxos.core.messages import NodeId
from txpaxos.errors import CodecError
from txpaxos.node.counts import Count
from txpaxos.node.peer_addresses import Endpoint
from txpaxos.node.peers import Peers
from txpaxos.node.secured_streams import SecuredStreams
from txpaxos.wire.codec import Received
from txpaxos.wire.sealed import DatagramOpener, DatagramSealer, NotSealed, Replayed, UnknownSession, WrongTag

if TYPE_CHECKING:
    from txpaxos.keys.folder import Keys
    from txpaxos.node.peer_tls import PeerTls

WARN_DAYS = 30
"""How long before its certificate expires a node begins to warn, once a day."""

WARN_SECONDS = 86_400.0


class OtherSender(CodecError):
    """A peer has sealed a datagram that names another sender."""


COUNTED = (
    (Count.DATAGRAM_NOT_SEALED, NotSealed),
    (Count.DATAGRAM_OF_AN_UNKNOWN_SESSION, UnknownSession),
    (Count.DATAGRAM_REPLAYED, Replayed),
    (Count.DATAGRAM_FORGED, WrongTag),
    (Count.DATAGRAM_OF_ANOTHER_NODE, OtherSender),
)
"""How datagrams are counted that are dropped, by what is the matter with them."""


class SecuredPeers(Peers):
    """The peers of one node with keys. Further parameters are those of :class:`~.peers.Peers`.

    :param keys: the keys of this node.
    :param tls: what it does with them; TLS by OpenSSL, and AES-GCM, if not given.
    """

    log = Logger()

    def __init__(self, *arguments: Any, keys: Keys, tls: PeerTls | None = None) -> None:
        from txpaxos.node.peer_tls import PeerTls

        self.keys = keys
        self._tls = tls or PeerTls()
        self._opener = DatagramOpener(self._tls.new_cipher, self._tls.wrong_tag)
        self._sealers: dict[NodeId, DatagramSealer] = {}
        self._expiry_at = float("-inf")
        self._streams: SecuredStreams
        super().__init__(*arguments)
        self._decode = self._open

    def _make_streams(self, *arguments: Any) -> SecuredStreams:
        return SecuredStreams(
            *arguments,
            keys=self.keys,
            tls=self._tls,
            not_believed=self._reports.log_not_believed,
            secret_for=self._seal_with,
            secret_of=self._opener.add,
            distrusted=self._distrust,
        )

    # keys

    def use_keys(self, keys: Keys) -> None:
        """Use other keys from now on. No message is lost by that."""
        self.keys = keys
        self._expiry_at = float("-inf")
        self._streams.use_keys(keys)

    def tick(self, now: float) -> None:
        """Check for silent and refused peers, and whether the certificate expires."""
        super().tick(now)
        if now >= self._expiry_at:
            self._expiry_at = now + WARN_SECONDS
            self._warn_of_expiry(self.keys.expires_in(self._tls.utc_now()))

    def keys_expire_in_seconds(self) -> float | None:
        """How long this node's certificate is still valid; negative if it is not any more."""
        return self.keys.expires_in(self._tls.utc_now()).total_seconds()

    def _warn_of_expiry(self, left: timedelta) -> None:
        line = ""
        if left <= timedelta():
            line = "the certificate of node {node} has expired: no peer takes a new stream of it"
        elif left < timedelta(days=WARN_DAYS):
            line = "the certificate of node {node} expires in {days} days, at {at}: issue a new one, and load it"
        if line:
            self.log.warn(
                line,
                node=self._node,
                days=left.days,
                at=f"{self.keys.not_after:%Y-%m-%d %H:%M} UTC",
                event="certificate_expiring",
            )

    def _seal_with(self, peer: NodeId, secret: bytes) -> None:
        self._sealers[peer] = DatagramSealer(secret, self._tls.new_cipher, partial(self._streams.renew, peer))

    def _distrust(self, peer: NodeId, sends: bool) -> None:
        """Send ``peer`` no datagrams, or take none of it, until there is a new stream in that direction. Each direction
        has a secret of its own: a peer whose own stream stays does not open it anew, and seals with its secret on."""
        if sends:
            self._sealers.pop(peer, None)
        else:
            self._opener.forget(peer)

    def remove_peer(self, peer: NodeId) -> None:
        """Send nothing to ``peer`` from now on, but that it is out."""
        super().remove_peer(peer)
        for known in {*self._sealers, *self._opener.peers} - {*self._routes, *self._former}:
            self._distrust(known, sends=True)
            self._distrust(known, sends=False)

    # datagrams

    def _send_datagram(self, peer: NodeId, data: bytes) -> None:
        sealer = self._sealers.get(peer)
        sealed = b"" if sealer is None else sealer.seal(data)
        if sealed:
            super()._send_datagram(peer, sealed)
        else:
            self._counters[Count.DATAGRAM_WITHOUT_SECRET] += 1

    def _open(self, data: bytes) -> Received:
        """Open and decode a datagram.

        :raises CodecError: if it is to be dropped."""
        peer, message = self._opener.open(data)
        received = self._codec.decode(message)
        if received.sender != peer:
            raise OtherSender(f"it is sealed by {peer}, and names {received.sender[:40]!r} as its sender")
        return received

    def _refuse_datagram(self, error: CodecError, data: bytes, endpoint: Endpoint) -> None:
        """Drop a datagram. It is not answered."""
        counts = (count for count, kind in COUNTED if isinstance(error, kind))
        self._counters[next(counts, Count.BAD_DATAGRAM)] += 1
        if not isinstance(error, UnknownSession | Replayed):  # Both happen when nothing is wrong.
            self._report_datagram(error, endpoint)

    def _try_endpoint(self, sender: NodeId, endpoint: Endpoint) -> None:
        """Reach ``sender`` at ``endpoint``: it has sent a datagram from there, as the seal shows."""
        super()._try_endpoint(sender, endpoint)
        self._peer_confirmed(sender)
