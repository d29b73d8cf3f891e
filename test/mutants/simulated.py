"""Run the simulator over seeds in this process, for a limited time, and print what it found as one line of JSON.

Runs inside the tree of a mutant. Whatever goes wrong counts as found: a broken rule, an exception out of the code
under test, a run that does not end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import signal
import time
from collections.abc import Iterator
from typing import Any

from twisted.logger import globalLogBeginner

from test.mutants.seeds import CHANGES_EVERY, KEYS_FROM, NODES
from txpaxos.core.messages import NodeId, Slot
from txpaxos.counter import Counter
from txpaxos.testing.simulator.simulation import simulate

FAULTY_SECONDS = 6.0
SEED_CPU_SECONDS_MAX = 120.0
MEMORY_BYTES_MAX = 2**31


ENTRIES = 40
ENTRY_BYTES = 2048
"""Together more than one message between nodes holds, or one piece of a snapshot."""


class TouchyLedger(Counter):
    """A total, and the last entry of each of some accounts.

    Its snapshot is produced entry by entry, and is big enough to be sent in several parts. Its notification hooks
    raise, which must concern no other part.
    """

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[int, bytes] = {}

    def apply(self, slot: Slot, command: bytes) -> int:
        """Add ``command`` to the total, and note it."""
        total = super().apply(slot, command)
        self.entries[slot % ENTRIES] = b"%d" % total
        return total

    def snapshot(self) -> Iterator[bytes]:
        """The total, then the entries."""
        return _told(self.total, sorted(self.entries.items()))

    def restore(self, chunks: Iterator[bytes]) -> None:
        """Take them on."""
        self.total = int(next(chunks))
        self.entries = {int(key): entry for key, _, entry in (chunk.rstrip().partition(b"=") for chunk in chunks)}

    def value_chosen(self, subject: str, value: bytes) -> None:
        """Raise."""
        raise RuntimeError(subject)

    def leadership_changed(self, previous: NodeId | None, current: NodeId | None) -> None:
        """Raise."""
        raise RuntimeError(current)


def _told(total: int, entries: list[tuple[int, bytes]]) -> Iterator[bytes]:
    yield b"%d" % total
    for key, entry in entries:
        yield (b"%d=%s" % (key, entry)).ljust(ENTRY_BYTES)


class Endless(BaseException):
    """A seed took too long."""


def run_seed(seed: int) -> tuple[str, str] | None:
    """What went wrong with one seed, in a few words, and in more; ``None`` if nothing did."""
    signal.setitimer(signal.ITIMER_VIRTUAL, SEED_CPU_SECONDS_MAX)
    try:
        nodes, changes = NODES[seed % len(NODES)], seed % CHANGES_EVERY == 1
        keys = seed >= KEYS_FROM
        result = simulate(seed, FAULTY_SECONDS, nodes, TouchyLedger, changes=changes, keys=keys)
    except Endless:
        return "does not end", ""
    except Exception as error:
        return f"raised {type(error).__name__}", repr(error)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return None if result.violation is None else (result.violation.rule, str(result.violation))


def search(first_seed: int, cpu_seconds: float) -> dict[str, Any]:
    """Try seeds from ``first_seed`` on until one goes wrong or the time is up.

    :returns: the last ``seed``, the ``rule`` it broke (``None`` if it did not), and ``detail``.
    """
    for seed in itertools.count(first_seed):
        found = run_seed(seed)
        if found is not None:
            return {"seed": seed, "rule": found[0], "detail": found[1]}
        if time.process_time() > cpu_seconds:
            break
    return {"seed": seed, "rule": None, "detail": ""}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--cpu-seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))

    def too_long(_: int, __: object) -> None:
        raise Endless

    signal.signal(signal.SIGVTALRM, too_long)
    print(json.dumps(search(arguments.first_seed, arguments.cpu_seconds)))


if __name__ == "__main__":
    main()
