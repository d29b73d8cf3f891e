"""Calls of those hooks whose exceptions concern only the application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from txpaxos.log_lines import LineLimiter, for_log

log = Logger()


class Hooks:
    """Calls hooks and watchers. Their exceptions are logged, a few times a minute, and otherwise ignored.

    :param lines: limits the rate of lines in the log.
    """

    def __init__(self, lines: LineLimiter) -> None:
        self._lines = lines

    def call(self, hook: Callable[..., None], *args: Any) -> None:
        """Call ``hook`` with ``args``.

        :raises KeyboardInterrupt: if the hook does, since that concerns the process and not the application.
        """
        try:
            hook(*args)
        except KeyboardInterrupt:
            raise
        except BaseException:
            name = getattr(hook, "__name__", repr(hook))
            more = self._lines.admits(f"{name} raised")
            if more is not None:
                log.failure("{hook} raised{more}", for_log(), hook=name, more=more, event="hook_raised")
