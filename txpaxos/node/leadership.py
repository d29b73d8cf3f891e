"""Notices of leadership: to the application, the callers and the log of a node."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from txpaxos.application import Application
from txpaxos.core.messages import NodeId
from txpaxos.core.ready import LeadershipAcquired, LeadershipChanged, LeadershipFact, LeadershipLost
from txpaxos.log_lines import LineLimiter, printable
from txpaxos.node.hooks import Hooks
from txpaxos.node.submissions import Submissions


class LeadershipNews:
    """Reports changes of the leader to the queues of commands, the hooks, the watchers and the log.

    :param name: this node's id.
    :param lines: limits the rate of lines in the log.
    :ivar leads_since: when this node became the leader, in monotonic seconds; ``None`` while it does not lead.
    """

    log = Logger()

    def __init__(
        self, name: NodeId, application: Application, submissions: Submissions, hooks: Hooks, lines: LineLimiter
    ) -> None:
        self.leads_since: float | None = None
        self._name = name
        self._application = application
        self._submissions = submissions
        self._hooks = hooks
        self._lines = lines
        self._watchers: list[Callable[[], None]] = []

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` when the leader has changed, or anything else that decides which node clients should use."""
        self._watchers.append(watcher)

    def tell_watchers(self) -> None:
        """Call all watchers."""
        for watcher in list(self._watchers):
            self._hooks.call(watcher)

    def tell(self, fact: LeadershipFact, now: float) -> None:
        """Report one fact. Facts must come in the order in which the core found them."""
        match fact:
            case LeadershipAcquired():
                line = "node {node} leads with ballot {ballot}{more}"
                self._log(line, event="leads", ballot=str(fact.ballot))
                self.leads_since = now
                self._submissions.become_leader()
                self._hooks.call(self._application.leadership_acquired)
            case LeadershipLost():
                line = "node {node} no longer leads with {ballot}{more}"
                self._log(line, event="no_longer_leads", ballot=str(fact.ballot))
                self.leads_since = None
                self._submissions.become_follower()
                self._hooks.call(self._application.leadership_lost)
            case LeadershipChanged():
                if fact.current != self._name:  # It was logged already that this node leads.
                    said = "knows no leader" if fact.current is None else f"follows {printable(fact.current)}"
                    previous = printable(fact.previous or "none")
                    line = "node {node} {said} (before: {previous}){more}"
                    leader = printable(fact.current or "none")
                    self._log(line, event="follows", said=said, leader=leader, previous=previous)
                if not self._submissions.is_leader:
                    self._submissions.become_follower()
                self._hooks.call(self._application.leadership_changed, fact.previous, fact.current)
                self.tell_watchers()

    def _log(self, line: str, *, event: str, **words: str) -> None:
        more = self._lines.admits(event)
        if more is not None:
            self.log.info(line, node=self._name, more=more, event=event, **words)
