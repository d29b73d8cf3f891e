"""The alerts and the dashboard: what they name is there, each alert says what to do, and Prometheus takes them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from test.helpers.fakes import ONE, NodeHarness
from txpaxos.metrics.collector import DESCRIPTIONS, NodeCollector
from txpaxos.metrics.meter import Meter

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "docs" / "monitoring" / "alerts.yml"
DASHBOARD = ROOT / "docs" / "monitoring" / "dashboard.json"
CASES = Path(__file__).parent / "alerts_test.yml"

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool")


def make_id(title: str) -> str:
    """The anchor of a section, as docutils makes it."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def expressions() -> dict[str, str]:
    """The expression of each alert, and of each panel, by their names."""
    alerts = re.findall(r"- alert: (\w+)\n +expr: (?:>\n((?: {10}.+\n)+)|(.+)\n)", ALERTS.read_text())
    found = {name: folded or plain for name, folded, plain in alerts}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        found |= {f"{panel['title']} {target['refId']}": target["expr"] for target in panel["targets"]}
    return found


@pytest.mark.parametrize(("name", "expression"), expressions().items())
def test_each_metric_exists(name: str, expression: str) -> None:
    used = {re.sub(r"_bucket$", "", metric) for metric in re.findall(r"\btxpaxos_\w+", expression)}
    assert used <= set(DESCRIPTIONS)
    assert used or "up{" in expression
    for metric in used:
        is_counter = metric.endswith("_total")
        assert is_counter == bool(re.search(rf"(rate|increase)\({metric}\{{", expression)) or "rate(" in expression
    assert ('job="$job"' in expression) != ('job=~"txpaxos.*"' in expression)


def test_what_is_compared_with_a_number_is_there_from_the_start() -> None:
    """A reason that is seen for the first time as 1 has not increased, for Prometheus."""
    node = NodeHarness("a", ONE).node
    text = NodeCollector(node, Meter(), lambda: {"clients": 0}, lambda: True).rendered().decode()
    reasons = {one for found in re.findall(r'reason=~?"([\w|]+)"', ALERTS.read_text()) for one in found.split("|")}
    assert reasons
    for reason in reasons:
        assert f'txpaxos_events_total{{reason="{reason}"}} 0.0' in text


def test_each_alert_says_what_to_do() -> None:
    text = ALERTS.read_text()
    places = re.findall(r"runbook: (docs/[\w.]+)#([\w-]+)", text)
    assert len(places) == text.count("- alert: ") == text.count("severity: ") == len({*places})
    for page, anchor in places:
        titles = re.findall(r"^(.+)\n([-~=])\2+$", (ROOT / page).read_text(), re.MULTILINE)
        assert anchor in {make_id(title) for title, _ in titles}
    written = {make_id(title) for title in re.findall(r"^(Alert: .+)\n~+$", (ROOT / page).read_text(), re.MULTILINE)}
    assert written == {anchor for _, anchor in places}
    assert set(re.findall(r"^``(Txpaxos\w+)``:", (ROOT / page).read_text(), re.MULTILINE)) == set(
        re.findall(r"- alert: (\w+)", text)
    )


def test_each_alert_has_a_case() -> None:
    cases = CASES.read_text()
    assert all(name in cases for name in re.findall(r"- alert: (\w+)", ALERTS.read_text()))


def test_the_dashboard_is_one() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert {one["name"] for one in dashboard["templating"]["list"]} == {"source", "job"}
    places: list[dict[str, Any]] = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells)), "panels lie on each other"
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)


@needs_promtool
def test_prometheus_takes_the_rules_and_each_fires_when_it_should(tmp_path: Path) -> None:
    for file in (ALERTS, CASES):
        shutil.copy(file, tmp_path)
    for command in (["check", "rules", ALERTS.name], ["test", "rules", CASES.name]):
        done = subprocess.run(["promtool", *command], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
