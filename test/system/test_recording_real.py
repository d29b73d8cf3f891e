"""Real nodes that record, are killed and start again: their recordings replay."""

from __future__ import annotations

import json
import subprocess
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]

from test.helpers.cli_nodes import TXPAXOS
from test.helpers.processes import NODES, STEP_SECONDS_MAX, Counting, has_caught_up, rest, running
from txpaxos.cli.local_cluster import LocalCluster
from txpaxos.recording.events import ClocksRead, CoreCalled, ReadyReleased, RunEnded, SegmentBegun, SlotsApplied
from txpaxos.recording.reading import read_recording
from txpaxos.recording.replaying import Replayer

ENOUGH = 30

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def reactor() -> Any:
    from twisted.internet import reactor

    return reactor


def replay(folder: Path, *options: str) -> list[dict[str, Any]]:
    """What ``txpaxos replay --json`` finds in ``folder``."""
    done = subprocess.run(
        [*TXPAXOS, "replay", str(folder), "--json", *options], capture_output=True, text=True, timeout=60
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.returncode == (not all(one["same"] for one in found)), done
    return found


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
@pytest.mark.parametrize("redact", [False, True])
async def test_nodes_that_are_killed_and_start_again(reactor: Any, tmp_path: Path, redact: bool) -> None:
    recording = tmp_path / "recording"
    options = ["--record", str(recording), "--snapshot-log-bytes", "4096", *(["--record-redact"] if redact else [])]
    nodes = LocalCluster(reactor, "test", NODES, tmp_path, options)
    async with running(nodes):
        with closing(Counting(reactor, nodes.cluster)) as counting:
            for node in NODES:
                await counting.more(ENOUGH)
                await nodes.kill(node)
                await counting.more(ENOUGH)
                nodes.start(node)
                await nodes.wait_until(partial(has_caught_up, node=node), f"{node}'s catch-up", STEP_SECONDS_MAX)
                assert all(one["same"] for one in replay(recording))  # While they run.
            await counting.more(ENOUGH)
    found = replay(recording)
    assert [one["node"] for one in found] == [*NODES]
    for one in found:
        assert one["same"], one
        assert one["runs"] == 2
        assert one["inputs"] > one["readys"] > ENOUGH
        events = list(read_recording(str(recording), one["node"]))
        assert [event.run for event in events if isinstance(event, SegmentBegun)] == [1, 2]
        kinds = {type(event) for event in events}
        assert kinds >= {CoreCalled, ReadyReleased, SlotsApplied, ClocksRead, RunEnded}
    assert {path.stat().st_mode & 0o777 for path in recording.rglob("*.recording")} == {0o600}


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_folder_that_cannot_be_written_costs_the_recording_alone(reactor: Any, tmp_path: Path) -> None:
    (tmp_path / "recording").write_text("no folder")
    nodes = LocalCluster(reactor, "test", NODES, tmp_path, ["--record", str(tmp_path / "recording")])
    async with running(nodes):
        with closing(Counting(reactor, nodes.cluster)) as counting:
            await counting.more(ENOUGH)
    for node in NODES:
        lines = [line for line in nodes.log(node).read_text().splitlines() if "recording of node" in line]
        assert len(lines) == 1
        assert "ends, and the node goes on: Not a directory" in lines[0]


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_recording_tells_what_the_node_had_applied(reactor: Any, tmp_path: Path) -> None:
    nodes = LocalCluster(reactor, "test", NODES, tmp_path, ["--record", str(tmp_path / "recording")])
    async with running(nodes):
        with closing(Counting(reactor, nodes.cluster)) as counting:
            await counting.more(ENOUGH)
        await rest(nodes)
    for node in NODES:
        applied, chosen = 0, 0
        for step in Replayer().steps(read_recording(str(tmp_path / "recording"), node)):
            if isinstance(step.event, SlotsApplied):
                applied = step.event.slot
            chosen = chosen if step.core is None else step.core.log.chosen_through
        assert applied == chosen > 0
