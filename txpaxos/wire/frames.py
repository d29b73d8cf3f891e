"""Messages on a stream. Each is a frame: the length of the message (u32, big-endian), then its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from txpaxos.errors import CodecError, ValueTooLarge
from txpaxos.wire.header import KIND_AT

DATAGRAM_BYTES_MAX = 1400
"""The biggest message that goes as a datagram. It fits one packet nearly everywhere, so IP does not fragment it."""

FRAME_BYTES_MAX = 64 * 2**20
"""The biggest message that a stream carries."""

HANDSHAKE_BYTES_MAX = 1024
"""The biggest message that is taken from the other side of a stream before the handshake is done."""

FRAME_BYTES_MAX_DEFAULT = 2**16
"""The biggest message of a kind that has no limit of its own."""

TLS_ALERT, TLS_HANDSHAKE = b"\x15\x03", b"\x16\x03"
"""How the bytes of a process begin that speaks TLS: it refuses the connection, or begins the handshake. No frame begins
so: its message would be too big for a handshake."""

_LENGTH_BYTES = 4
_KIND_AT = _LENGTH_BYTES + KIND_AT


def frame(message: bytes) -> bytes:
    """The frame of ``message``: the bytes that go on a stream.

    :raises ValueTooLarge: if the message is bigger than :data:`FRAME_BYTES_MAX`, which no receiver takes.
    """
    if len(message) > FRAME_BYTES_MAX:
        raise ValueTooLarge(f"message of {len(message)} bytes: a stream carries at most {FRAME_BYTES_MAX}")
    return len(message).to_bytes(_LENGTH_BYTES, "big") + message


class FrameSplitter:
    """Splits the bytes of one stream into messages. It buffers only bytes that have come: no memory is reserved for a
    length that is announced.

    :param kinds: the biggest size of a message by its kind number; of other kinds :data:`FRAME_BYTES_MAX_DEFAULT`.
        Without it, no kind has a limit of its own.
    :ivar frame_bytes_max: the biggest message that is taken. Raise it when the other side has proved who it is.
    """

    def __init__(self, frame_bytes_max: int = HANDSHAKE_BYTES_MAX, kinds: Mapping[int, int] | None = None) -> None:
        self.frame_bytes_max = frame_bytes_max
        self._kinds = kinds
        self._buffer = bytearray()

    @property
    def waiting_bytes(self) -> int:
        """How many bytes have come and are not part of a returned message."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes of the stream. Returns an iterator of the messages that are complete.

        ``data`` is buffered at once. A message is split off when the iterator is asked for it, so the caller may raise
        :attr:`frame_bytes_max` after a handshake message, before the next message is checked.

        :raises CodecError: (the iterator) at a message that is too big. Close the stream then: no message follows.
        """
        length = len(data) - _LENGTH_BYTES
        is_one = not self._buffer and int.from_bytes(data[:_LENGTH_BYTES], "big") == length
        if is_one and length <= min(self.frame_bytes_max, FRAME_BYTES_MAX_DEFAULT):  # The usual case, without a copy.
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
            del buffer[:end]  # CPython moves a pointer here, and moves bytes only when half of the buffer is free.
            yield message
