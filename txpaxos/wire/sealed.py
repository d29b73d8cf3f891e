"""Sealed datagrams: encrypted for one node, authenticated, and accepted once. They are used when keys are on.

======  ====  ==============================================================================================
offset  size  field (integers big-endian)
======  ====  ==============================================================================================
0       2     magic: ``50 73``, so that no sealed datagram is taken for a message
2       1     version of this layout: 1
3       8     session: which secret the datagram is sealed with
11      8     counter: how many datagrams were sealed with it before
19      n     the whole message, encrypted
19 + n  16    the tag, which authenticates all before it
======  ====  ==============================================================================================

The cipher is AES-256-GCM, with the first 19 bytes as associated data; its nonce is four zero bytes and the counter. A
secret seals in one direction only, and is never used again, so no nonce is used twice. A receiver accepts each counter
once. Of counters below the highest it keeps a window, so that datagrams may overtake each other.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Protocol, TypeAlias

from txpaxos.errors import CodecError

SEALED_MAGIC = b"Ps"
VERSION = 1
KEY_BYTES, SESSION_BYTES = 32, 8
SECRET_BYTES = KEY_BYTES + SESSION_BYTES
"""A secret: the key of the cipher, and then the session that tells the receiver which key it is."""

TAG_BYTES = 16
WINDOW = 1024
"""How far a datagram may stay behind the newest one and still be accepted."""

RENEW_AT = 2**27
"""After this number of datagrams a new secret is asked for."""

SEALED_MAX = 2**28
"""How many datagrams one secret seals at most. It is the limit that RFC 9001 (appendix B.1) derives for packets of at
most 2,048 bytes under AES-GCM."""

_HEAD = struct.Struct(">2sB8sQ")
HEAD_BYTES = _HEAD.size
OVERHEAD_BYTES = HEAD_BYTES + TAG_BYTES
_COUNTER_AT = HEAD_BYTES - 8
_NONCE_BEGINS = bytes(4)
_SEEN_ALL = (1 << WINDOW) - 1


class Cipher(Protocol):
    """A cipher with one key, which authenticates what it encrypts."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        """``data`` encrypted, and then the tag."""

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        """What was encrypted. Raises if the tag is not right."""


NewCipher: TypeAlias = Callable[[bytes], Cipher]


class NotSealed(CodecError):
    """A datagram is not sealed, or as another release would do it."""


class UnknownSession(CodecError):
    """A datagram is sealed with a secret that the receiver does not have."""


class Replayed(CodecError):
    """A datagram with this counter was accepted before, or is too old to tell."""


class WrongTag(CodecError):
    """A datagram is forged or damaged."""


class DatagramSealer:
    """Seals the datagrams from one node to another one.

    :param secret: :data:`SECRET_BYTES` bytes that only the two have, for this direction only.
    :param worn: called once, when a new secret is needed soon.
    """

    def __init__(self, secret: bytes, new_cipher: NewCipher, worn: Callable[[], object]) -> None:
        self._encrypt = new_cipher(secret[:KEY_BYTES]).encrypt
        self._session = secret[KEY_BYTES:]
        self._worn = worn
        self._counter = 0

    def seal(self, message: bytes) -> bytes:
        """The sealed datagram with this message; empty if the secret must not be used any more."""
        counter = self._counter
        if counter >= RENEW_AT:
            if counter == RENEW_AT:
                self._worn()
            if counter >= SEALED_MAX:
                return b""
        self._counter = counter + 1
        head = _HEAD.pack(SEALED_MAGIC, VERSION, self._session, counter)
        return head + self._encrypt(_NONCE_BEGINS + head[_COUNTER_AT:], message, head)


class DatagramOpener:
    """Opens the sealed datagrams that come to one node.

    Of each peer it keeps the newest secret and the one before: datagrams under the older one may still be on their way.

    :param wrong_tag: what the cipher raises if a tag is not right.
    """

    def __init__(self, new_cipher: NewCipher, wrong_tag: type[Exception]) -> None:
        self._new_cipher = new_cipher
        self._wrong_tag = wrong_tag
        self._sessions: dict[bytes, _Session] = {}
        self._sessions_of: dict[str, list[bytes]] = {}

    @property
    def peers(self) -> tuple[str, ...]:
        """Those of whom it has a secret."""
        return tuple(self._sessions_of)

    def add(self, peer: str, secret: bytes) -> None:
        """Open what ``peer`` seals with ``secret`` from now on. No session is taken over from another peer.

        :raises CodecError: if there is a session of that name already."""
        session = secret[KEY_BYTES:]
        if session in self._sessions:
            raise CodecError("two secrets have the same session")
        self._sessions[session] = _Session(peer, self._new_cipher(secret[:KEY_BYTES]))
        sessions = self._sessions_of.setdefault(peer, [])
        sessions.append(session)
        while len(sessions) > 2:
            del self._sessions[sessions.pop(0)]

    def forget(self, peer: str) -> None:
        """Open nothing of ``peer`` any more."""
        for session in self._sessions_of.pop(peer, ()):
            del self._sessions[session]

    def open(self, data: bytes) -> tuple[str, bytes]:
        """Open one datagram.

        :returns: the peer that has sealed it, and the message. Each datagram is opened once.
        :raises CodecError: if it is to be dropped: one of the kinds in this module, and no other error, whatever the
            bytes are.
        """
        if len(data) < OVERHEAD_BYTES or not data.startswith(SEALED_MAGIC):
            raise NotSealed("it is not sealed: keys are on here, and probably off there")
        head = data[:HEAD_BYTES]
        _, version, name, counter = _HEAD.unpack(head)
        if version != VERSION:
            raise NotSealed(f"it is sealed as version {version}, and this node knows version {VERSION}")
        session = self._sessions.get(name)
        if session is None:
            raise UnknownSession("it is sealed with a secret that is not known here")
        behind = session.highest - counter
        if behind >= WINDOW or (behind >= 0 and session.seen >> behind & 1):
            raise Replayed("it came before, or is too old")
        try:
            message = session.decrypt(_NONCE_BEGINS + head[_COUNTER_AT:], data[HEAD_BYTES:], head)
        except self._wrong_tag:
            raise WrongTag("it is forged or damaged") from None
        if behind < 0:
            session.highest = counter
            session.seen = (session.seen << -behind | 1) & _SEEN_ALL if behind > -WINDOW else 1
        else:
            session.seen |= 1 << behind
        return session.peer, message


class _Session:
    """What is known of one secret.

    :ivar highest: the highest counter that was accepted, -1 if there is none.
    :ivar seen: which counters were accepted: bit n stands for ``highest - n``.
    """

    __slots__ = ("decrypt", "highest", "peer", "seen")

    def __init__(self, peer: str, cipher: Cipher) -> None:
        self.peer = peer
        self.decrypt = cipher.decrypt
        self.highest = -1
        self.seen = 0
