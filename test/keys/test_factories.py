"""TLS on real connections: what is written is sent at once, encrypted, and in order however much there is."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

pytest.importorskip("OpenSSL", reason="pip install 'txpaxos[test]'")

from test.helpers.key_folders import keys_for
from test.helpers.tls_pair import End, Pair
from test.helpers.tls_records import DATA, HANDSHAKE, KEY_UPDATE, RecordMaker
from txpaxos.keys.factories import SILENT_RECORDS_MAX, Records, TlsFactory
from txpaxos.keys.tls import FORGED, peer_accept, peer_dial

reactor: Any = installed_reactor
PIECE_BYTES = 100_000
PIECES = 80


class Writer(Protocol):
    """Writes piece after piece until it is told to pause.

    :ivar pauses: how often it was told so.
    :ivar written: all that it has written.
    """

    transport: Any

    def __init__(self) -> None:
        self.pauses = 0
        self.written = b""
        self._is_paused = False
        self._rng = Random(1)

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        self.pauses += 1
        self._is_paused = True

    def resumeProducing(self) -> None:
        self._is_paused = False
        while not self._is_paused and len(self.written) < PIECES * PIECE_BYTES:
            piece = self._rng.randbytes(PIECE_BYTES)
            self.written += piece
            self.transport.write(piece)

    def stopProducing(self) -> None:
        pass


class Reader(Protocol):
    """Reads slowly: it stops after each piece, for one turn of the reactor."""

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.done: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.transport.pauseProducing()
        reactor.callLater(0, self.transport.resumeProducing)
        if len(self.data) == PIECES * PIECE_BYTES:
            self.done.callback(None)


class Waiting(Protocol):
    """Fires when the connection is lost."""

    transport: Any

    def __init__(self) -> None:
        self.lost: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


@pytest.mark.parametrize("is_early", [True, False], ids=["within the handshake", "after it"])
async def test_a_connection_that_is_cut_leaves_no_error(tmp_path: Path, is_early: bool) -> None:
    """TLS wants to say something yet when its connection is gone."""
    folders = keys_for(tmp_path)
    ends = [Waiting(), Waiting()]
    accepting = TlsFactory(peer_accept(folders.node("a")), False, Factory.forProtocol(lambda: ends[0]), reactor)
    dialling = TlsFactory(peer_dial(folders.node("b"), "a"), True, Factory.forProtocol(lambda: ends[1]), reactor)
    port = reactor.listenTCP(0, accepting, interface="127.0.0.1")
    try:
        await TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port).connect(dialling)
        tls = ends[1].transport
        while not is_early and tls.getHandle().get_state_string() != b"SSL negotiation finished successfully":
            await deferLater(reactor, 0)
        tls.transport.abortConnection()  # Of TCP: TLS says nothing.
        for end in ends:
            await end.lost
    finally:
        await maybeDeferred(port.stopListening)


async def test_all_arrives_in_order_though_the_reader_is_slow(tmp_path: Path) -> None:
    folders = keys_for(tmp_path)
    writer, reader = Writer(), Reader()
    accepting = TlsFactory(peer_accept(folders.node("a")), False, Factory.forProtocol(lambda: writer), reactor)
    dialling = TlsFactory(peer_dial(folders.node("b"), "a"), True, Factory.forProtocol(lambda: reader), reactor)
    port = reactor.listenTCP(0, accepting, interface="127.0.0.1")
    try:
        await TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port).connect(dialling)
        await reader.done
        assert reader.data == writer.written
        assert writer.pauses > 1, "it was told to go on, too"
        reader.transport.abortConnection()
    finally:
        await maybeDeferred(port.stopListening)


def record(body_bytes: int) -> bytes:
    return b"\x17\x03\x03" + body_bytes.to_bytes(2, "big") + bytes(body_bytes)


@given(st.lists(st.integers(1, 40), max_size=12), st.lists(st.integers(1, 60), max_size=12))
def test_records_are_counted_however_they_arrive(sizes: list[int], pieces: list[int]) -> None:
    """Only bytes that are whole records are counted as such."""
    data, ends = b"".join(map(record, sizes)), [0]
    for size in sizes:
        ends.append(ends[-1] + 5 + size)
    records, at = Records(), 0
    for piece in [*pieces, len(data)]:
        end = min(at + piece, len(data))
        whole = ends.index(end) - ends.index(at) if at in ends and end in ends else 0
        assert records.whole(data[at:end]) == whole
        at = end


class OwnPair(Pair):
    """Two ends that speak TLS as nodes and clients do."""

    def _wrapped(self, creator: Any, is_client: bool, end: End) -> Any:
        return TlsFactory(creator, is_client, Factory.forProtocol(lambda: end), self._clock).buildProtocol(None)

    @property
    def dialling(self) -> Any:
        """The transport of the side that dials."""
        return self.dialled.transport

    def send(self, *pieces: bytes) -> bytes:
        """What the dialling side sends when it writes ``pieces``. It is taken from the wire."""
        for piece in pieces:
            self.dialling.write(piece)
        sent = b"".join(self._client.stream)
        self._client.stream.clear()
        return sent

    def arrive(self, data: bytes) -> None:
        """These bytes arrive at the other side."""
        self._server.bufferReceived(data)


@pytest.mark.parametrize("cut", [0, 1, 4, 5, 6, 100, 522, 523, 527, 528])
def test_data_arrives_whole_however_it_is_cut(tmp_path: Path, cut: int) -> None:
    """Several records at once, and parts of one, among them its head. The first record has 522 bytes."""
    folders = keys_for(tmp_path)
    pair = OwnPair(peer_dial(folders.node("b"), "a"), peer_accept(folders.node("a")))
    pieces = [b"%d" % number * 500 for number in range(3)]
    sent = pair.send(*pieces)
    for part in filter(None, (sent[:cut], sent[cut:])):
        pair.arrive(part)
    pair.arrive(pair.send(b"then as ever"))
    assert pair.accepted.data == b"".join(pieces) + b"then as ever"


@pytest.mark.parametrize("spoiled", [True, False], ids=["a forged record", "the end of TLS"])
def test_a_connection_ends_with_the_record_that_ends_it(tmp_path: Path, spoiled: bool) -> None:
    folders = keys_for(tmp_path)
    pair = OwnPair(peer_dial(folders.node("b"), "a"), peer_accept(folders.node("a")))
    sent = pair.send(b"before", b"spoiled")
    if spoiled:
        sent = sent[:-1] + bytes([sent[-1] ^ 1])
    else:
        pair.dialling.loseConnection()
        sent += pair.send()
    pair.arrive(sent)
    pair.run()
    assert pair.accepted.data == (b"before" if spoiled else b"beforespoiled")
    assert pair.accepted.lost is not None
    assert pair.accepted.reason == (FORGED if spoiled else "")


class Flood:
    """A side that sends many records without data to the other one.

    :param is_cut: whether each read of the other side ends within a record.
    """

    def __init__(self, path: Path, is_cut: bool) -> None:
        folders = keys_for(path)
        dial = peer_dial(folders.node("b"), "a")
        self.records = RecordMaker(dial)
        self.pair = OwnPair(dial, peer_accept(folders.node("a")))
        self._cut = 1 if is_cut else 0

    def update_keys(self, count: int) -> None:
        """Change the keys again and again, and have the other side change its own."""
        for _ in range(count):
            record = self.records.record(HANDSHAKE, bytes([KEY_UPDATE, 0, 0, 1, 1]))
            self.records.update_key()
            self.arrive(record)

    def arrive(self, record: bytes) -> None:
        """A record arrives."""
        for part in filter(None, (record[: self._cut], record[self._cut :])):
            self.pair.arrive(part)

    @property
    def is_lost(self) -> bool:
        """Whether the other side has closed the connection."""
        self.pair.run()
        return self.pair.accepted.lost is not None


@pytest.mark.parametrize("is_cut", [False, True], ids=["whole records", "parts of records"])
@pytest.mark.parametrize("has_data", [False, True], ids=["alone", "between data"])
def test_records_without_data_are_taken_up_to_a_number(tmp_path: Path, is_cut: bool, has_data: bool) -> None:
    """What OpenSSL answers to them is kept until it can be sent, so there must not be more and more of it."""
    flood, updates, said = Flood(tmp_path, is_cut), 0, b""
    while updates + 50 < SILENT_RECORDS_MAX:
        flood.update_keys(50)
        updates += 50
        if has_data:
            flood.arrive(flood.records.record(DATA, b"+"))
            said += b"+"
    assert not flood.is_lost
    flood.arrive(flood.records.record(DATA, b"heard"))
    flood.pair.accepted.transport.write(b"answer")  # type: ignore[union-attr]
    flood.pair.run()
    assert (flood.pair.accepted.data, flood.pair.dialled.data) == (said + b"heard", b"answer")
    flood.update_keys(50)
    assert flood.is_lost
