"""The events that a node counts, beside the messages that its core drops. Each has a name and a sentence on it.

All parts of a node count in one :data:`Counts`, which ``txpaxos status`` shows.
"""

from __future__ import annotations

from collections import Counter
from enum import unique
from typing import NamedTuple, TypeAlias

from txpaxos.core.drops import Reason


@unique
class Count(Reason):
    """An event on the network, with peers or with clients, or the reason why a node did not accept a message."""

    # Datagrams.
    BAD_DATAGRAM = "A datagram was damaged, of another cluster or release, or no message at all."
    DATAGRAM_FROM_AN_UNKNOWN_ADDRESS = (
        "A datagram came from an address that is not its sender's in the cluster file. Compare the files; look for NAT."
    )
    DATAGRAM_NOT_SENT = "The system refused to send a datagram: a full buffer, or a network that is down."
    MESSAGE_OF_A_PEER_NOT_MET = (
        "A datagram came before the two nodes had a stream. A few are normal at the first start; if there are more,"
        " that node cannot be reached by TCP at its address."
    )
    REMOVAL_OF_A_MEMBER = (
        "A peer said that this node was removed, and the log of this node has a later entry that names it: a peer that"
        " lags behind, or a lie."
    )
    MESSAGE_OF_A_FORMER_PEER = (
        "A message came on the stream of a node that has just been removed from the cluster. It was dropped."
    )
    POSSIBLY_FORGED = (
        "A message that decides much came by a way on which it can be forged: not over a stream that this node opened,"
        " or, of a question, not over one that the asker opened. A few are normal while streams are made; if there are"
        " many, datagrams are forged. The kind of message follows the colon."
    )

    SEALED_DATAGRAM_WITHOUT_KEYS = "A datagram was sealed: keys are on at its sender, and off on this node."
    DATAGRAM_NOT_SEALED = (
        "A datagram was not sealed, while keys are on: they are off at its sender, or it is a stranger. It was dropped."
    )
    DATAGRAM_OF_AN_UNKNOWN_SESSION = (
        "A datagram was sealed with a secret that this node does not have. A few are normal after a start; if there are"
        " more, the two have no stream, or the datagram is forged or replayed."
    )
    DATAGRAM_REPLAYED = (
        "A sealed datagram came a second time, or very late. It was dropped. A few are normal where a network"
        " duplicates, or where a peer has several addresses."
    )
    DATAGRAM_FORGED = "A sealed datagram was forged, or damaged on the way. It was dropped."
    DATAGRAM_OF_ANOTHER_NODE = "A peer sealed a datagram that names another node as its sender. It was dropped."
    DATAGRAM_WITHOUT_SECRET = (
        "A datagram was not sent, since there is no stream to its receiver yet whose secret would seal it. It is sent"
        " again. A few are normal."
    )

    # Streams between nodes.
    PEER_NOT_BELIEVED = (
        "A stream ended because of keys: a certificate was not valid, or the other side spoke no TLS, or did not finish"
        " the handshake. The log says which it was."
    )
    BAD_FRAME = (
        "A frame on a stream was damaged, of another cluster or release, or of a node with keys while this one has"
        " none. The connection was closed."
    )
    STREAM_REFUSED = "A peer could not be reached by TCP."
    STREAM_FULL = "A peer does not read what it is sent, or asks for more than it reads. The message was not sent."
    TOO_BIG_FOR_A_STREAM = "A message of more than 64 MiB, which no node takes, was not sent: a bug."
    TOO_MANY_UNAUTHENTICATED_STREAMS = (
        "64 connections had not shown yet that they come from a member. The oldest was closed, of the address that had"
        " most of them."
    )

    # Between nodes.
    PEER_WITH_ANOTHER_FOLDER = (
        "A node came back with a data folder that is not the one it had before. Give it back its own, or see"
        ' "Replacing a node".'
    )
    FORWARDED_TO_A_FOLLOWER = (
        "Commands or keep-alives were forwarded to this node after it had stopped leading. They are sent again."
    )
    DROPPED_WHILE_DISK_BUSY = "A peer's message was dropped because this node's disk does not keep up."
    DROPPED_WHILE_DISK_HUNG = (
        'A peer\'s message was dropped while the disk hung. The peer sends it again. See "A disk that hangs".'
    )
    REGISTERS_ASKED_OF_A_NEWCOMER = (
        "A node that seals the registers asked this node, which does not vote yet and so has decided none."
    )
    REGISTERS_NOT_AWAITED = "An answer came late, or a second time, to a node that seals the registers."

    # Snapshots.
    NO_SNAPSHOT_TO_SEND = "A node that is behind asked for a snapshot, and this node has none."
    UNREADABLE_SNAPSHOT = (
        "The disk does not give back this node's newest snapshot. Check the disk; a start would say more."
    )
    SNAPSHOT_PART_NOT_AWAITED = (
        "A part of a snapshot came a second time or too late, or contradicts what is known of the snapshot."
    )
    STATES_DIFFER = (
        'The logs or states of members differed at a slot; the log says which. See "Diverged nodes". One difference may'
        " be counted more often, as more nodes tell what they have."
    )
    CONTRADICTED_SNAPSHOT = "A snapshot that came was not what other nodes have. It was not used."

    # Clients.
    BAD_REQUEST = "A client's request was damaged, of another cluster or release. The connection was closed."
    TOO_MANY_CLIENTS = (
        "As many clients are connected as may be; the log says how many when the node starts. An idle one was"
        " disconnected for the new one, or, if none was idle, the new one was refused."
    )
    IDLE_CLIENT_DISCONNECTED = "Nothing came from a client for 45 s, though it was asked. It was disconnected."
    SLOW_CLIENT_DISCONNECTED = (
        "More than 256 MiB of answers wait for clients. The one that has not read for the longest time was"
        " disconnected."
    )
    TOO_MANY_PARTIAL_REQUESTS = (
        "More than 256 MiB of unfinished requests have come. The connection that sent more of its own was closed."
    )
    CLIENT_SENT_AWAY_DISK_HANGS = (
        "The connection of a client was closed at its request, since the disk hangs. The client asks the next node."
    )
    CLIENT_SENT_AWAY_FOLDER_LOST = (
        "The connection of a client was closed at its request, since this node's folder was lost. The client asks the"
        ' next node. See "A new cluster, and an empty folder".'
    )

    CLIENT_NOT_AUTHENTICATED = (
        "A client did not show in time who it is, or showed a certificate or a token that does not count. It was"
        " disconnected; the log says why. Only when keys are on."
    )
    REQUEST_NOT_ALLOWED = (
        "A client asked for something that the cluster file gives it no right to. It was refused; the log says which."
        " Only when keys are on."
    )
    SESSION_OF_ANOTHER_CLIENT = (
        "A client sent a command in a session that is not its own. It was refused. Only when keys are on."
    )
    TOO_MANY_STRANGERS = (
        "256 connections, or a quarter of those that may be, had not shown yet who they are. One was closed, of the"
        " address that had most of them. Only when keys are on."
    )
    TOO_MANY_CONNECTIONS_OF_A_CLIENT = (
        "One client had half of all connections that may be. One more was refused. Only when keys are on."
    )

    # The status address.
    BAD_STATUS_REQUEST = (
        "A request at the status address was no HTTP, had a body or a long head, or asked for what is not there. It was"
        " refused."
    )
    SLOW_STATUS_CLIENT = (
        "A client at the status address took more than ten seconds to send its request, or to read the answer. It was"
        " disconnected."
    )
    TOO_MANY_STATUS_CONNECTIONS = (
        "64 connections were open at the status address. The oldest one without a request was closed for one more, or,"
        " if there was none, the new one."
    )


class Labelled(NamedTuple):
    """An event that is counted separately for each label.

    :ivar label: for a message that may be forged, its kind.
    """

    reason: Count
    label: str

    @property
    def metric_name(self) -> str:
        """The name of the event, a colon, and the label."""
        return f"{self.reason.metric_name}:{self.label}"


Counts: TypeAlias = Counter[Count | Labelled]
"""How often each event has happened since the node started."""
