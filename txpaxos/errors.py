"""Every error that txpaxos raises on purpose. Each message is one line: what is wrong, and what to do."""

from __future__ import annotations


class PaxosError(Exception):
    """The root of all errors below."""


class ConfigError(PaxosError):
    """The cluster file, an option or a name does not fit. Nothing was started or changed."""


class CodecError(PaxosError):
    """Bytes that are no message of this cluster. The one error that decoding raises, whatever a stranger sends."""


class OtherMembers(CodecError):
    """A message of a node whose cluster file has the same cluster name and other nodes.

    :ivar sender: the node it says it comes from."""

    def __init__(self, sender: str) -> None:
        super().__init__(f"node '{sender}' there has other nodes in its cluster file: compare the cluster files")
        self.sender = sender


class UnknownVersion(CodecError):
    """A value of the log that a newer or older release has made. Run one release everywhere."""


class StoreError(PaxosError):
    """The data folder cannot be used: it belongs to another node, is damaged, locked, unwritable or full.

    After a failed save it is final: the node must stop, since what the disk holds is no longer known."""


class ApplicationLost(PaxosError):
    """This process could not apply a command that was chosen: it ran out of memory, or was interrupted. Nobody knows
    what ``apply`` had changed by then, so the node stops. Started again, it goes on from its snapshot and its log."""


class ValueTooLarge(PaxosError):
    """A command, query or value is over the limit. It was not proposed; send a smaller one."""


class Overloaded(PaxosError):
    """Too much is waiting already. The command was not taken and never will be: send it again, but later, and with
    fewer others at a time. Nothing else of yours is affected."""


class NotChosen(PaxosError):
    """The command was not chosen and never will be: it left nobody's hands before its deadline, or before the client
    was closed. It had no effect. Safe to send again, as a new command."""


class NoQuorum(PaxosError):
    """No majority of the nodes answered in time. The request changes nothing, so it is safe to send again; see first
    whether enough nodes are up and reach each other."""


class OutcomeUnknown(PaxosError):
    """The command may have been applied or not, or may be yet. Sending it again as a new command may apply it twice:
    read first whether it had its effect, or make commands of which a second application does no harm.

    A client sends again by itself, with the same session and sequence, which is safe; this error says that it has
    stopped doing so."""


class NodeStopped(OutcomeUnknown):
    """The node stopped before it had the outcome. Another node may have it: a client asks the next one by itself."""


class SessionExpired(OutcomeUnknown):
    """The session was forgotten: so many others were used since that its turn had come. The command was not applied
    now; whether it was before that, nobody knows any more. Read first whether it had its effect. A client goes on
    with a new session by itself; later commands are not affected."""


class CommandFailed(PaxosError):
    """``apply`` raised for this command. It did so on every node alike; the command counts as applied. Sending it again
    is a new command."""


class QueryFailed(PaxosError):
    """``query`` raised, or returned what cannot be sent. Nothing was changed; the same query may go well later, if the
    state has changed."""
