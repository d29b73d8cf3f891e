"""How a benchmark asks a process that it started: a line of JSON on its standard input, and a file for the answer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import attrs
import msgspec
from twisted.internet.task import deferLater

from bench.system import Load
from txpaxos.cli.local_cluster import ChildProcess
from txpaxos.cli.running import CommandError

POLL_SECONDS = 0.01
ANSWER_SECONDS_MAX = 60.0


@attrs.frozen
class Question:
    """What is asked.

    :ivar answer_file: where the answer goes: it appears there complete.
    """

    about: str
    answer_file: str
    load: Load | None = None


async def ask(reactor: Any, process: ChildProcess, folder: Path, about: str, load: Load | None = None) -> Any:
    """Ask a process.

    :param folder: for the answer.
    :returns: what it answers.
    :raises CommandError: if it ends instead, says what went wrong, or nothing for too long.
    """
    file = folder / f"answer-{process.pid}"
    question = Question(about, str(file), load)
    process.transport.write(msgspec.json.encode(question) + b"\n")
    allowed = ANSWER_SECONDS_MAX + (load.seconds + load.warm_up_seconds if load else 0.0)
    give_up_at = reactor.seconds() + allowed
    while not file.exists():
        if process.ended or reactor.seconds() > give_up_at:
            raise CommandError(f"process {process.pid} did not answer: see the logs in {folder}")
        await deferLater(reactor, POLL_SECONDS)
    said = json.loads(file.read_text())
    file.unlink()
    if isinstance(said, str):
        raise CommandError(said)
    return said


def answer(said: Any, question: Question) -> None:
    """Answer a question; with a string, that it went wrong and why."""
    incomplete = f"{question.answer_file}.incomplete"
    Path(incomplete).write_text(json.dumps(said))
    os.replace(incomplete, question.answer_file)
