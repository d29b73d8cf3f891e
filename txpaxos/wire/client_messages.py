"""Messages between a client and a node's client port, to bytes and back.

The messages go over a TCP stream, framed as in :mod:`txpaxos.wire.frames`. Each has the header of
:mod:`txpaxos.wire.header`, without sender and incarnation and with a magic of its own, and a body of MessagePack as in
:mod:`txpaxos.wire.codec`. The client picks the number ``request``, and the answer repeats it. The node's first message
is :class:`Welcome`; the client may send requests before that.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import attrs
import msgspec

from txpaxos.errors import CodecError
from txpaxos.packing import Packing
from txpaxos.wire.commands import (
    PAYLOADS_MAX,
    REGISTERS_MARK_AT,
    SESSION_BYTES_MAX,
    Count,
    Payloads,
    Session,
    check_count,
    is_for_registers,
)
from txpaxos.wire.header import CLUSTER_ID_AT, Header
from txpaxos.wire.registers import SUBJECT_BYTES_MAX
from txpaxos.wire.stamps import Number, TimerName

CLIENT_MAGIC = b"\x97C"

TOKEN_BYTES = 16
JOIN_TEXT_CHARACTERS_MAX = 300
"""The longest name or address in :class:`Join` and :class:`JoinAnswer`."""

JoinText: TypeAlias = Annotated[str, msgspec.Meta(max_length=JOIN_TEXT_CHARACTERS_MAX)]
JoinRights: TypeAlias = dict[JoinText, tuple[JoinText, ...]]
JoinAddresses: TypeAlias = Annotated[dict[JoinText, tuple[JoinText, JoinText]], msgspec.Meta(max_length=64)]

CONTACTS_MAX = 64
"""The most members that a node tells a client of, and that a client takes."""

CLIENT_TOKEN_BYTES_MAX = 256
"""The longest token by which a client shows who it is."""

RIGHTS_MAX = 16
"""The most rights that :class:`Authenticated` names."""

PrincipalText: TypeAlias = Annotated[str, msgspec.Meta(max_length=64)]

SPAN_BYTES = 25
"""The bytes that name a span in :class:`Trace`."""

TRACES_MAX = 64
"""The most commands of a run that belong to traces. The others have no spans on the node."""

KEEP_TIMERS_MAX = 1024
"""The most timers in one :class:`KeepTimers`."""

CHANGE_TEXT_CHARACTERS_MAX = 300
"""The longest name or address in :class:`ChangeMembers`."""

Action: TypeAlias = Literal["promote", "remove", "replace", "move", "priority"]
ChangeText: TypeAlias = Annotated[str, msgspec.Meta(max_length=CHANGE_TEXT_CHARACTERS_MAX)]
RecalledSession: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=SESSION_BYTES_MAX)]
RecalledRegister: TypeAlias = Annotated[str, msgspec.Meta(max_length=SUBJECT_BYTES_MAX)]


class Contact(NamedTuple):
    """A member of the cluster, as far as a client has to know it.

    :ivar node: the member's id.
    :ivar client: where clients reach it, ``host:port``.
    :ivar role: ``"voter"`` or ``"learner"``.
    """

    node: ChangeText
    client: ChangeText
    role: ChangeText


Contacts: TypeAlias = Annotated[tuple[Contact, ...], msgspec.Meta(max_length=CONTACTS_MAX)]

# -------------------------------------------------------------- from a client


@attrs.frozen
class Submit:
    """Have ``commands`` applied, each once. The other fields are those of a :class:`txpaxos.wire.commands.Run`.

    Each command is a request. The first has the number ``request``, and each further one has one more. Answers are
    :class:`Answer` and :class:`Refused`, each for one or more of the commands."""

    request: Count
    session: Session
    sequence: Count
    acknowledged: Count
    commands: Payloads = attrs.field()

    @commands.validator
    def _check(self, _: Any, commands: Payloads) -> None:
        check_count(max(self.request, self.sequence), len(commands))
        if is_for_registers(self.session):
            raise ValueError("commands of the registers are made by nodes")


@attrs.frozen
class Ask:
    """Have the register ``subject`` decided on ``value``, unless it is decided already. With ``None``, only read which
    value it is decided on. The answer is :class:`AskAnswer` or :class:`Refused`."""

    request: Count
    subject: str
    value: bytes | None


@attrs.frozen
class Forget:
    """Make the register ``subject`` undecided, so that it can be decided anew. The answer is :class:`AskAnswer` with
    the value that is forgotten, or :class:`Refused`.

    :ivar session: the client's session for this. A node appends its own mark to it.
    :ivar sequence: the number of the request in that session. A request that is sent again has the same one, and
        forgets once.
    """

    request: Count
    session: Annotated[bytes, msgspec.Meta(min_length=REGISTERS_MARK_AT, max_length=REGISTERS_MARK_AT)]
    sequence: Count
    subject: str


@attrs.frozen
class Read:
    """Answer ``query`` from the application's state. The state contains every command that was acknowledged before the
    request; if ``local``, it is this node's state, which may be old. The answer is :class:`ReadAnswer` or
    :class:`Refused`."""

    request: Count
    query: bytes
    local: bool


@attrs.frozen
class KeepTimers:
    """Keep the timers ``names`` alive, those of them that are kept-alive timers. The answer is :class:`TimersKept` or
    :class:`Refused`.

    :ivar number: the number of this keep-alive. It counts for a timer if it is higher than all that counted before. A
        client makes its first one by chance, so that two clients never have the same.
    """

    request: Count
    number: Number
    names: Annotated[tuple[TimerName, ...], msgspec.Meta(min_length=1, max_length=KEEP_TIMERS_MAX)]


@attrs.frozen
class KeepTogether:
    """Keep all timers alive again that the keep-alive ``before`` of this client has kept alive together. The answer is
    :class:`TimersKept` with one number, or :class:`Refused`. That number is ``None`` if they are not ``count`` timers
    any more: one has ended, or another client has kept it alive. Then the client names them again.

    :ivar before: the number of the last :class:`KeepTimers` or :class:`KeepTogether` that counted for all of them.
    :ivar number: the number of this keep-alive.
    """

    request: Count
    before: Number
    number: Number
    count: Annotated[int, msgspec.Meta(ge=1, le=KEEP_TIMERS_MAX)]


@attrs.frozen
class StatusRequest:
    """Report the node's status. The answer is :class:`StatusAnswer`."""

    request: Count


@attrs.frozen
class ReloadKeys:
    """Read the keys and the rights of clients again. The answer is :class:`StatusAnswer`, with what the node uses now,
    or :class:`Refused`; then it goes on with those that it had."""

    request: Count


@attrs.frozen
class Recall:
    """Tell what this node remembers of one slot of the log, or of one ballot. The answer is :class:`StatusAnswer`.

    Just one of the four is given: a slot, a ballot as text (``3.a``), a command by its session and sequence, or a
    register by its name. The node looks for the slot of a command or a register in what it still has of its log."""

    request: Count
    slot: Count = 0
    ballot: ChangeText = ""
    session: RecalledSession = b""
    sequence: Count = 0
    register: RecalledRegister = ""


@attrs.frozen
class AcceptClock:
    """Let the next time in the log be what the clocks say, however late that is. The answer is :class:`StatusAnswer`
    with that time, or :class:`Refused`. Only the leader answers, so the client goes to the leader."""

    request: Count


@attrs.frozen
class HandOver:
    """Hand over the lead to the node ``to``. The answer is :class:`HandedOver` when that node leads, or
    :class:`Refused`."""

    request: Count
    to: str


@attrs.frozen
class MembersRequest:
    """Report who the members are. The answer is :class:`MembersAnswer`."""

    request: Count


@attrs.frozen
class ChangeMembers:
    """Change the members of the cluster. The answer is :class:`ChangeAnswer` or :class:`Refused`, after any number of
    :class:`ChangeProgress`. Only the leader answers; another node waits until it leads, so the client goes to the
    leader. A request that is made again is answered as if it was made once: what is already so is left as it is.

    :ivar action: ``"promote"``: make the learner ``node`` a voter. ``"remove"``: make ``node`` no member any more.
        ``"replace"``: make the learner ``other`` a voter in place of ``node``. ``"move"``: give ``node`` other
        addresses. ``"priority"``: give ``node`` another priority. (A node is added when it joins, by itself.)
    :ivar node: the id of a member.
    :ivar other: the id of the member that takes the place of ``node``.
    :ivar address: where the other nodes reach ``node``, ``host:port``.
    :ivar client: where clients reach it, ``host:port``.
    :ivar priority: the higher, the rather the node is to lead.
    """

    request: Count
    action: Action
    node: ChangeText
    other: ChangeText = ""
    address: ChangeText = ""
    client: ChangeText = ""
    priority: Count = 0


@attrs.frozen
class Join:
    """Add a node with an empty data folder to the members. The answer is :class:`JoinAnswer` or :class:`Refused`.

    Only the leader answers. A request that is made again, with the same name and incarnation, is answered as if it was
    made once.

    :ivar name: what its owner calls the node. Its id has a number beside that if the name was used before.
    :ivar address: where the other nodes reach it, ``host:port``.
    :ivar client: where clients reach it, ``host:port``.
    :ivar incarnation: of its data folder, not 0.
    :ivar token: what a process that is reached at these addresses sends first. By it the leader sees that it is the
        node that asks.
    :ivar application: the name of its application.
    :ivar votes: whether it is to vote when it has caught up.
    :ivar replaces: the id of the member that leaves then; empty for none.
    """

    request: Count
    name: JoinText
    address: JoinText
    client: JoinText
    incarnation: Annotated[int, msgspec.Meta(ge=1)]
    token: Annotated[bytes, msgspec.Meta(min_length=TOKEN_BYTES, max_length=TOKEN_BYTES)]
    application: JoinText
    votes: bool = True
    replaces: JoinText = ""


@attrs.frozen
class BackupRequest:
    """Send a part of a backup. The answer is :class:`BackupAnswer` or :class:`Refused`. One part at a time is asked
    for, so neither side holds more than that.

    :ivar snapshot_slot: the slot of the snapshot of which a part is asked for; 0 for something else.
    :ivar position: of a snapshot, where the part begins, in bytes. Otherwise the slot from which on chosen values are
        asked for; 0 to ask for the :class:`BackupHead`.
    """

    request: Count
    snapshot_slot: Count = 0
    position: Count = 0


@attrs.frozen
class Authenticate:
    """Show who you are by a token, when keys are on. A client that has no certificate sends this first, and nothing
    else before the answer. The answer is :class:`Authenticated` with the name that the token stands for, and then
    :class:`Welcome` and :class:`Members`; or :class:`Refused`, after which the node closes the connection."""

    token: Annotated[bytes, msgspec.Meta(min_length=1, max_length=CLIENT_TOKEN_BYTES_MAX)] = attrs.field(repr=False)


@attrs.frozen
class KeepAliveReply:
    """The answer to :class:`KeepAlive`. It has no answer."""


@attrs.frozen
class Ping:
    """Show that you are alive. A client sends it when answers are due and none has come for a while, but only to a node
    whose Welcome has a liveness window. The node answers with :class:`Pong` at once, before any answer in work."""


@attrs.frozen
class Withdraw:
    """Do not answer the :class:`Read` with the number ``request`` on this connection, if it is in work. It has no
    answer. A client sends it only to a node whose Welcome says that the node knows it."""

    request: Count


@attrs.frozen
class Trace:
    """The command with the number ``request``, which is sent next on this connection, belongs to a trace. It has no
    answer. A client sends it only to a node whose Welcome says that the node makes spans.

    :ivar parent: the client's span: the 16 bytes of the trace's id, the 8 bytes of the span's, and one of flags, as in
        W3C's Trace Context.
    """

    request: Count
    parent: Annotated[bytes, msgspec.Meta(min_length=SPAN_BYTES, max_length=SPAN_BYTES)]


# ---------------------------------------------------------------- from a node


@attrs.frozen
class Welcome:
    """The first message on a connection. It is sent again when anything in it but the slot has changed.

    :ivar node: the name of the node that sends it.
    :ivar leader: the node that it believes to lead, ``None`` if it knows none.
    :ivar leader_address: the leader's client port, ``host:port``, ``None`` if it is not known.
    :ivar applied_through: the last slot that the node has applied. Sessions that are created now have this slot.
    :ivar liveness_window_seconds: the shortest silence after which a follower replaces its leader. A client should wait
        about as long for a sign of a node. 0 from a node that does not know Ping.
    :ivar leaving: whether the node is about to stop. If it does not lead, clients should use another node from now on;
        if it leads, they wait for the Welcome that names the next leader.
    :ivar catching_up: whether the node fetches a snapshot, because it is too far behind. It answers nothing that needs
        the newest state until it has caught up, so clients with such a request should use another node, if one helps.
    :ivar takes_withdrawals: whether the node knows Withdraw. An older one would close the connection.
    :ivar takes_traces: whether the node makes spans, so that it wants :class:`Trace`.
    """

    node: str
    leader: str | None
    leader_address: str | None
    applied_through: Count = 0
    liveness_window_seconds: float = 0.0
    leaving: bool = False
    catching_up: bool = False
    takes_withdrawals: bool = False
    takes_traces: bool = False


@attrs.frozen
class Authenticated:
    """The first message on a connection when keys are on, before :class:`Welcome`: who the client is to the node.

    A client that has no certificate is told an empty name first. It is sent no Welcome then unless the cluster grants
    rights to clients without a name.

    :ivar principal: the name of the client, by its certificate or its token. Sessions that the client makes belong to
        it.
    :ivar rights: what the client may do, as the cluster file of the node says.
    """

    principal: PrincipalText
    rights: Annotated[tuple[PrincipalText, ...], msgspec.Meta(max_length=RIGHTS_MAX)]


@attrs.frozen
class Members:
    """Who the members are. It follows the first Welcome, and is sent again, once, when they change.

    :ivar slot: the slot of the log at which these members were chosen; 0 for those that founded the cluster. Of two
        such messages, the one with the higher slot is the newer.
    """

    slot: Count
    members: Contacts


@attrs.frozen
class Pong:
    """The answer to :class:`Ping`: this node is alive."""


@attrs.frozen
class Answer:
    """The results of the commands from ``request`` on, which were applied: what ``apply`` returned, as MessagePack."""

    request: Count
    results: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=PAYLOADS_MAX)]


@attrs.frozen
class ReadAnswer:
    """The result of a query: what ``query`` returned, as MessagePack, from the state after ``slot``."""

    request: Count
    slot: Count
    result: bytes


@attrs.frozen
class AskAnswer:
    """The value that the register is decided on, or was before :class:`Forget`; ``None`` if there is none."""

    request: Count
    value: bytes | None


@attrs.frozen
class TimersKept:
    """The answer to :class:`KeepTimers` and :class:`KeepTogether`, for each name in its order: the number of the last
    keep-alive that counted, by the log; ``None`` if there is no kept-alive timer of this name. If it is the number of
    the request, the timer fires no sooner than its period after that was sent. If it is higher, another client keeps
    the timer alive, too.

    :ivar period_ms: the shortest period of these timers, from which the client sees how long nodes may take to answer
        the next keep-alive; 0 if there is no such timer, or the node is of an earlier release.
    """

    request: Count
    numbers: Annotated[tuple[Count | None, ...], msgspec.Meta(max_length=KEEP_TIMERS_MAX)]
    period_ms: Count = 0


@attrs.frozen
class StatusAnswer:
    """The node's status: a JSON object in UTF-8."""

    request: Count
    status: bytes


@attrs.frozen
class HandedOver:
    """The node ``leader`` leads."""

    request: Count
    leader: str


@attrs.frozen
class MembersAnswer:
    """The members, as this node knows them: a JSON object in UTF-8."""

    request: Count
    members: bytes


@attrs.frozen
class ChangeProgress:
    """How far a change of members has come, in one line. It is repeated while nothing new happens."""

    request: Count
    line: str


@attrs.frozen
class ChangeAnswer:
    """A change of members is complete. ``line`` says what has become of it."""

    request: Count
    line: str


@attrs.frozen
class JoinAnswer:
    """The node is a member now, and may start.

    :ivar cluster: the cluster's name.
    :ivar node: the id of the new member.
    :ivar founding: the members that founded the cluster, in the order of their cluster file: for each its address for
        other nodes, and its address for clients.
    :ivar slot: the slot at which the current members were chosen.
    :ivar members: the current members, the new one included.
    :ivar learners: the ids of those among the current members that do not vote.
    :ivar rights: what clients may do, when keys are on, as the node that answers knows it: for each entry its rights.
    """

    request: Count
    cluster: JoinText
    node: JoinText
    founding: JoinAddresses
    slot: Count
    members: JoinAddresses
    learners: Annotated[tuple[JoinText, ...], msgspec.Meta(max_length=64)] = ()
    rights: JoinRights = attrs.field(factory=dict)


@attrs.frozen
class BackupAnswer:
    """A part of a backup: bytes of a snapshot's file, chosen values as an array in MessagePack, or a
    :class:`BackupHead` in MessagePack."""

    request: Count
    body: bytes


@attrs.frozen
class BackupHead:
    """What a backup is of. It is the body of the first :class:`BackupAnswer`, and the beginning of a backup file.

    :ivar cluster: the name of the cluster.
    :ivar node: the node that made it.
    :ivar application: the name of the application, ``MODULE:CLASS``.
    :ivar members: by id, where other nodes and where clients reach each member.
    :ivar snapshot_slot: the slot of the snapshot in it; 0 if there is none.
    :ivar snapshot_bytes: the size of the snapshot's file.
    :ivar through: the last slot in it. The values of the slots behind the snapshot are in it one by one.
    """

    cluster: str
    node: str
    application: str
    members: dict[str, tuple[str, str]]
    snapshot_slot: Count
    snapshot_bytes: Count
    through: Count


@attrs.frozen
class Refused:
    """``count`` requests from ``request`` on failed.

    :ivar error: the name of a class in :mod:`txpaxos.errors`.
    :ivar reason: the error's one line.
    """

    request: Count
    error: str
    reason: str
    count: Count = 1


@attrs.frozen
class KeepAlive:
    """Show that you are alive. A node sends it to a client that has no request in work and was silent for long. It
    disconnects a client that does not answer."""


Request: TypeAlias = (
    Submit
    | Ask
    | Forget
    | Read
    | KeepTimers
    | KeepTogether
    | StatusRequest
    | ReloadKeys
    | AcceptClock
    | Recall
    | HandOver
    | Join
    | MembersRequest
    | ChangeMembers
    | BackupRequest
)
FromClient: TypeAlias = Request | Withdraw | Trace | Ping | KeepAliveReply | Authenticate
ToRequest: TypeAlias = (
    Answer | AskAnswer | ReadAnswer | TimersKept | StatusAnswer | HandedOver | JoinAnswer | BackupAnswer | Refused
)
OfMembers: TypeAlias = Members | MembersAnswer | ChangeProgress | ChangeAnswer
FromNode: TypeAlias = Welcome | Pong | KeepAlive | Authenticated | ToRequest | OfMembers

# Kind numbers are never used again for something else.
_packing = Packing[FromClient | FromNode](
    {
        1: Submit,
        2: Ask,
        3: StatusRequest,
        4: Read,
        5: Ping,
        6: KeepAliveReply,
        7: HandOver,
        8: MembersRequest,
        9: ChangeMembers,
        20: Forget,
        16: Join,
        10: BackupRequest,
        21: Authenticate,
        22: ReloadKeys,
        23: KeepTimers,
        26: AcceptClock,
        27: Withdraw,
        28: Recall,
        29: Trace,
        30: KeepTogether,
        129: Welcome,
        130: Answer,
        131: AskAnswer,
        132: StatusAnswer,
        133: Refused,
        134: ReadAnswer,
        135: KeepAlive,
        136: Pong,
        137: HandedOver,
        138: Members,
        139: MembersAnswer,
        140: ChangeProgress,
        141: ChangeAnswer,
        160: JoinAnswer,
        142: BackupAnswer,
        143: Authenticated,
        144: TimersKept,
    }
)


class ClientCodec:
    """Encodes and decodes the messages at the client port, on either side.

    :param cluster: the cluster's name. Messages of another cluster are refused. A client that was only told an address
        does not know the name: with ``None`` the first message that comes decides which cluster this is.
    :raises ConfigError: if the name is not UTF-8.
    """

    def __init__(self, cluster: str | None) -> None:
        self._header = None if cluster is None else Header(CLIENT_MAGIC, cluster, "", 0)

    def encode(self, message: FromClient | FromNode) -> bytes:
        """The bytes of a message.

        :raises OverflowError: if the message holds an integer of 2**64 or more.
        """
        assert self._header is not None, "nothing has come yet, so the cluster is not known"
        return self._header.wrap(*_packing.pack(message))

    def decode(self, data: bytes) -> FromClient | FromNode:
        """The message that :meth:`encode` was given.

        :raises CodecError: if ``data`` is no such message. No other error is raised, whatever the bytes are.
        """
        header = self._header or Header(CLIENT_MAGIC, bytes(data[CLUSTER_ID_AT]), "", 0)
        kind, _, _, body = header.unwrap(data)
        try:
            message = _packing.unpack(kind, body)
        except ValueError as error:
            raise CodecError(str(error)) from None
        self._header = header
        return message
