"""Messages between a client and a node's client port, to bytes and back.

On a TCP stream, framed as in :mod:`txpaxos.wire.frames`, with the header of :mod:`txpaxos.wire.header` (no sender, no
incarnation, a magic of their own) and bodies of MessagePack as in :mod:`txpaxos.wire.codec`. ``request`` is a number
the client picks; the answer repeats it. A node greets with :class:`Welcome`; the client need not.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import attrs
import msgspec

from txpaxos.errors import CodecError
from txpaxos.packing import Packing
from txpaxos.wire.commands import PAYLOADS_MAX, Count, Payloads, Session, check_count
from txpaxos.wire.header import Header

CLIENT_MAGIC = b"\x97C"

# -------------------------------------------------------------- from a client


@attrs.frozen
class Submit:
    """Have ``commands`` applied, each once: a :class:`txpaxos.wire.commands.Run`. Each is a request: the first is
    ``request``, and each that follows has one more.

    Answered with Answer and Refused, each for one or more of them."""

    request: Count
    session: Session
    sequence: Count
    acknowledged: Count
    commands: Payloads = attrs.field()

    @commands.validator
    def _check(self, _: Any, commands: Payloads) -> None:
        check_count(max(self.request, self.sequence), len(commands))


@attrs.frozen
class Ask:
    """Have ``value`` chosen for ``subject`` unless another is already; with ``None``, only say what is chosen.

    Answered with AskAnswer or Refused."""

    request: Count
    subject: str
    value: bytes | None


@attrs.frozen
class Read:
    """Answer ``query`` from the application's state: with everything in it that was acknowledged before, or, if
    ``local``, as the node has it, which may be old. Answered with ReadAnswer or Refused."""

    request: Count
    query: bytes
    local: bool


@attrs.frozen
class StatusRequest:
    """Tell how the node is. Answered with StatusAnswer."""

    request: Count


@attrs.frozen
class KeepAliveReply:
    """The answer to :class:`KeepAlive`. Not answered."""


@attrs.frozen
class Ping:
    """Say something: answers are due, and none has come for a while. Sent only to a node whose Welcome tells a liveness
    window. Answered with Pong at once, whatever else is in work."""


# ---------------------------------------------------------------- from a node


@attrs.frozen
class Welcome:
    """The first message on a connection, sent again whenever the leader changes.

    :ivar node: the name of the node that speaks.
    :ivar leader: the node it believes to lead, ``None`` if it knows none.
    :ivar leader_address: the leader's client port, ``host:port``, ``None`` if it is not known.
    :ivar applied_through: the last slot that it has applied: sessions made now are born there.
    :ivar liveness_window_seconds: the shortest silence after which a follower replaces its leader, and so about what a
        client may wait for a node to say something. 0 from a node that does not know Ping.
    """

    node: str
    leader: str | None
    leader_address: str | None
    applied_through: Count = 0
    liveness_window_seconds: float = 0.0


@attrs.frozen
class Pong:
    """This node is there."""


@attrs.frozen
class Answer:
    """The commands from ``request`` on were applied. ``results`` are what ``apply`` returned, as MessagePack."""

    request: Count
    results: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=PAYLOADS_MAX)]


@attrs.frozen
class ReadAnswer:
    """What ``query`` returned, as MessagePack, with every slot up to ``slot`` in it."""

    request: Count
    slot: Count
    result: bytes


@attrs.frozen
class AskAnswer:
    """The value chosen for the subject, ``None`` if none is."""

    request: Count
    value: bytes | None


@attrs.frozen
class StatusAnswer:
    """How the node is: a JSON object in UTF-8."""

    request: Count
    status: bytes


@attrs.frozen
class Refused:
    """``count`` requests from ``request`` on failed. ``error`` is the name of a class in :mod:`txpaxos.errors`,
    ``reason`` its one line."""

    request: Count
    error: str
    reason: str
    count: Count = 1


@attrs.frozen
class KeepAlive:
    """To a client that has nothing in work and has said nothing for long. One that does not answer is disconnected."""


Request: TypeAlias = Submit | Ask | Read | StatusRequest
FromClient: TypeAlias = Request | Ping | KeepAliveReply
FromNode: TypeAlias = Welcome | Pong | Answer | AskAnswer | ReadAnswer | StatusAnswer | Refused | KeepAlive

# Kind numbers are never used again for something else.
_packing = Packing[FromClient | FromNode](
    {
        1: Submit,
        2: Ask,
        3: StatusRequest,
        4: Read,
        5: Ping,
        6: KeepAliveReply,
        129: Welcome,
        130: Answer,
        131: AskAnswer,
        132: StatusAnswer,
        133: Refused,
        134: ReadAnswer,
        135: KeepAlive,
        136: Pong,
    }
)


class ClientCodec:
    """One side of the client port, either one.

    :param cluster: the cluster's name; messages of another are refused.
    :raises ConfigError: if the name cannot be sent.
    """

    def __init__(self, cluster: str) -> None:
        self._header = Header(CLIENT_MAGIC, cluster, "", 0)

    def encode(self, message: FromClient | FromNode) -> bytes:
        """The bytes of a message.

        :raises OverflowError: if it holds an integer of 2**64 or more.
        """
        return self._header.wrap(*_packing.pack(message))

    def decode(self, data: bytes) -> FromClient | FromNode:
        """The message that :meth:`encode` was given.

        :raises CodecError: if it is none. Nothing else is raised, whatever the bytes.
        """
        kind, _, _, body = self._header.unwrap(data)
        try:
            return _packing.unpack(kind, body)
        except ValueError as error:
            raise CodecError(str(error)) from None
