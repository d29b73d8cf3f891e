"""Messages on a stream: each is a frame, its length (u32, big-endian) and then its bytes. No Twisted in here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from txpaxos.errors import CodecError, ValueTooLarge
from txpaxos.wire.header import KIND_AT

DATAGRAM_BYTES_MAX = 1400
"""What fits one packet nearly everywhere, so that IP never has to cut it. Bigger messages take a stream."""

FRAME_BYTES_MAX = 64 * 2**20
"""The biggest message that a stream carries."""

HANDSHAKE_BYTES_MAX = 1024
"""The biggest message a stranger may send."""

FRAME_BYTES_MAX_DEFAULT = 2**16
"""So big may every message be, of whatever kind."""

_LENGTH_BYTES = 4
_KIND_AT = _LENGTH_BYTES + KIND_AT


def frame(message: bytes) -> bytes:
    """``message`` as it goes on a stream.

    :raises ValueTooLarge: if no receiver would take it.
    """
    if len(message) > FRAME_BYTES_MAX:
        raise ValueTooLarge(f"message of {len(message)} bytes: a stream carries at most {FRAME_BYTES_MAX}")
    return len(message).to_bytes(_LENGTH_BYTES, "big") + message


class FrameSplitter:
    """Cuts what comes on one stream into messages. Holds what has come and not been taken, never what is announced.

    :param kinds: how big messages of some kinds may be; of the others, :data:`FRAME_BYTES_MAX_DEFAULT`. Without it, no
        kind has a limit of its own.
    :ivar frame_bytes_max: the biggest message taken. Raise it once the other side has shown who it is.
    """

    def __init__(self, frame_bytes_max: int = HANDSHAKE_BYTES_MAX, kinds: Mapping[int, int] | None = None) -> None:
        self.frame_bytes_max = frame_bytes_max
        self._kinds = kinds
        self._buffer = bytearray()

    @property
    def waiting_bytes(self) -> int:
        """Bytes that have come and not been taken."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes of the stream and cut off the messages that are complete.

        ``data`` is taken at once, messages are cut off one by one as the iterator is asked for them. So whoever gets a
        greeting may raise :attr:`frame_bytes_max` before the next is looked at.

        :raises CodecError: (the iterator) at a message that is too big. Close the stream: nothing follows.
        """
        length = len(data) - _LENGTH_BYTES
        is_one = not self._buffer and int.from_bytes(data[:_LENGTH_BYTES], "big") == length
        if is_one and length <= min(self.frame_bytes_max, FRAME_BYTES_MAX_DEFAULT):  # As a rule.
            return iter((bytes(data[_LENGTH_BYTES:]),))
        self._buffer += data
        return self._messages()

    def _messages(self) -> Iterator[bytes]:
        buffer = self._buffer
        while len(buffer) >= _LENGTH_BYTES:
            length = int.from_bytes(buffer[:_LENGTH_BYTES], "big")
            end = _LENGTH_BYTES + length
            if length > self.frame_bytes_max:
                buffer.clear()
                raise CodecError(f"message of {length} bytes on a stream: at most {self.frame_bytes_max} are taken")
            if length > FRAME_BYTES_MAX_DEFAULT and self._kinds is not None and len(buffer) > _KIND_AT:
                most = self._kinds.get(buffer[_KIND_AT], FRAME_BYTES_MAX_DEFAULT)
                if length > most:
                    buffer.clear()
                    raise CodecError(f"message of {length} bytes on a stream: of its kind at most {most} are taken")
            if len(buffer) < end:
                return
            message = bytes(memoryview(buffer)[_LENGTH_BYTES:end])
            del buffer[:end]  # From the front: CPython moves a pointer, and moves bytes only when half is free.
            yield message
