"""What README.rst and docs/ say is so: their code is the code, their commands run, their tables leave nothing out."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from test.helpers.cli_nodes import TXPAXOS, running
from test.helpers.fakes import free_ports
from txpaxos import cli, errors
from txpaxos.application import Application
from txpaxos.cluster import Address, Cluster, Member
from txpaxos.core import messages
from txpaxos.core.drops import Drop
from txpaxos.node.counts import Count
from txpaxos.node.peers import REQUIRED_WAYS
from txpaxos.play.course import LESSONS
from txpaxos.tap import Options
from txpaxos.wire import peer_messages
from txpaxos.wire.codec import Way

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.rst").read_text()
OPERATIONS = (ROOT / "docs/operations.rst").read_text()
PAGES = sorted([*ROOT.glob("*.rst"), *(ROOT / "docs").glob("*.rst")])
SOURCE = "".join(
    file.read_text() for file in sorted((ROOT / "txpaxos").rglob("*.py")) if not {"cli", "testing"} & {*file.parts}
)
"""All that runs in a node."""

SENDER_UNTOLD = {"Challenge", "ChosenValues", "Hello", "Proof", "RegisterVotes", "SnapshotPart", "Truncated"}
"""Messages whose docstrings do not tell who sends them: answers, but for the first on a stream."""


def text_of(name: str) -> str:
    """The text of a page of the documentation."""
    return (ROOT / "docs" / f"{name}.rst").read_text()


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of one language, without their indentation."""
    pattern = rf"^\.\. code-block:: {language}\n\n((?:(?: {{3}}.*)?\n)+)"
    return [textwrap.dedent(block).strip("\n") + "\n" for block in re.findall(pattern, text + "\n", re.MULTILINE)]


def section(text: str, title: str) -> str:
    """What stands under a title, up to the next one."""
    found = re.search(rf"^{title}\n-+\n(.*?)(?=^[^\n]+\n-{{3,}}\n|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def tables(text: str) -> Iterator[list[list[str]]]:
    """The rows of each simple table, but its head. What stands below an empty first cell belongs to the row above."""
    for bar, body in re.findall(r"^(=+(?: +=+)+)\n(?:(?:.+\n)+?\1\n)?((?:.+\n)+?)\1$", text, re.MULTILINE):
        columns = [found.span() for found in re.finditer("=+", bar)]
        columns[-1] = columns[-1][0], 1000
        rows: list[list[str]] = []
        for line in body.splitlines():
            cells = [line[start:end].strip() for start, end in columns]
            if cells[0]:
                rows.append(cells)
            else:
                rows[-1] = [" ".join(filter(None, pair)) for pair in zip(rows[-1], cells, strict=True)]
        yield rows


def keys(text: str) -> set[str]:
    """The first cells of all tables, without their quotes."""
    return {row[0].strip("`") for rows in tables(text) for row in rows}


def commands() -> list[str]:
    """Every command line of every page, once."""
    lines = (line for page in PAGES for block in blocks(page.read_text(), "console") for line in block.splitlines())
    found = list(dict.fromkeys(lines))
    assert all(line.startswith("$ ") for line in found), found
    return [line.removeprefix("$ ") for line in found]


OF_ONE_S_OWN = blocks(section(OPERATIONS, "In a reactor of your own"), "python")
RUN_BLOCKS = [
    *(block for block in blocks(README, "python") if "Client(" in block or "class Counter" in block),
    *blocks(README, "toml"),
    *OF_ONE_S_OWN,
]
RUN_COMMANDS = [command for command in commands() if "history.jsonl" in command]
"""What is run here, or by the test of the examples. test_docs_blocks.py looks for what is left."""


# ------------------------------------------------------------------------ code


def test_counter_is_the_example() -> None:
    counter = (ROOT / "examples/counter.py").read_text()
    assert counter in blocks(README, "python")
    assert len(counter.splitlines()) == 18  # as its title says


def test_cluster_file_is_the_example() -> None:
    (toml,) = blocks(README, "toml")
    assert toml == (ROOT / "examples/cluster.toml").read_text()
    assert Cluster.parse(toml) == Cluster.load(ROOT / "examples/cluster.toml")
    assert list(Cluster.parse(toml).members) == ["a", "b", "c"]


@pytest.mark.parametrize(("page", "pieces_min"), [("paxos", 10), ("lessons", 30)])
def test_pieces_of_source_are_there(page: str, pieces_min: int) -> None:
    """Pages include functions of the algorithm by their names."""
    pieces = re.findall(r"^\.\. literalinclude:: (\S+)\n   :pyobject: (\S+)$", text_of(page), re.MULTILINE)
    assert len(pieces) >= pieces_min
    for file, name in pieces:
        found: ast.AST = ast.parse((ROOT / "docs" / file).read_text())
        for part in name.split("."):
            found = next(one for one in ast.iter_child_nodes(found) if getattr(one, "name", None) == part)


def test_what_the_tutorial_names_is_in_the_core() -> None:
    source = "".join(file.read_text() for file in (ROOT / "txpaxos/core").glob("*.py"))
    names = set(re.findall(r"``[A-Z]\w+\.([a-z_]\w+)``", text_of("paxos")))
    assert len(names) >= 5
    assert {name for name in names if f"def {name}(" not in source} == set()


def test_the_tutorial_goes_through_all_lessons_in_order() -> None:
    titles = [re.sub(r"\s+", " ", title) for title in re.findall(r"\*Lesson: ([^*]+)\.\*", text_of("paxos"))]
    assert titles == [lesson.title for lesson in LESSONS]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sessions_print_what_they_show(page: Path) -> None:
    result = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert result.failed == 0
    assert (result.attempted > 0) == (page.name in ("paxos.rst", "lessons.rst"))


# -------------------------------------------------------------------- commands


def test_a_history_is_made_and_checked_as_the_page_says(tmp_path: Path) -> None:
    for command in commands():
        if "history.jsonl" in command:
            program, *arguments = shlex.split(command)
            start = [sys.executable] if program == "python" else TXPAXOS
            done = subprocess.run([*start, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith("linearizable: 1000 operations")


def test_the_client_of_the_readme_runs(tmp_path: Path) -> None:
    (program,) = (block for block in blocks(README, "python") if "Client(" in block)
    assert program.count('"examples/cluster.toml"') == 1
    program = program.replace("examples/cluster.toml", "cluster.toml")
    with running(tmp_path, "a", "b", "c"):
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert re.fullmatch(r"5\n5 after slot \d+\n", done.stdout)


def test_files_that_pages_link_to_are_there() -> None:
    for page in PAGES:
        targets = re.findall(r"`[^`]+ <(?!https://)([^>`]+)>`_", page.read_text())
        for target in targets:
            assert (page.parent / target).is_file(), f"{page.name}: {target}"
        # The README and what stands beside it are also read where there are no files: on a package index.
        assert page.parent == ROOT / "docs" or not targets, page.name


def test_the_index_links_to_every_page() -> None:
    linked = set(re.findall(r"^`[^`]+ <([^>`]+)>`_ ", text_of("index"), re.MULTILINE))
    assert linked == {page.name for page in (ROOT / "docs").glob("*.rst")} - {"index.rst"}


def test_files_that_pages_name_are_there() -> None:
    """``docs/page.rst``, ``FILE.rst``, and what a page of docs/ includes."""
    for page in PAGES:
        text = page.read_text()
        for name in re.findall(r"``((?:docs/)?[\w-]+\.rst)``", text):
            assert (ROOT / name).is_file(), f"{page.name}: {name}"
        for name in re.findall(r"^\.\. (?:literal)?include:: (\S+)$", text, re.MULTILINE):
            assert (page.parent / name).is_file(), f"{page.name}: {name}"


# ---------------------------------------------------------------------- tables


def message_classes() -> dict[str, str]:
    """The name of each message that nodes send each other, and its docstring on one line, without quotes."""
    modules = (messages, peer_messages)
    return {
        name: re.sub(r"\s+", " ", cls.__doc__ or "").replace("``", "").lower()
        for module in modules
        for name, cls in inspect.getmembers(module, inspect.isclass)
        if attrs.has(cls) and cls.__module__ in {one.__name__ for one in modules}
    }


def test_every_message_has_a_row() -> None:
    assert keys(section(text_of("wire"), "Messages")) == message_classes().keys()


def test_rows_say_what_the_messages_say() -> None:
    (rows,) = tables(section(text_of("wire"), "Messages"))
    described = message_classes()
    for name, sender, receiver, _, saved in rows:
        says = described[name.strip("`")]
        assert saved.startswith("yes: ") == ("disk first" in says), name
        assert saved.startswith("yes: ") or saved == "no"
        if name.strip("`") not in SENDER_UNTOLD:
            assert re.search(rf"\b(an?|the) {sender},? to {receiver}\b", says, re.IGNORECASE), name


def test_the_page_says_how_each_message_must_come() -> None:
    groups = re.findall(
        r"^\* \*Over the stream that the (receiver|sender) opened\*: ([^.]*)\.", text_of("wire"), re.MULTILINE
    )
    told = {receiver: set(re.findall(r"``(\w+)``", names)) for receiver, names in groups}
    for opened_by, way in (("receiver", Way.OWN_STREAM), ("sender", Way.THEIR_STREAM)):
        assert told[opened_by] == {kind.__name__ for kind, required in REQUIRED_WAYS.items() if required is way}


def test_every_file_of_the_source_is_in_the_reading_order() -> None:
    listed = keys((ROOT / "docs" / "source.rst").read_text())
    package = ROOT / "txpaxos"
    assert {name for name in listed if not (package / name).exists()} == set()
    for file in package.rglob("*.py"):
        name = str(file.relative_to(package))
        is_entry_point = file.name in ("__init__.py", "__main__.py")
        assert is_entry_point or name in listed or f"{name.split('/')[0]}/" in listed, name


def test_every_error_and_hook_is_described() -> None:
    described = text_of("calls")
    raised = {name for name, cls in inspect.getmembers(errors, inspect.isclass) if cls is not errors.PaxosError}
    inside = {
        "CodecError",
        "ApplicationLost",
        "OtherCluster",
        "OtherMembers",
        "UnknownVersion",
        "RecordingError",
    }  # These never leave the node, or no node raises them.
    assert {name for name in raised if f"``{name}``" not in described} == inside
    named = {
        name
        for line in re.findall(r"^``.*``$", text_of("hooks"), re.MULTILINE)
        for name in re.findall(r"``(\w+)", line)
    }
    assert named == {name for name in vars(Application) if not name.startswith("_")}


def test_the_short_lists_of_the_readme_leave_no_hook_and_no_error_out() -> None:
    hooks = {re.split(r"\W", key)[0] for key in keys(section(README, "The hooks"))}
    assert hooks == {name for name in vars(Application) if not name.startswith("_")}
    told = {name.strip("`") for rows in tables(text_of("calls")) for name, _ in rows}
    assert {name for name in told if f"``{name}``" not in section(README, "Submit, read and ask")} == set()


def test_every_option_is_described() -> None:
    options = {f"--{option.rstrip('=')}" for option in Options().longOpt}
    assert keys(section(OPERATIONS, "Start")) == options - {"--help", "--version"}


def test_every_count_is_described() -> None:
    """In the words of the tables in the source, which ``txpaxos status --counts`` shows."""
    described = list(tables(section(OPERATIONS, "Status")))
    assert described == [
        [[f"``{reason.metric_name}``", reason.value] for reason in reasons] for reasons in (Drop, Count)
    ]


def test_every_count_is_counted_somewhere_and_refers_to_what_there_is() -> None:
    for reason in (*Drop, *Count):
        assert (
            f"[{type(reason).__name__}.{reason.name}]" in SOURCE or f"({type(reason).__name__}.{reason.name}," in SOURCE
        )
        assert re.fullmatch("[a-z]+(_[a-z]+)*", reason.metric_name)
        for title in re.findall('"([^"]+)"', reason.value):
            assert section(OPERATIONS, title), reason


def test_errors_at_start_are_those_of_the_source() -> None:
    described = keys(section(OPERATIONS, "When it does not start"))
    assert len(described) >= 15
    assert {line for line in described if line not in SOURCE} == set()


def test_refusals_of_folders_of_keys_are_those_of_the_source() -> None:
    said = [part for line in keys(section(text_of("keys"), "What is in a folder")) for part in line.split("``, ``")]
    lines = [line for line in said if " " in line]
    assert len(lines) >= 12
    assert {line for line in lines if line not in SOURCE} == set()


def test_log_lines_are_those_of_the_source() -> None:
    lines = re.findall(r"^\* (``.*``):", section(OPERATIONS, "Logs"), re.MULTILINE)
    said = [text for line in lines for text in re.findall("``([^`]+)``", line)]
    assert len(said) >= 6
    assert {text for text in said if text not in SOURCE} == set()


@pytest.mark.parametrize("number", [0, 1])
def test_a_node_in_a_reactor_of_one_s_own(tmp_path: Path, number: int) -> None:
    """The programs in operations.rst are some."""
    program = OF_ONE_S_OWN[number]
    ask = f'{["service.application", "counter"][number]}.submit(b"+5").addCallback(print)'
    program = program.replace("reactor.run()", f"{ask}.addBoth(lambda _: reactor.stop())\nreactor.run()")
    member = Member(*(Address("127.0.0.1", port) for port in free_ports(2)))
    (tmp_path / "cluster.toml").write_text(Cluster("own", {"a": member}).dumps())
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("5\n", "")


# ---------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("limit", "name", "said"),
    [
        ("txpaxos.node.command_limits:CommandLimits().command_bytes_max", "limits", "has at most 16 MiB"),
        (
            "txpaxos.node.command_limits:CommandLimits().waiting_bytes_max",
            "limits",
            "The commands that wait at one node have at most 128 MiB",
        ),
        ("txpaxos.node.reads:WAITING_BYTES_MAX", "limits", "The queries that wait at one node have at most 128 MiB"),
        ("txpaxos.client.pending:PENDING_BYTES_MAX", "limits", "requests that wait in one client have at most 128 MiB"),
        ("txpaxos.wire.commands:COMMAND_BYTES_MAX", "hooks", "up to 16 MiB"),
        ("txpaxos.wire.commands:COMMAND_BYTES_MAX", "limits", "may have up to 16 MiB"),
        ("txpaxos.node.sessions:KEPT_BYTES_MAX", "limits", "are kept up to 256 MiB"),
        ("txpaxos.wire.registers:SUBJECT_BYTES_MAX", "limits", "at most 512 bytes"),
        ("txpaxos.wire.registers:SUBJECT_BYTES_MAX", "calls", "at most 512 bytes"),
        ("txpaxos.wire.frames:DATAGRAM_BYTES_MAX", "limits", "up to 1,400 bytes"),
        ("txpaxos.node.sessions:SESSIONS_MAX", "limits", "65,536 are remembered"),
        ("txpaxos.wire.commands:COMMAND_BYTES_MAX", "../README", "a command has at most 16 MiB"),
        ("txpaxos.node.sessions:SESSIONS_MAX", "../README", "and 65,536 clients' sessions are remembered"),
        ("txpaxos.storage.journal:SEGMENT_BYTES", "operations", "files of 64 MiB"),
    ],
)
def test_limits_are_those_of_the_source(limit: str, name: str, said: str) -> None:
    module, expression = limit.split(":")
    value = eval(expression, dict(vars(__import__(module, fromlist=["_"]))))
    (number, unit) = re.findall(r"([\d,]+)(?: (MiB))?", said)[0]
    assert value == int(number.replace(",", "")) * (2**20 if unit else 1)
    assert said in re.sub(r"\s+", " ", text_of(name))


def test_pages_mention_no_module_that_is_not_there() -> None:
    """``txpaxos/x/y.py`` and ``test/y.py`` in any page."""
    for page in PAGES:
        for path in re.findall(r"``((?:txpaxos|test|examples)/[\w/.]+)``", page.read_text()):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_help_lists_the_commands() -> None:
    shown = subprocess.run([*TXPAXOS, "--help"], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0
    used = {command.split()[1] for command in commands() if command.startswith("txpaxos ")}
    assert used == set(cli.main.commands)
    assert {name for name in used if not re.search(rf"^  {name} ", shown.stdout, re.MULTILINE)} == set()
