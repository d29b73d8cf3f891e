"""``txpaxos explain``: on real nodes, over the loss of a leader, and with wrong arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from test.helpers.cli_nodes import Nodes, running, txpaxos
from txpaxos.cli.explain import command

pytestmark = pytest.mark.timeout(120)


def explained(nodes: Nodes, *options: str) -> dict[str, Any]:
    done = txpaxos("explain", *options, "--json", folder=nodes.folder)
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def last_command(nodes: Nodes) -> tuple[int, dict[str, Any]]:
    """The last slot with a command of the application, and what is told of it."""
    status = json.loads(txpaxos("status", "--json", folder=nodes.folder).stdout)
    slot = max(one["applied_through"] for one in status["nodes"].values())
    while not (told := explained(nodes, str(slot)))["value"]["commands_total"]:
        slot -= 1
    return slot, told


def test_a_command_over_the_loss_of_a_leader(tmp_path: Path) -> None:
    with running(tmp_path, "a", "b", "c") as nodes:
        assert txpaxos("submit", "+5", folder=tmp_path).returncode == 0
        slot, told = last_command(nodes)
        leader = told["chosen_in"].partition(".")[2]
        assert leader in told["voters"]
        assert told["value"]["commands_total"] == 1
        assert any("It was free to" in reason for reason in told["reasons"])
        facts = [(fact["node"], fact["what"]) for fact in told["facts"]]
        assert facts.index((leader, "proposed")) < facts.index((leader, "heard vote")) < facts.index((leader, "chosen"))
        (sent,) = told["value"]["commands"]
        assert explained(nodes, "--command", f"{sent['session']}:{sent['sequence']}")["slot"] == slot
        assert txpaxos("ask", "owner", "ann", folder=tmp_path).returncode == 0
        decided = explained(nodes, "--register", "owner")
        assert [one["register"] for one in decided["value"]["commands"]][-1] == "owner"
        assert set(explained(nodes, "--ballot", told["chosen_in"])["nodes"]) == {"a", "b", "c"}
        nodes.kill(leader)
        nodes.wait_for_leader()
        after = explained(nodes, str(slot))
        assert after["nodes"][leader] is None
        assert leader not in {fact["node"] for fact in after["facts"]}
        words = txpaxos("explain", str(slot), "--svg", "slot.svg", "--shiviz", "slot.log", folder=tmp_path)
        assert f"Slot {slot} holds 1 command".encode() in words.stdout
        assert ElementTree.parse(tmp_path / "slot.svg").getroot().tag.endswith("svg")
        assert (tmp_path / "slot.log").read_text()
        unused = txpaxos("explain", "999999", folder=tmp_path)
        assert unused.returncode == 1
        assert b"No node that was asked remembers slot 999999" in unused.stdout
        nothing = txpaxos("explain", "--register", "nowhere", folder=tmp_path)
        assert (nothing.returncode, nothing.stdout) == (
            1,
            b"No node finds the register 'nowhere' in the last slots of its log.\n",
        )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give a slot, or one of --ballot, --command and --register"),
        (("1", "--ballot", "3.a"), "give a slot, or one of"),
        (("0",), "0 is not in the range"),
        (("x",), "'x' is not a valid integer range"),
        (("--ballot", "a"), "'a' is no ballot: write its round, a dot and its node, as 3.a"),
        (("--command", "zz:1"), "write the session in hexadecimal digits"),
        (("--command", "00"), "write the session in hexadecimal digits"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: tuple[str, ...], says: str) -> None:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert says in result.output.splitlines()[-1]


def test_without_a_cluster_it_is_one_line(tmp_path: Path) -> None:
    done = txpaxos("explain", "1", "--timeout", "0.2", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
    as_json = txpaxos("explain", "1", "--timeout", "0.2", "--json", folder=tmp_path)
    assert "error" in json.loads(as_json.stdout)
