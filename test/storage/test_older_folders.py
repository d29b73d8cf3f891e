"""A data folder that an earlier state of the project wrote is opened, and its node resumes from it.

Each archive in ``folders/`` holds a folder of node ``a`` of the cluster ``test``: a counter to which 1 to 100 were
added, and the register ``king``. It was made on simulated time, with segments of 4 KiB and a snapshot every 2,000 bytes
of log. A folder is added whenever the format on disk has changed; none is ever replaced.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from random import Random

import pytest

from test.helpers.fakes import Reactor, RecordingTransport, cluster_of, node_of, outcome_of
from txpaxos.counter import Counter
from txpaxos.node.snapshots.taking import Policy
from txpaxos.storage.executor import execute_now
from txpaxos.storage.store import DiskStore

ARCHIVES = sorted((Path(__file__).parent / "folders").glob("*.tar.xz"))


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name)
def test_a_node_resumes_from_an_older_folder(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as folders:
        folders.extractall(tmp_path, filter="data")
    folder = tmp_path / "a"
    folder.chmod(0o700)
    for start in range(3):
        store = DiskStore(folder, "test", "a", sync_in_thread=False, execute=execute_now, segment_bytes=4096)
        reactor, counter = Reactor(), Counter()
        node = node_of(counter, reactor, "a", cluster_of("a"), store, rng=Random(start), snapshot_policy=Policy(2000))
        assert 0 < counter.total <= 5050 + start  # That the last of it is chosen is found out again by the next leader.
        node.start(RecordingTransport())
        asked, added = outcome_of(node.ask("king", b"Mordred")), outcome_of(node.submit(b"1"))
        reactor.spend(5.0)
        assert (asked, added) == ([b"Arthur"], [5050 + start + 1])
        node.stop()
    assert not [*(folder / "subjects").glob("*/*")]  # What they held is in the log now.


def test_there_is_one() -> None:
    assert len(ARCHIVES) >= 1
