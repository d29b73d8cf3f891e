"""The header of every message, at both ports of a node (for peers and for clients).

======  ====  ==============================================================================================
offset  size  field (integers big-endian)
======  ====  ==============================================================================================
0       2     magic: which port the message is for
2       1     version of this layout: 2 at the peer port, 1 at the client port
3       1     kind: which class the body is one of
4       4     CRC-32 of all bytes but these four
8       8     cluster id, see below
16      8     incarnation: the random number of the sender's data folder; 0 where there is none
24      1     key id: 0, not authenticated (other values are for a tag behind the body; refused today)
25      1     length of the sender's name in bytes
26      n     the sender's name in UTF-8
26 + n  rest  body
======  ====  ==============================================================================================

The cluster id at the client port is the name digest: BLAKE2b, 8 bytes long, of the cluster's name in UTF-8. At the peer
port it is the first 4 bytes of the name digest, then BLAKE2b, 4 bytes long and keyed with the name digest, of the names
of all founding members in sorted order, each as one byte with its length and then the name in UTF-8. So nodes whose
cluster files differ do not found a cluster together, since they would count different quorums. The founding members
stay the same when members join and leave. A client does not need to know them.

The checksum detects damage. It does not protect against forgery.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from hashlib import blake2b
from zlib import crc32

from txpaxos.errors import CodecError, ConfigError, OtherCluster, OtherMembers

VERSION = 1
VERSION_WITH_MEMBERS = 2
NAME_BYTES_MAX = 255
KIND_AT = 3
CLUSTER_ID_AT = slice(8, 16)

_BEFORE_CHECKSUM = struct.Struct(">2sBB")
_AFTER_CHECKSUM = struct.Struct(">8sQBB")
_WHOLE = struct.Struct(">2sBBI8sQBB")
_NO_KEY = 0
_NAME_DIGEST_BYTES = 4


class Header:
    """Puts the header of one sender before message bodies, and checks the headers of received messages.

    :param magic: two bytes, which name the port.
    :param cluster: the cluster's name, or the 8 bytes of a cluster id. Messages of another cluster are refused.
    :param sender: the sender's name, at most 255 bytes of UTF-8; empty at the client port.
    :param incarnation: the incarnation of the sender's data folder, 0 to 2**64 - 1.
    :param members: at the peer port the ids of the members that founded the cluster, in any order; ``None`` at the
        client port.
    :raises ConfigError: if a name is too long or not UTF-8.
    """

    def __init__(
        self, magic: bytes, cluster: str | bytes, sender: str, incarnation: int, members: Iterable[str] | None = None
    ) -> None:
        name = _node_name(sender)
        self._magic = magic
        self._version = VERSION if members is None else VERSION_WITH_MEMBERS
        self._cluster_id = cluster if isinstance(cluster, bytes) else _cluster_id(cluster, members)
        self._tail = _AFTER_CHECKSUM.pack(self._cluster_id, incarnation, _NO_KEY, len(name)) + name
        # The header of a kind differs only in its checksum. So the checksum of the header's own bytes is kept, too.
        self._heads = [_BEFORE_CHECKSUM.pack(magic, self._version, kind) for kind in range(256)]
        self._head_checksums = [crc32(head) for head in self._heads]
        self._header_checksums = [crc32(self._tail, checksum) for checksum in self._head_checksums]

    def wrap(self, kind: int, body: bytes) -> bytes:
        """The bytes of the message with this ``kind`` (0 to 255) and ``body``."""
        checksum = crc32(body, self._header_checksums[kind])
        return b"".join((self._heads[kind], checksum.to_bytes(4, "big"), self._tail, body))

    def unwrap(self, data: bytes) -> tuple[int, str, int, memoryview]:
        """Check the header of a message.

        :returns: the kind, the sender, the incarnation, and a view of the body.
        :raises CodecError: if the message is damaged or truncated, or is not for this port of this cluster. No other
            error is raised.
        :raises OtherMembers: a CodecError: if the sender's cluster has the same name and other founding members.
        """
        if len(data) < _WHOLE.size:
            raise CodecError(f"{len(data)} bytes are no message")
        magic, version, kind, checksum, cluster_id, incarnation, key, name_bytes = _WHOLE.unpack_from(data)
        if magic != self._magic:
            raise CodecError("no message for this port")
        if version != self._version:
            raise CodecError(
                f"message of version {version}, this node speaks {self._version}: run one release everywhere"
            )
        view = memoryview(data)
        if crc32(view[_BEFORE_CHECKSUM.size + 4 :], self._head_checksums[kind]) != checksum:
            raise CodecError("checksum wrong: damaged or cut off on the way")
        is_ours = cluster_id == self._cluster_id
        if not is_ours and cluster_id[:_NAME_DIGEST_BYTES] != self._cluster_id[:_NAME_DIGEST_BYTES]:
            raise OtherCluster
        if key != _NO_KEY:
            raise CodecError(f"message authenticated with key {key}: this node has no keys")
        body_at = _WHOLE.size + name_bytes
        if len(data) < body_at:
            raise CodecError("the sender's name is cut off")
        try:
            sender = data[_WHOLE.size : body_at].decode()
        except UnicodeDecodeError:
            raise CodecError("the sender's name is not UTF-8") from None
        if not is_ours:
            raise OtherMembers(sender)
        return kind, sender, incarnation, view[body_at:]


def _node_name(node: str) -> bytes:
    name = _utf8("node", node)
    if len(name) > NAME_BYTES_MAX:
        raise ConfigError(f"node name of {len(name)} bytes: choose one of at most {NAME_BYTES_MAX}")
    return name


def _cluster_id(cluster: str, members: Iterable[str] | None) -> bytes:
    name = _utf8("cluster", cluster)
    digest = blake2b(name, digest_size=8).digest()
    if members is None:
        return digest
    names = b"".join(bytes((len(member),)) + member for member in sorted(map(_node_name, members)))
    return digest[:_NAME_DIGEST_BYTES] + blake2b(names, digest_size=4, key=digest).digest()


def _utf8(what: str, name: str) -> bytes:
    try:
        return name.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{what} name {name!r} cannot be written as UTF-8: choose another") from None
