"""``txpaxos play`` as a process of its own, and requests to it."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import attrs

from test.helpers.cli_nodes import TXPAXOS

JSON = {"Content-Type": "application/json"}


@attrs.frozen
class Answer:
    """An answer of the site. ``headers`` have lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@attrs.frozen
class PlaySite:
    """The site of a running ``txpaxos play``."""

    address: str
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        return urlsplit(self.address).port or 0

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own. ``Host`` is the site's, unless it is given."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def ask(self, **request: Any) -> Any:
        """Ask as the page does."""
        answer = self.request("POST", "/act", json.dumps(request).encode(), JSON)
        assert answer.status == 200, answer
        return answer.json


@contextmanager
def played(*options: str) -> Iterator[PlaySite]:
    """Run ``txpaxos play``, and end it as Ctrl-C does."""
    command = [*TXPAXOS, "play", "--no-browser", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("Paxos is at http://127.0.0.1:"), line + process.communicate()[1]
        yield PlaySite(line.split()[3], process)
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "txpaxos: interrupted\n")
