"""All lessons, in the order in which to take them."""

from __future__ import annotations

from txpaxos.play import of_the_log, one_decree

LESSONS = (*one_decree.LESSONS, *of_the_log.LESSONS)
