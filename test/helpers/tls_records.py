"""Records of TLS 1.3, made by hand: what no library of TLS lets its user send."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

HANDSHAKE, DATA = 22, 23
KEY_UPDATE = 24
_KEY_BYTES, _NONCE_BYTES = 32, 12


class RecordMaker:
    """Makes the records that the dialling side of a connection could send (RFC 8446, section 5.2).

    The cipher has to be TLS_AES_256_GCM_SHA384.

    :param creator: what makes the connection. It must not have made one yet.
    """

    def __init__(self, creator: Any) -> None:
        self._secret = b""
        self._number = 0
        creator._context.set_keylog_callback(self._note)

    def record(self, kind: int, data: bytes) -> bytes:
        """The next record, with ``data`` of this kind."""
        plain = data + bytes([kind])
        head = bytes([DATA, 3, 3]) + (len(plain) + 16).to_bytes(2, "big")
        iv = int.from_bytes(self._expand(b"iv", b"", _NONCE_BYTES), "big")
        nonce = (iv ^ self._number).to_bytes(_NONCE_BYTES, "big")
        self._number += 1
        return head + AESGCM(self._expand(b"key", b"", _KEY_BYTES)).encrypt(nonce, plain, head)

    def update_key(self) -> None:
        """Use the next key, as after a message that says so (section 7.2)."""
        self._secret = self._expand(b"traffic upd", b"", len(self._secret))
        self._number = 0

    def _note(self, connection: object, line: bytes) -> None:
        name, _, secret = line.split()
        if name == b"CLIENT_TRAFFIC_SECRET_0":
            self._secret = bytes.fromhex(secret.decode())

    def _expand(self, label: bytes, context: bytes, size_bytes: int) -> bytes:
        label = b"tls13 " + label
        info = size_bytes.to_bytes(2, "big") + bytes([len(label)]) + label + bytes([len(context)]) + context
        return HKDFExpand(SHA384(), size_bytes, info).derive(self._secret)
