"""How many commands may wait at one node, how big a batch is, and how often commands are forwarded."""

from __future__ import annotations

import attrs
from attrs.validators import ge, le

from txpaxos.wire.commands import COMMAND_BYTES_MAX, RUNS_MAX


@attrs.frozen
class CommandLimits:
    """Limits of the queues that commands wait in on their way into the log.

    :ivar command_bytes_max: bytes of one command.
    :ivar batch_bytes: bytes of commands in one value, beyond the first run.
    :ivar batch_commands: commands in one value, beyond the first run.
    :ivar waiting_commands_max: commands that wait at one node, before it says Overloaded.
    :ivar waiting_bytes_max: bytes of commands that wait at one node.
    :ivar forward_seconds: until a forwarded command without an outcome is forwarded again; doubles with each attempt.
    :ivar forward_seconds_max: the longest that ``forward_seconds`` becomes by doubling.
    :ivar forward_bytes_per_second: a big command is given the time on top that it takes at this speed.
    """

    command_bytes_max: int = COMMAND_BYTES_MAX
    batch_bytes: int = 2**19
    batch_commands: int = attrs.field(default=1024, validator=[ge(1), le(RUNS_MAX - 1)])
    waiting_commands_max: int = 2**16
    waiting_bytes_max: int = 2**27
    forward_seconds: float = 0.25
    forward_seconds_max: float = 2.0
    forward_bytes_per_second: float = 20e6

    def allow_waiting(self, commands: int, size_bytes: int) -> bool:
        """Whether so many commands, of so many bytes in all, may wait in one queue."""
        return commands <= self.waiting_commands_max and size_bytes <= self.waiting_bytes_max
