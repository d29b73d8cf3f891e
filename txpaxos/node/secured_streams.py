"""Streams between nodes with keys: TLS, and a peer's name is the one in its certificate.

Both sides show a certificate. The name in it is the one that its owner gave the node: ``c`` for a node that replaced
another one, and that the others call ``c~2``. A peer need not show where it receives datagrams, so its Hello is
answered at once. From each stream the two sides derive a secret, with which the node that opened it seals its datagrams
to the other one (:mod:`txpaxos.wire.sealed`).

Keys can be replaced while the node runs. Then each node opens its streams anew, one after the other. The stream before
stays in use until the new one is established, and is closed a moment later, so that nothing on its way is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from txpaxos.errors import CodecError
from txpaxos.node.counts import Count
from txpaxos.node.peer_streams import HANDSHAKE_SECONDS, RECONNECT_SECONDS_MAX, PeerStream, PeerStreams
from txpaxos.wire.codec import Received
from txpaxos.wire.members import base_name
from txpaxos.wire.peer_messages import Hello

if TYPE_CHECKING:
    from txpaxos.keys.folder import Keys
    from txpaxos.node.peer_tls import PeerTls

RENEW_SECONDS = 0.1
"""The time between two streams that are opened anew."""

RETIRE_SECONDS = 1.0
"""How long a stream stays open after a newer one is established."""


class SecuredStream(PeerStream):
    """One connection in TLS."""

    _streams: SecuredStreams

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Report it if the connection ended because of keys."""
        self._streams.lost(self, reason)
        super().connectionLost(reason)

    def _take_too_long(self) -> None:
        """Report a stranger, or a peer, that has connected and does not go on."""
        self._streams.stalled(self)
        super()._take_too_long()

    def retire(self) -> None:
        """Close the connection soon: there is a newer one."""
        self._stop_timers()
        self._deadline = self._streams.clock.callLater(RETIRE_SECONDS, self.dismiss)

    def _receive_hello(self, received: Received) -> None:
        self._streams.check_name(self, received.sender)
        super()._receive_hello(received)

    def _answer_hello(self) -> None:
        """Answer at once: TLS has shown who the other side is."""
        self._write(self._streams.codec.encode(Hello()))
        self._establish()


class SecuredStreams(PeerStreams):
    """All streams of one node with keys. Further parameters are those of :class:`~.peer_streams.PeerStreams`.

    :param keys: the keys of this node.
    :param tls: what it does with them.
    :param not_believed: called with the peer to which this node opened a stream (``None`` for an incoming one), the
        address of the other side, and a phrase, when a stream ended because of keys.
    :param secret_for: called with a peer and the secret for datagrams to it.
    :param secret_of: called with a peer and the secret for datagrams from it.
    :param distrusted: called when keys are replaced, for each direction between this node and a peer in which there is
        no stream that is believed: with the peer, and with whether this node is the one that sends.
    """

    def __init__(
        self,
        *arguments: Any,
        keys: Keys,
        tls: PeerTls,
        not_believed: Callable[[str | None, str, str], None],
        secret_for: Callable[[str, bytes], None],
        secret_of: Callable[[str, bytes], None],
        distrusted: Callable[[str, bool], None],
    ) -> None:
        from txpaxos.keys.factories import Newest

        super().__init__(*arguments)
        self.keys = keys
        self._tls = tls
        # A connection that is being made when keys are replaced uses the new ones, too.
        self._newest = Newest
        self._accepting = Newest(tls.accepting(keys))
        self._dialling: dict[str, Any] = {}
        self._not_believed = not_believed
        self._secret_for = secret_for
        self._secret_of = secret_of
        self._distrusted = distrusted
        # Streams that are to replace those in use, and when the next attempts are made.
        self._renewing: dict[str, PeerStream] = {}
        self._renewals: dict[str, IDelayedCall] = {}

    # from the node

    def use_keys(self, keys: Keys) -> None:
        """Use other keys from now on. Streams whose other side is not believed any more are closed at once, the others
        are opened anew."""
        self.keys = keys
        self._accepting.creator = self._tls.accepting(keys)
        for peer, newest in self._dialling.items():
            newest.creator = self._tls.dialling(keys, base_name(peer))
        believed: set[tuple[str | None, bool]] = set()
        for stream in list(self._open):
            phrase = self._tls.refusal_of(stream.transport, keys)
            if phrase:
                self._report(stream, phrase)
            if phrase or not stream.is_established:
                stream.abort()
            else:
                believed.add((stream.peer, stream.dialled))
        for number, peer in enumerate(self._addresses):
            for dialled in (True, False):
                if (peer, dialled) not in believed:
                    self._distrusted(peer, dialled)
            self._renew_later(peer, number * RENEW_SECONDS)

    def renew(self, peer: str) -> None:
        """Open the stream to ``peer`` anew, if there is one, and use it when it is established."""
        self._cancel_renewal(peer)
        own = self._own.get(peer)
        if own is not None and own.is_established and peer not in self._renewing and not self._stopped:
            stream = self._renewing[peer] = self._new_stream(peer)
            self._dial(stream, peer)

    def stop(self) -> None:
        """Close all streams and ports."""
        for peer in list(self._renewals):
            self._cancel_renewal(peer)
        super().stop()

    def remove_peer(self, peer: str) -> None:
        """Close the streams of ``peer``, which has no address any more, and open none again."""
        self._cancel_renewal(peer)
        self._renewing.pop(peer, None)
        self._dialling.pop(peer, None)
        super().remove_peer(peer)

    # from a stream

    def check_name(self, stream: PeerStream, sender: str) -> None:
        """Check that the other side of ``stream`` is the node that it says.

        :raises CodecError: if its certificate has another name."""
        name = self._tls.name_of(stream.transport)
        if name != base_name(sender):
            self._report(stream, f"its certificate has the wrong name: {name}, and it claims to be {sender[:40]!r}")
            raise CodecError(f"the certificate of {name} does not let it speak as {sender}")

    def handshake_done(self, stream: PeerStream, peer: str, incarnation: int) -> None:
        """Use ``stream`` from now on, and its secret."""
        secret = self._tls.secret_of(stream.transport)
        if stream.dialled:
            if self._renewing.get(peer) is stream:
                del self._renewing[peer]
                old, self._own[peer] = self._own.get(peer), stream
                if old is not None:
                    self._replace(old)
            self._secret_for(peer, secret)
        else:
            self._secret_of(peer, secret)
            own = self._own.get(peer)
            if own is not None and own.is_established and not self._tls.show_the_same(stream.transport, own.transport):
                self._renew_later(peer, 0.0)  # It has a new certificate. Soon the one before may count no more.
        super().handshake_done(stream, peer, incarnation)

    def closed(self, stream: PeerStream) -> None:
        """Forget a connection that is closed or could not be opened."""
        peer = stream.peer
        if peer is not None and self._renewing.get(peer) is stream:
            del self._renewing[peer]
            self._renew_later(peer, RECONNECT_SECONDS_MAX)
        super().closed(stream)

    def lost(self, stream: PeerStream, reason: Failure) -> None:
        """Report that ``stream`` ended because of keys, if it did."""
        phrase = self._tls.reason_of(reason)
        if phrase:
            self._report(stream, phrase)

    def stalled(self, stream: PeerStream) -> None:
        """Report that the other side of an incoming ``stream`` has not finished the handshake in time."""
        if not stream.dialled:
            self._report(stream, f"it did not finish the handshake within {HANDSHAKE_SECONDS:.0f} s")

    # inside

    def _report(self, stream: PeerStream, phrase: str) -> None:
        self.counters[Count.PEER_NOT_BELIEVED] += 1
        if not stream.dialled:
            self._not_believed(None, stream.host, phrase)
        elif stream.peer is not None and stream.peer in self._addresses:
            self._not_believed(stream.peer, self._addresses[stream.peer].host, phrase)

    def _renew_later(self, peer: str, seconds: float) -> None:
        if peer in self._addresses and peer not in self._renewals and not self._stopped:
            self._renewals[peer] = self.clock.callLater(seconds, self.renew, peer)

    def _cancel_renewal(self, peer: str) -> None:
        renewal = self._renewals.pop(peer, None)
        if renewal is not None and renewal.active():
            renewal.cancel()

    def _replace(self, old: PeerStream) -> None:
        """Close the stream of a peer that has opened a newer one, which it may have done because of new keys."""
        assert isinstance(old, SecuredStream)
        old.retire()

    def _new_stream(self, peer: str | None, host: str = "", token: int = 0) -> PeerStream:
        return SecuredStream(self, peer, host, token)

    def _listening_factory(self) -> Any:
        return self._tls.factory(self._accepting, False, self, self.clock)

    def _dialling_factory(self, dial: Any, peer: str) -> Any:
        creator = self._dialling.get(peer)
        if creator is None:
            creator = self._dialling[peer] = self._newest(self._tls.dialling(self.keys, base_name(peer)))
        return self._tls.factory(creator, True, dial, self.clock)
