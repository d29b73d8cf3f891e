"""Every code block and every command of the pages is run by a test, or is listed here with the reason why not.

A block that is new is in none of the lists, and fails. So does an entry of a list that is not needed any more.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import re
import symtable
import textwrap
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import txpaxos
import txpaxos.recipes
from test.helpers.command_lines import check_command, unknown_in
from test.helpers.page_blocks import PLAIN, ROOT, Block, all_blocks, pages
from test.mutants.patches import changed, read
from test.system import (
    test_deploying_page,
    test_docs_commands,
    test_docs_programs,
    test_first_hour_page,
    test_keys_page,
    test_readme,
    test_service_page,
    test_typed_services_page,
)
from txpaxos.cluster import Cluster
from txpaxos.testing.linearizability.history import read_history

BLOCKS = all_blocks()
RUNNERS: tuple[ModuleType, ...] = (
    test_deploying_page,
    test_docs_commands,
    test_docs_programs,
    test_first_hour_page,
    test_keys_page,
    test_readme,
    test_service_page,
    test_typed_services_page,
)
RUN_BLOCKS = {text for module in RUNNERS for text in getattr(module, "RUN_BLOCKS", ())}
RUN_COMMANDS = {text for module in RUNNERS for text in getattr(module, "RUN_COMMANDS", ())}
"""What the tests of the pages run. A command is run wherever it stands."""

LANGUAGES = {"console", "python", "toml", "json", "yaml", "diff", "text", PLAIN}

NOT_RUN = {
    "It installs programs on the machine.": [
        "sudo apt-get install etcd-server nghttp2-client strace",
        "python -m pip install --editable '.[test]'",
        "python -m pip install 'txpaxos[tracing]'",
        "sudo python3 -m venv /opt/txpaxos",
        "sudo /opt/txpaxos/bin/pip install 'txpaxos[keys]'",
    ],
    "It would run these tests anew.": [
        "make test",
        "python -m pytest test",
        "TXPAXOS_REWRITE=1 .venv/bin/python -m pytest test/core/test_scenarios.py",
        "TXPAXOS_REWRITE=1 .venv/bin/python -m pytest test/play/test_lessons_page.py",
        ".venv/bin/python -m pytest test/system/test_mutants.py -k fits",
    ],
    "test_first_hour_page.py runs what it runs.": ["make demo"],
    "It takes minutes. test_bench.py has what it computes.": [
        "make bench",
        'make bench ARGS="closed --pairs 5 --seconds 10"',
        'make bench ARGS="all --long --json all.json --plot all.png"',
        "python -m bench.compare growth --commands 5000000",
        "python -m bench.core",
        "python -m bench.core --record recording",
        "python -m bench.plot all.json all.png",
        "python -m bench.members",
        "python -m bench.members --parts changes --seconds 10",
        "python -m bench.members --parts join --megabytes 1000 --json",
    ],
    "It takes minutes. test/testing/test_model.py runs it with fewer states.": [
        "make model",
        'make model ARGS="replica --states-max 2000000"',
        "python -m txpaxos.testing.model practical replica",
    ],
    "It takes minutes, or hours. test_mutants.py runs it with mutants of its own.": [
        "make mutants",
        'make mutants ARGS="vote-not-saved"',
        'make mutants ARGS="vote-not-saved wall-clock --jobs 1"',
        "python -m test.mutants.run --cpu-seconds 20 --rst docs/mutants.rst",
        "python -m test.mutants.run --again --rst docs/mutants.rst",
    ],
    "It takes minutes, and root. test_torture.py runs it for seconds.": [
        'sudo make torture ARGS="--minutes 15 --seed 20"',
        "sudo python -m test.torture --nodes 5 --minutes 2 --json",
    ],
    "It copies to other machines. test_deploying_page.py holds it against what is written.": [
        "rsync -aR cluster.toml environment systemd/txpaxos@.service keys/a.keys 10.0.0.1:txpaxos/",
        "rsync -aR cluster.toml environment systemd/txpaxos@.service keys/b.keys 10.0.0.2:txpaxos/",
        "rsync -aR cluster.toml environment systemd/txpaxos@.service keys/c.keys 10.0.0.3:txpaxos/",
    ],
    "It changes the system. test_systemd.py runs it in a machine of its own.": [
        "sudo useradd --system --user-group --no-create-home --shell /usr/sbin/nologin txpaxos",
        "sudo install -D -m 644 -t /etc/txpaxos cluster.toml environment",
        "sudo install -D -m 644 -t /etc/systemd/system systemd/txpaxos@.service",
        "sudo install -d -m 700 -o txpaxos -g txpaxos /etc/txpaxos/a.keys",
        "sudo install -m 600 -o txpaxos -g txpaxos -t /etc/txpaxos/a.keys keys/a.keys/*",
        "sudo systemctl daemon-reload",
        "sudo systemctl enable --now --no-block txpaxos@a",
    ],
    "It needs docker. test_containers.py has what it runs.": [
        "docker compose -f deploy/compose.yaml up --build --detach",
        "docker compose -f deploy/compose.yaml exec a txpaxos status",
        "docker compose -f deploy/compose.yaml exec a txpaxos submit +5",
        "docker compose -f deploy/compose.yaml kill b",
        "docker compose -f deploy/compose.yaml start b",
        "docker compose -f deploy/compose.yaml exec b txpaxos status",
    ],
    "It changes the shell that it is typed in.": [
        "export PATH=/opt/txpaxos/bin:$PATH",
        "cd counter",
        'eval "$(_TXPAXOS_COMPLETE=bash_source txpaxos)"',
    ],
    "It opens a browser. test/cli/test_play.py runs it without one.": ["txpaxos play"],
    "It makes pictures in a browser. test_play_browser.py looks at the page.": [
        ".venv/bin/python -m test.system.screenshots docs",
    ],
    "A node must have lost its disk. test_join.py has one do so.": [
        "twistd -n paxos --join 10.0.0.1:5001 --node c --replace c --address 10.0.0.3:4001 --client 10.0.0.3:5001",
    ],
    "It needs a collector of traces, and the options that the page leaves out. test/tracing/ has what it does.": [
        "OTEL_SERVICE_NAME=shop OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 twistd -n paxos --tracing",
    ],
}
"""The commands that no test runs, by the reason. Their options are read by what they start, as those of all are."""


def of(*languages: str) -> list[Block]:
    """The blocks of some languages."""
    return [block for block in BLOCKS if block.language in languages]


def test_each_block_has_a_language_that_is_looked_at() -> None:
    assert {block.language for block in BLOCKS} == LANGUAGES


# --------------------------------------------------------------------- commands


def commands() -> list[str]:
    """All commands of all pages, each once."""
    lines = dict.fromkeys(line for block in of("console") for line in block.text.splitlines())
    assert [line for line in lines if not line.startswith("$ ")] == []
    return [line.removeprefix("$ ") for line in lines]


def test_every_command_is_run_or_has_a_reason() -> None:
    listed = [command for commands in NOT_RUN.values() for command in commands]
    assert [command for command in commands() if command not in RUN_COMMANDS and command not in listed] == []
    assert [command for command in listed if command in RUN_COMMANDS or command not in commands()] == []
    assert len(listed) == len({*listed})


@pytest.mark.parametrize("command", commands())
def test_options_are_read_by_what_is_started(command: str) -> None:
    check_command(command)


SPANS = {f"txpaxos {name}" for name in ("command", "save", "choose", "apply")}
"""Literals that are the names of spans, and no commands."""


def test_commands_within_texts_have_no_option_that_is_not_there() -> None:
    named = {
        (page.name, literal)
        for page in pages()
        for literal in re.findall(r"(?<!`)``((?:txpaxos|twistd|make) [^`]+)``", re.sub(r"\s+", " ", page.read_text()))
    }
    assert len(named) > 150
    unknown = {(page, literal) for page, literal in named if unknown_in(literal)}
    assert unknown == {("tracing.rst", name) for name in SPANS}


def test_tests_that_reasons_name_are_there() -> None:
    for name in re.findall(r"\btest[\w/]*(?:\.py|/)", " ".join(NOT_RUN)):
        assert (ROOT / name).exists() or (ROOT / "test/system" / name).exists(), name


# --------------------------------------------------------------------- programs

READERS = {
    "Bank": "the service of typed-services.rst",
    "Cron": "a service of the reader's",
    "application": "what twistd runs",
    "client": "made on the page or on calls.rst",
    "cluster": "read before",
    "data": "the reader's",
    "do": "the reader's",
    "reactor": "Twisted's, as every program has it",
    "service": "the node of the page",
    "storage": "the reader's",
    "work": "the reader's",
}
"""The names that a program may use without a line that makes them, and what they are."""

FACES = (txpaxos, txpaxos.recipes)
"""Modules whose names a page may use without the line that imports them."""


def programs() -> dict[str, list[Block]]:
    """The programs of each page, in their order."""
    found: dict[str, list[Block]] = {}
    for block in of("python"):
        found.setdefault(block.page, []).append(block)
    return found


def names_in(block: Block) -> tuple[set[str], set[str]]:
    """The names that a program makes, and those it uses and does not make. It may be a part of a coroutine."""
    table = symtable.symtable(f"async def part():\n{textwrap.indent(block.text, '    ')}", str(block), "exec")
    (part,) = table.get_children()
    used, waiting = set(), [part]
    while waiting:
        scope = waiting.pop()
        waiting += scope.get_children()
        used |= {name.get_name() for name in scope.get_symbols() if name.is_global() and name.is_referenced()}
    return {name.get_name() for name in part.get_symbols() if name.is_local()}, used


def unknown_names(blocks: list[Block]) -> list[tuple[str, str]]:
    """The names of a page's programs that neither the page makes, nor Python or txpaxos has, and where they are."""
    known = {*dir(builtins), *(name for face in FACES for name in face.__all__)}
    unknown = []
    for block in blocks:
        made, used = names_in(block)
        known |= made
        unknown += [(str(block), name) for name in sorted(used - known)]
    return unknown


@pytest.mark.parametrize("page", programs())
def test_programs_use_no_name_that_is_nowhere(page: str) -> None:
    assert [(place, name) for place, name in unknown_names(programs()[page]) if name not in READERS] == []


def test_each_name_of_the_reader_is_used() -> None:
    assert {name for blocks in programs().values() for _, name in unknown_names(blocks)} == READERS.keys()


def test_programs_import_what_is_there() -> None:
    for block in of("python"):
        if block.text not in RUN_BLOCKS:
            for line in ast.walk(ast.parse(block.text)):
                if isinstance(line, ast.Import | ast.ImportFrom):
                    exec(ast.unparse(line), {})


def test_every_program_is_run() -> None:
    assert [str(block) for block in of("python") if block.text not in RUN_BLOCKS] == []


# ------------------------------------------------------------------------- data


def test_cluster_files_are_read() -> None:
    """What is a part of a file is read with the rest of one."""
    for block in of("toml"):
        text = block.text if block.text.startswith("cluster =") else "cluster = 'c'\n" + block.text
        if "[nodes." not in text:
            text += "[nodes.a]\naddress = '127.0.0.1:4001'\nclient = '127.0.0.1:5001'\n"
        cluster = Cluster.parse(text)
        assert {*tomllib.loads(text)} <= {"cluster", "nodes", "rights"}
        assert Cluster.parse(cluster.dumps()) == cluster


def test_prometheus_is_told_where_nodes_are() -> None:
    """The parts of its configuration are YAML, and name files that ``docs/monitoring`` or ``txpaxos keys`` makes."""
    yaml = pytest.importorskip("yaml", reason="pip install 'txpaxos[test]'")
    whole, job = (yaml.safe_load(block.text) for block in of("yaml"))
    assert [(ROOT / "docs/monitoring" / name).is_file() for name in whole["rule_files"]] == [True]
    assert [one["job_name"].startswith("txpaxos") for one in (*whole["scrape_configs"], *job)] == [True, True]
    key_files = {Path(value).name for name, value in job[0]["tls_config"].items() if name.endswith("_file")}
    assert key_files == {"nodes.pem", "client.pem", "client.key"}
    assert {name for name in key_files if f"``{name}``" not in (ROOT / "docs/keys.rst").read_text()} == set()


def test_a_history_is_read(tmp_path: Path) -> None:
    (block,) = of("json")
    (tmp_path / "history.jsonl").write_text(block.text)
    invoke, ok = read_history(str(tmp_path / "history.jsonl"))
    assert (invoke.type, invoke.input, ok.type) == ("invoke", ["put", "x", 5], "ok")


def test_the_mutant_fits(tmp_path: Path) -> None:
    (block,) = of("diff")
    (tmp_path / "shown.patch").write_text(block.text)
    assert changed(read(tmp_path / "shown.patch"), ROOT).keys() == {"txpaxos/core/log.py"}


# ---------------------------------------------------------------------- outputs

DRAWINGS = {
    "design.rst": ["datagram -> codec.decode", "cli/  tap.py", "slot      t"],
    "paxos.rst": ["message          acceptor a", "client     leader a"],
    "storage.rst": ["<folder>/"],
}
"""Blocks that no code prints: drawings for people."""

NAMES = {"shop"}
"""The words in what is shown that are names of the reader's."""

TWO_WORDS = re.compile(r"[a-z]{2,}[ ,]+[a-z]{2,}", re.IGNORECASE)
NUMBER = re.compile(r"\w*\d[\w.]*")
LADDER = re.compile(r" +\d+\.\d{6} [-o#*@=<>| ]+ \w+ ")
"""Before what is told of a node, on each line of a space-time diagram."""


def is_drawing(block: Block) -> bool:
    return any(block.text.startswith(start) for start in DRAWINGS.get(block.page, ()))


def test_each_drawing_is_there() -> None:
    assert sum(map(is_drawing, BLOCKS)) == sum(map(len, DRAWINGS.values()))
    (layers,) = (block for block in BLOCKS if block.text.startswith("cli/ "))
    for folder in re.findall(r"(?:^| {4})(\w+)/ ", layers.text, re.MULTILINE):
        assert (ROOT / "txpaxos" / folder).is_dir()


def texts_of_source() -> set[str]:
    """All texts in the source. What is filled in later is ``{}``."""
    texts = set()
    for file in (ROOT / "txpaxos").rglob("*.py"):
        for one in ast.walk(ast.parse(file.read_text())):
            if isinstance(one, ast.JoinedStr):
                texts.add("".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in one.values))
            elif isinstance(one, ast.Constant) and isinstance(one.value, str):
                texts.add(re.sub(r"{[^{}]*}", "{}", one.value))
    return {text for text in texts if len(text) < 1000}


class Printed:
    """What the source can print: texts of it, with values or other such texts in their gaps."""

    def __init__(self) -> None:
        texts = texts_of_source()
        self.words = {word for text in texts for word in re.findall("[A-Za-z]{2,}", text)} | NAMES
        known = [
            re.split("(?:{})+", text) for text in texts if re.search(r"\w{3}", text.replace("{}", " ")) and " " in text
        ]
        self.patterns = [re.compile("(.+?)".join(map(re.escape, parts)), re.DOTALL) for parts in known]

    def has(self, line: str) -> bool:
        """Whether a line, or a part of one, is a text of the source, a value, or cells of a table."""
        line = LADDER.sub("", line).strip()
        if not TWO_WORDS.search(line):
            return {*re.findall("[A-Za-z]{2,}", NUMBER.sub("", line))} <= self.words
        cells = re.split(" {2,}", line)
        if len(cells) > 1:
            return all(map(self.has, cells))
        value = NUMBER.match(line)
        if value and self.has(line[value.end() :]):
            return True
        found = (pattern.fullmatch(line) for pattern in self.patterns)
        return any(all(map(self.has, one.groups())) for one in found if one)


def shown() -> list[Block]:
    """The blocks that show what is printed."""
    return [block for block in of("text", PLAIN) if not is_drawing(block)]


@pytest.fixture(scope="module")
def printed() -> Printed:
    return Printed()


@pytest.mark.parametrize("block", shown(), ids=str)
def test_what_is_shown_can_be_printed(printed: Printed, block: Block) -> None:
    """Each line; or all of them as one, which the page has broken."""
    if block.text.startswith("{"):
        event = json.loads(block.text)
        module, _, name = event.pop("namespace").rpartition(".")
        assert hasattr(importlib.import_module(module), name)
        lines = [*event, *event.values()]
    else:
        lines = block.text.splitlines()
    assert [one for one in lines if not printed.has(one)] == [] or printed.has(" ".join(lines))
