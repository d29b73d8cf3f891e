"""``--svg`` and ``--shiviz``: what breaks a rule, as a picture."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from test.testing.test_model import one_too_few
from txpaxos.cli import check as check_command
from txpaxos.cli import simulate as simulate_command
from txpaxos.core import essential
from txpaxos.drawing import SpaceTime, Step
from txpaxos.testing.checkers.checker import Violation
from txpaxos.testing.model import __main__ as model_command
from txpaxos.testing.simulator.simulation import SimulationResult

STORY = SpaceTime(("a", "b"), (Step("a", "sends", 0.0, "sent"), Step("b", "breaks a rule", 0.1, "broken", cause=0)))


def texts_of(picture: Path) -> str:
    root = ElementTree.fromstring(picture.read_text())
    return "\n".join(element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text"))


@pytest.fixture
def breaks_a_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    def simulate(seed: int, **_: Any) -> SimulationResult:
        return SimulationResult(seed, [], Violation("one value a slot", "two"), 1, 1.0, 1.0, 0, {}, STORY)

    monkeypatch.setattr(simulate_command, "simulate", simulate)


def run_simulate(*options: str) -> Result:
    return CliRunner().invoke(simulate_command.command, options)


@pytest.mark.usefixtures("breaks_a_rule")
def test_simulate_draws_a_violation(tmp_path: Path) -> None:
    result = run_simulate("--svg", f"{tmp_path}/a.svg", "--shiviz", f"{tmp_path}/a.log")
    assert result.exit_code == 1
    assert "b breaks a rule" in texts_of(tmp_path / "a.svg")
    assert (tmp_path / "a.log").read_text().splitlines()[-2:] == ['b {"a": 1, "b": 1}', "breaks a rule"]


@pytest.mark.usefixtures("breaks_a_rule")
def test_a_picture_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    result = run_simulate("--svg", f"{tmp_path}/missing/a.svg")
    assert "rule       one value a slot: two" in result.stdout
    assert "missing/a.svg cannot be written: No such file or directory" in result.output


@pytest.mark.usefixtures("breaks_a_rule")
def test_a_full_disk_leaves_the_picture_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: Path, text: str, encoding: str) -> None:
        self.write_bytes(b"a part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    picture = tmp_path / "a.svg"
    picture.write_text("drawn before")
    monkeypatch.setattr(Path, "write_text", write)
    assert "a.svg cannot be written: No space left on device" in run_simulate("--svg", str(picture)).output
    assert [one.name for one in tmp_path.iterdir()] == ["a.svg"]
    assert picture.read_text() == "drawn before"


@pytest.mark.usefixtures("breaks_a_rule")
def test_a_picture_goes_where_a_link_leads_and_to_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "b.svg").symlink_to("a.svg")
    run_simulate("--svg", str(tmp_path / "b.svg"))
    assert (tmp_path / "b.svg").is_symlink()
    assert "b breaks a rule" in texts_of(tmp_path / "a.svg")
    assert run_simulate("--svg", "/dev/null").exit_code == 1


def test_check_draws_what_cannot_be_explained(tmp_path: Path) -> None:
    lines = [
        '{"time": 0.1, "client": "a", "operation": 1, "type": "invoke", "input": ["write", 5]}',
        '{"time": 0.2, "client": "a", "operation": 1, "type": "ok", "output": null}',
        '{"time": 0.3, "client": "b", "operation": 1, "type": "invoke", "input": ["read"]}',
        '{"time": 0.4, "client": "b", "operation": 1, "type": "ok", "output": null}',
    ]
    (tmp_path / "history").write_text("\n".join(lines) + "\n")
    options = [f"{tmp_path}/history", "--model", "register", "--svg", f"{tmp_path}/a.svg"]
    result = CliRunner().invoke(check_command.command, options)
    assert result.exit_code == 1
    assert "b asks: read" in texts_of(tmp_path / "a.svg")
    assert "b read -> null" in texts_of(tmp_path / "a.svg")


def test_model_draws_its_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(essential, "quorum_size", one_too_few)
    result = CliRunner().invoke(model_command.main, ["essential", "--svg", f"{tmp_path}/drawn"])
    assert result.exit_code == 1
    told = texts_of(tmp_path / "drawn" / "essential.svg")
    assert "p starts a ballot" in told
    assert "taken for chosen: b'P' at slot 0; chosen is: nothing" in told
