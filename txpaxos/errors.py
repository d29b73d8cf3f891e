"""Every error that txpaxos raises on purpose. Each message is one line: what is wrong, and what to do."""

from __future__ import annotations


class PaxosError(Exception):
    """The root of all errors below."""


class ConfigError(PaxosError):
    """The cluster file, an option or a name does not fit. Nothing was started or changed."""


class CodecError(PaxosError):
    """Bytes that are no message of this cluster. The one error that decoding raises, whatever a stranger sends."""


class StoreError(PaxosError):
    """The data folder cannot be used: it belongs to another node, is damaged, locked, unwritable or full.

    After a failed save it is final: the node must stop, since what the disk holds is no longer known."""


class ValueTooLarge(PaxosError):
    """A command or a value is over the limit. It was not proposed; send a smaller one."""


class Overloaded(PaxosError):
    """Too much is waiting already. The command was not taken; send it again later."""


class NoQuorum(PaxosError):
    """No majority of the nodes answered in time."""


class OutcomeUnknown(PaxosError):
    """The command may have been applied or not. Sending it again with the same session and sequence is safe."""


class NodeStopped(OutcomeUnknown):
    """The node stopped before it had the outcome. Another node may have it."""


class CommandFailed(PaxosError):
    """``apply`` raised for this command. It did so on every node alike; the command counts as applied."""
