"""Calling those hooks of an application whose exceptions concern nothing but the application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from txpaxos.log_lines import LineLimiter, for_log

log = Logger()


class Hooks:
    """Calls hooks and watchers. What they raise is logged, a few times a minute, and otherwise passed over.

    :param lines: admits a line of the log, or not.
    """

    def __init__(self, lines: LineLimiter) -> None:
        self._lines = lines

    def call(self, hook: Callable[..., None], *args: Any) -> None:
        """Call ``hook``.

        :raises KeyboardInterrupt: which is for the process, not for the application.
        """
        try:
            hook(*args)
        except KeyboardInterrupt:
            raise
        except BaseException:
            name = getattr(hook, "__name__", repr(hook))
            more = self._lines.admits(f"{name} raised")
            if more is not None:
                log.failure("{hook} raised{more}", for_log(), hook=name, more=more)
