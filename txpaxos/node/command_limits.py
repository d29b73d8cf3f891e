"""How many commands may wait at one node, how big a batch is, and how often commands are forwarded."""

from __future__ import annotations

import attrs
from attrs.validators import ge, le

from txpaxos.wire.commands import COMMAND_BYTES_MAX, RUNS_MAX


@attrs.frozen
class CommandLimits:
    """Limits of the queues that commands wait in on their way into the log.

    :ivar command_bytes_max: the bytes of one command.
    :ivar batch_bytes: the bytes of commands in one value, not counting the first run.
    :ivar batch_commands: the commands in one value, not counting the first run.
    :ivar waiting_commands_max: the commands that may wait at one node. Beyond it callers get Overloaded.
    :ivar waiting_bytes_max: the bytes of commands that may wait at one node. Beyond it callers get Overloaded.
    :ivar forward_seconds: the time until a forwarded command without an outcome is forwarded again. It doubles with
        each attempt.
    :ivar forward_seconds_max: the longest time that doubling leads to.
    :ivar forward_bytes_per_second: the speed at which a big command is assumed to travel. That time is added.
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
        """Whether ``commands`` commands, of ``size_bytes`` bytes in all, may wait in one queue."""
        return commands <= self.waiting_commands_max and size_bytes <= self.waiting_bytes_max
