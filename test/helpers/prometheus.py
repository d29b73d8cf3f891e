"""A real Prometheus that watches nodes, and what it says of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet import reactor as installed_reactor
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater

from test.helpers.fakes import free_ports
from test.helpers.status_pages import talk

reactor: Any = installed_reactor
PROMETHEUS = shutil.which("prometheus")
SECONDS_MAX = 60.0
JOB = "txpaxos-test"
OF_THE_MACHINE = {"TxpaxosSlowSyncs", "TxpaxosSlowCommands", "TxpaxosReactorStalls", "TxpaxosMemberLags"}
"""The alerts of a machine that is slow, as one that runs tests may be."""


class Prometheus:
    """Prometheus at a port of its own, as a process that ends with the test.

    :param rules: the rules, with every ``for`` of theirs shortened to a second: ``promtool`` tests the true ones.
    :param targets: the status addresses of the nodes.
    :param scrape: more lines of how they are scraped.
    """

    def __init__(self, folder: Path, rules: Path, targets: Mapping[str, str], scrape: str = "") -> None:
        assert PROMETHEUS is not None
        (folder / "rules.yml").write_text(re.sub(r"for: \w+", "for: 1s", rules.read_text()))
        listed = "".join(
            f'      - {{targets: ["{address}"], labels: {{node: {name}}}}}\n' for name, address in targets.items()
        )
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}\n"
            f"rule_files: [rules.yml]\nscrape_configs:\n  - job_name: {JOB}\n{scrape}    static_configs:\n{listed}"
        )
        (self.port,) = free_ports(1)
        self._folder = folder
        options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        options += [f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"]
        with (folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen([PROMETHEUS, *options], cwd=folder, stdout=log, stderr=log)

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    async def ask(self, path: str) -> Any:
        """What its API says; ``None`` if it does not answer yet."""
        request = f"GET /api/v1/{path} HTTP/1.0\r\nhost: localhost\r\n\r\n"
        try:
            answer = await talk(self.port, request.encode()).closed.addTimeout(10.0, reactor)
        except ConnectError:
            return None
        return answer.json["data"] if answer.status == 200 else None

    async def value(self, expression: str) -> dict[str, float]:
        """The value of an expression for each node; ``""`` where it is of none."""
        data = await self.ask(f"query?query={quote(expression)}")
        return {one["metric"].get("node", ""): float(one["value"][1]) for one in (data or {"result": []})["result"]}

    async def firing(self) -> set[str]:
        """The alerts that fire, with the node that each is about; not those of a slow machine."""
        data = await self.ask("alerts")
        return {
            " ".join(filter(None, (one["labels"]["alertname"], one["labels"].get("node"))))
            for one in (data or {"alerts": []})["alerts"]
            if one["state"] == "firing" and one["labels"]["alertname"] not in OF_THE_MACHINE
        }

    async def until(self, ask: Callable[[], Any], is_right: Callable[[Any], bool]) -> Any:
        """Ask again and again until the answer is right."""
        give_up_at = reactor.seconds() + SECONDS_MAX
        while not is_right(answer := await ask()):
            log = (self._folder / "prometheus.log").read_text()
            assert reactor.seconds() < give_up_at, f"{json.dumps(answer, default=sorted)}\n{log}"
            await deferLater(reactor, 0.1)
        return answer


@asynccontextmanager
async def watching(
    folder: Path, rules: Path, targets: Mapping[str, str], scrape: str = ""
) -> AsyncIterator[Prometheus]:
    """A Prometheus that has asked each node."""
    folder.mkdir()
    prometheus = Prometheus(folder, rules, targets, scrape)
    try:
        await prometheus.until(lambda: prometheus.value("up"), lambda up: up.keys() == targets.keys())
        yield prometheus
    finally:
        prometheus.stop()
