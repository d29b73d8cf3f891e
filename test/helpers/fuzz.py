"""How many hostile inputs the tests marked ``fuzz`` try: few by default, ``TXPAXOS_FUZZ`` each with ``make fuzz``."""

from __future__ import annotations

import gc
import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

INPUTS = int(os.environ.get("TXPAXOS_FUZZ", 10_000))
SEED = int(os.environ.get("TXPAXOS_FUZZ_SEED", 0))
"""Another number has the fuzz of TLS send other bytes."""
KEPT_BYTES_MAX = 100_000


@contextmanager
def nothing_kept() -> Iterator[None]:
    """Memory allocated within the block must be freed at its end, apart from some caches of the language."""
    tracemalloc.start()
    try:
        yield
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < KEPT_BYTES_MAX, f"{kept} bytes are kept"
