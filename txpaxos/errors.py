"""Every error that txpaxos raises on purpose. The message of each is one line: what is wrong, and what to do."""

from __future__ import annotations


class PaxosError(Exception):
    """The base class of all errors of txpaxos."""


class ConfigError(PaxosError):
    """The cluster file, an option or a name is wrong. Nothing was started or changed."""


class CodecError(PaxosError):
    """Bytes that are no message of this cluster. Decoding raises no other error, whatever the bytes are."""


class OtherCluster(CodecError):
    """A message of a cluster with another name."""

    def __init__(self, line: str = "message of another cluster: compare the cluster names") -> None:
        super().__init__(line)


class OtherMembers(CodecError):
    """A message from a node whose cluster file has the same cluster name and other nodes.

    :ivar sender: the sender's name, from the header."""

    def __init__(self, sender: str) -> None:
        super().__init__(f"node '{sender}' there has other nodes in its cluster file: compare the cluster files")
        self.sender = sender


class UnknownVersion(CodecError):
    """A value of the log that another release has encoded. Run one release everywhere."""


class StoreError(PaxosError):
    """The data folder cannot be used: it belongs to another node, or is damaged, locked, read-only or full.

    The error of a failed save is final. The node must stop, since what the disk holds is no longer known.

    :ivar path: the damaged file, if a file is damaged; else empty.
    :ivar offset: where in that file the damage was found, in bytes."""

    def __init__(self, line: str, path: str = "", offset: int = 0) -> None:
        super().__init__(line)
        self.path = path
        self.offset = offset


class RecordingError(PaxosError):
    """A recording cannot be read: the folder has none, or a file is damaged, or of another format or release. Reading
    raises no other error, whatever the bytes are.

    :ivar path: the file.
    :ivar offset: where in that file the fault was found, in bytes."""

    def __init__(self, line: str, path: str = "", offset: int = 0) -> None:
        super().__init__(line)
        self.path = path
        self.offset = offset


class ApplicationLost(PaxosError):
    """This process could not apply a chosen command: it ran out of memory, or was interrupted. What ``apply`` had
    changed by then is unknown, so the node stops. After a restart it resumes from its snapshot and its log."""


class ValueTooLarge(PaxosError):
    """A command, a query or a value is over the limit. It was not proposed. Send a smaller one."""


class Overloaded(PaxosError):
    """Too many commands are waiting already. This command was not taken and will never be applied. Send it again later,
    and fewer commands at a time. Other commands are not affected."""


class NotAllowed(PaxosError):
    """This client has no right to what it asked for, or the nodes do not take what it shows of itself: its certificate
    or its token. Nothing was changed. The text says what is the matter, and what to do."""


class NotChosen(PaxosError):
    """The command was not chosen and will never be: it was not sent before its deadline, or before the client was
    closed. It had no effect. It is safe to send it again, as a new command."""


class RemovedFromCluster(StoreError):
    """This node was removed from the cluster, so it stops, and its data folder cannot be used again. Nothing is lost: a
    majority of the members has on disk all that was chosen."""


class MembersRefused(PaxosError):
    """The members were not changed: the change is none that can be made now, or would cost the quorum. The text says
    why, and what to do."""


class NotTheLeader(MembersRefused):
    """The members were not changed, since the node that was asked does not lead, or has handed over the lead for this
    change. It is safe to ask the leader."""


class NoQuorum(PaxosError):
    """No majority of the nodes answered in time. The request changes nothing, so it is safe to send again. First check
    that enough nodes run and reach each other."""


class OutcomeUnknown(PaxosError):
    """The command may have been applied, or may be applied later, or never. Sending it again as a new command may apply
    it twice. First read whether it had its effect, or design commands so that applying one twice does no harm.

    A client sends a command again by itself, with the same session and sequence, which is safe. This error says that it
    has stopped doing so."""


class NodeStopped(OutcomeUnknown):
    """The node stopped before it had the outcome. Another node may have it; a client asks another node by itself."""


class SessionExpired(OutcomeUnknown):
    """The cluster has forgotten the session, since many other sessions were used after it. The command was not applied
    now, but it may have been applied before. Read first whether it had its effect. A client begins a new session by
    itself, so later commands are not affected."""


class BackupOutdated(PaxosError):
    """The node no longer has what a backup needs: it has taken newer snapshots meanwhile. Nothing was changed. Begin
    the backup anew."""


class NotHandedOver(PaxosError):
    """The lead was not handed over, for the reason that the error gives. No command is lost by that: the leader leads
    on, or the cluster has elected another one. Try again, or name another node."""


class CommandFailed(PaxosError):
    """``apply`` raised an exception for this command, on every node in the same way. The command counts as applied. If
    it is sent again, that is a new command."""


class CallRefused(PaxosError):
    """Bytes that are no call of a typed service: the caller has another release of the service, or is no client of it.
    Nothing was called and nothing was changed. The caller is told by :class:`CommandFailed` or :class:`QueryFailed`."""


class WatchBehind(PaxosError):
    """Some of the changes that the caller of ``each_change`` has not seen yet are not kept any more. The text says why.
    None was left out silently. Begin anew, from the answer that the query has now."""


class QueryFailed(PaxosError):
    """``query`` raised an exception, or returned a result that cannot be encoded. Nothing was changed. The same query
    may succeed later, when the state has changed."""


def error_name(error: PaxosError) -> str:
    """The name by which clients and metrics know ``error``: that of its class, or of the nearest class above it that is
    one of this module. Applications, and parts of a node, have classes of their own, which no client knows."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == __name__)
