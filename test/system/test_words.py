"""Names of all kinds, docstrings, comments and pages use the field's words, and say who or what does something."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CLEAN = (
    *("txpaxos", "test", "docs", "examples", "bench"),
    *("README.rst", "CHANGELOG.rst", "CONTRIBUTING.rst", "SECURITY.rst"),
)
"""The folders and files that must not use the words below."""

SUFFIXES = (".py", ".rst", ".txt", ".patch")

WORDS = """
whoever, whomever, nobody, somebody, anybody, everybody
as a rule, so many, so often, manieth, mend, mends, mended, for want of, the present
canvass, canvasses, canvasser, ailing, tally, robbed, rotten, diary, diaries, tormentor, workshop
befall, befalls, befell, condemn, condemned, put aside, lose patience, loses patience
fall silent, falls silent, fell silent, acquaintance, acquaintances, guest, guests, heed, heeded, greets, greeted
"""
"""Say instead: a noun (the caller, no peer, any value); usually, up to N, fix, for lack of, current; pre-vote,
faulty, counts, removed, bit rot, apply log, fault injector, test kit; happens to, quarantine, moved away,
election timeout, stops sending, known peer, candidate address, handshake. Lamport's words stay: ballot, decree, slot,
chosen, learned, acceptor, proposer, learner, nack, quorum.
"""

ALLOWED = {
    ("txpaxos/core/functional.py", "so many"): "so many that: a comparison",
    ("txpaxos/core/practical.py", "so many"): "so many that: a comparison",
    ("docs/operations.rst", "so many"): "the text of an option's help",
    ("CONTRIBUTING.rst", "whoever"): "an example of what not to write",
    ("CONTRIBUTING.rst", "somebody"): "an example of what not to write",
    ("CHANGELOG.rst", "canvasser"): "the old name, which the new one replaces",
}
"""(File, word): why the word stays there."""

ANY_WORD = "|".join(re.split(r",\s|\n", WORDS.strip())).replace(" ", r"\s+")
PATTERN = re.compile(rf"\b({ANY_WORD})\b", re.IGNORECASE)


def words_of(name: str) -> str:
    """The words of an identifier: ``ReadIndexClient``, ``read_index_client`` and ``read-index-client`` alike."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[_-]", " ", name)


def texts(path: Path) -> Iterator[str]:
    """The prose of a file and its name: a page as a whole; names, comments and docstrings of a module; the comments
    above a patch."""
    yield words_of(path.stem)
    source = path.read_text()
    if path.suffix == ".patch":
        yield "\n".join(line for line in source.splitlines() if line.startswith("# "))
        return
    if path.suffix != ".py":
        yield source
        return
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    yield "\n".join(sorted({words_of(token.string) for token in tokens if token.type == tokenize.NAME}))
    yield "\n".join(token.string for token in tokens if token.type == tokenize.COMMENT).replace("\n# ", "\n")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def found_in(path: Path) -> list[str]:
    """The words of the list that ``path`` uses, but for those allowed there."""
    name = path.relative_to(ROOT).as_posix()
    words = {re.sub(r"\s+", " ", match).lower() for text in texts(path) for match in PATTERN.findall(text)}
    return sorted(word for word in words if (name, word) not in ALLOWED)


@pytest.mark.parametrize("place", CLEAN)
def test_words(place: str) -> None:
    path = ROOT / place
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.suffix in SUFFIXES)
    assert files
    found = {one.relative_to(ROOT).as_posix(): words for one in files if (words := found_in(one))}
    assert found == {}


def test_a_word_is_found_in_a_patch_above_its_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test.system.test_words.ROOT", tmp_path)
    patch = tmp_path / "guest-believed.patch"
    patch.write_text("# fault: nobody looks\n--- a/module.py\n+++ b/module.py\n@@ -1,1 +1,1 @@\n-robbed\n+rotten\n")
    assert found_in(patch) == ["guest", "nobody"]


def test_a_word_is_found_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test.system.test_words.ROOT", tmp_path)
    module = tmp_path / "module.py"
    module.write_text('"""As a\nrule."""\n\n\nclass RobbedNode:\n    keeps_tally = "nobody"  # Whoever\n')
    assert found_in(module) == ["as a rule", "robbed", "tally", "whoever"]
