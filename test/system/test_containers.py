"""The files for containers are sound, and what they run is there. Where an image can be built, three nodes run."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from test import containers
from test.helpers.command_lines import check_options_of_paxos, check_txpaxos
from test.system.test_readme import ROOT
from txpaxos.cluster import Cluster
from txpaxos.node.hand_over import ANSWER_SECONDS, HAND_OVER_SECONDS
from txpaxos.server.served_node import STOP_SECONDS

yaml = pytest.importorskip("yaml", reason="pip install 'txpaxos[test]'")

DEPLOY = ROOT / "deploy"


def instructions() -> Iterator[tuple[str, str]]:
    """The instructions of the Containerfile."""
    text = re.sub(r"\\\n", " ", re.sub("^#.*\n", "", containers.CONTAINERFILE.read_text(), flags=re.MULTILINE))
    for line in filter(None, text.splitlines()):
        name, _, rest = line.partition(" ")
        yield name, rest.strip()


def instruction(name: str) -> str:
    """The last instruction of that name, which is the one that counts."""
    return [rest for one, rest in instructions() if one == name][-1]


@pytest.fixture
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def test_the_image_runs_a_node() -> None:
    program, *words = json.loads(instruction("ENTRYPOINT"))
    assert program == "twistd"
    at = words.index("paxos")
    assert words[:at] == ["-n", "--pidfile=", "--logfile=-"]
    check_options_of_paxos([*words[at + 1 :], *json.loads(instruction("CMD"))])
    folder = words[words.index("--data-dir") + 1]
    assert os.path.dirname(folder) == instruction("VOLUME")  # It is made in there, and so belongs to the user.
    assert instruction("USER") == "txpaxos"
    assert f"--user-group --no-create-home --shell /usr/sbin/nologin {instruction('USER')}" in instruction("RUN")
    assert instruction("STOPSIGNAL") == "SIGTERM"


def test_the_image_knows_whether_its_node_is_well() -> None:
    options, _, command = instruction("HEALTHCHECK").partition(" CMD ")
    program, *arguments = json.loads(command)
    assert program == "txpaxos"
    check_txpaxos(*arguments)
    assert int(re.findall(r"--timeout=(\d+)s", options)[0]) > float(arguments[arguments.index("--timeout") + 1])


def test_what_is_built_is_there() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert [name for name in kept if not (ROOT / name).exists()] == []
    assert {"setup.py", "pyproject.toml", "README.rst", "txpaxos", "twisted"} <= {*kept}


def test_three_nodes_are_composed(compose: dict[str, Any]) -> None:
    members = Cluster.load(DEPLOY / "cluster.toml").members
    assert compose["services"].keys() == members.keys() == compose["volumes"].keys()
    for node, service in compose["services"].items():
        check_options_of_paxos(service["command"])
        assert service["command"][-2:] == ["--node", node]
        assert members[node].address.host == members[node].client.host == node
        places = dict(one.split(":")[:2] for one in service["volumes"])
        assert places[node] == instruction("VOLUME")
        (file,) = (one for one in places if one != node)
        assert (DEPLOY / file).is_file()
        assert places[file] in service["command"]
        seconds = float(service["stop_grace_period"].removesuffix("s"))
        assert seconds > HAND_OVER_SECONDS + ANSWER_SECONDS + STOP_SECONDS
        build = service["build"]
        assert (DEPLOY / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]) == containers.CONTAINERFILE
        assert {*service["networks"]} == compose["networks"].keys()


def test_ports_are_those_of_the_cluster_file() -> None:
    exposed = {int(one.partition("/")[0]) for one in instruction("EXPOSE").split()}
    members = Cluster.load(DEPLOY / "cluster.toml").members.values()
    assert exposed == {port for one in members for port in (one.address.port, one.client.port)}


@pytest.mark.timeout(900)
def test_three_nodes_in_containers(capsys: pytest.CaptureFixture[str]) -> None:
    """``TXPAXOS_CONTAINER_BASE`` names another image to build on than that of the Containerfile."""
    engine = containers.engine()
    if engine is None:
        pytest.skip("neither podman nor docker works here")
    base = os.environ.get("TXPAXOS_CONTAINER_BASE") or containers.default_base()
    if not containers.Containers(engine).has_image(base):
        pytest.skip(f"{base} is not here, and cannot be fetched")
    assert containers.main(["--base", base]) == 0, capsys.readouterr().err
    assert len(capsys.readouterr().out.splitlines()) >= 5


def test_what_does_not_work_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(containers, "engine", lambda: None)
    assert containers.main([]) == 2
    monkeypatch.setattr(containers, "engine", lambda: "false")
    assert containers.main(["--base", "x"]) == 2
    assert capsys.readouterr().err == "neither podman nor docker works here\nx is not here, and cannot be fetched\n"


def test_a_page_names_the_files() -> None:
    page = Path(ROOT / "docs" / "deploying.rst").read_text()
    for name in ("deploy/Containerfile", "deploy/compose.yaml"):
        assert name in page
