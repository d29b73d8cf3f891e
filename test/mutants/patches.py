"""The mutants: one unified diff each, after comment lines that say what is wrong and which trap that is.

.. code-block:: diff

    # fault: an acceptor votes without raising its promise
    # trap: 3 accept must raise and store the promise
    # try: test/storage/test_faults.py
    --- a/txpaxos/core/log.py
    +++ b/txpaxos/core/log.py
    @@ -100,4 +100,3 @@

Where a hunk goes is found by its lines; the numbers in it only choose between several such places. So a patch holds
as long as the lines it touches, and the few around them, stay as they are.
"""

from __future__ import annotations

import re
from pathlib import Path

import attrs

FOLDER = Path(__file__).parent

TRAPS = {
    1: "duplicate answered early",
    2: "coalesced save releases too much",
    3: "accept must raise and store the promise",
    4: "phase-1 skip without owning the ballot",
    5: "ballot reuse after restart",
    6: "ballot comparison",
    7: "value choice",
    8: "quorum is distinct members at this ballot",
    9: "learner counts per slot and ballot",
    10: "new leader re-proposes, fills gaps, has an entry of its own",
    11: "deposed or paused leader",
    12: "locks and leases are not mutual exclusion",
    13: "a failed sync is final",
    14: "atomic rename done whole",
    15: "clocks",
    16: "torn is not rotted",
    17: "amnesia",
    18: "exactly once",
    19: "apply that differs between nodes",
    20: "stuck though a quorum is up",
}
"""The traps that implementations of Paxos have fallen into."""


class PatchError(ValueError):
    """A patch is not one, or does not fit the tree."""


WITH_KEYS = "with keys"
"""What a patch says of the simulator if nodes must have keys for it."""


@attrs.frozen
class Hunk:
    """Lines that stand in a file (``old``), about at ``line`` (from 1), and what they become."""

    line: int
    old: tuple[str, ...]
    new: tuple[str, ...]


@attrs.frozen
class Mutant:
    """One fault.

    :ivar name: of the patch file, without its ending.
    :ivar fault: what is wrong, in a few words.
    :ivar trap: a number of :data:`TRAPS`, or ``None`` where it is none of them.
    :ivar simulated: whether the simulator can meet the fault at all; the real disk, for one, is not part of it.
    :ivar with_keys: whether it can meet the fault only if nodes have keys.
    :ivar tries: the test files that are to find it if the simulator does not, in this order.
    :ivar hunks: the changes, by file.
    """

    name: str
    fault: str
    trap: int | None
    simulated: bool
    tries: tuple[str, ...]
    hunks: dict[str, tuple[Hunk, ...]]
    with_keys: bool = False


def load() -> list[Mutant]:
    """Every mutant, by name.

    :raises PatchError: naming the file that is not one.
    """
    return [read(path) for path in sorted(FOLDER.glob("*.patch"), key=lambda path: path.stem)]


def read(path: Path) -> Mutant:
    """The mutant in the file at ``path``.

    :raises PatchError: if there is none.
    """
    head, mark, diff = path.read_text().partition("\n--- ")
    fields = dict(re.findall(r"^# (\w+): (.+)$", head, re.MULTILINE))
    if (
        not mark
        or not {"fault", "trap"} <= fields.keys()
        or any(not line.startswith("# ") for line in head.split("\n"))
    ):
        raise PatchError(f"{path.name}: it must begin with '# fault: ...' and '# trap: ...', then the diff")
    trap = re.match(r"\d+", fields["trap"])
    if trap is None and fields["trap"] != "none":
        raise PatchError(f"{path.name}: the trap is a number, or none")
    return Mutant(
        path.stem,
        fields["fault"],
        int(trap[0]) if trap else None,
        fields.get("simulator", WITH_KEYS) == WITH_KEYS,
        tuple(fields.get("try", "").split()),
        dict(_files(path.name, "--- " + diff)),
        fields.get("simulator") == WITH_KEYS,
    )


def apply(mutant: Mutant, tree: Path) -> None:
    """Change the files under ``tree``.

    :raises PatchError: if some place is not found; nothing is changed then.
    """
    for name, text in changed(mutant, tree).items():
        (tree / name).write_text(text)


def changed(mutant: Mutant, tree: Path) -> dict[str, str]:
    """The files of ``tree`` that have the fault in them, as they would be.

    :raises PatchError: if some place is not found.
    """
    texts = {}
    for name, hunks in mutant.hunks.items():
        lines = (tree / name).read_text().split("\n")
        drift = 0
        for hunk in hunks:
            at = _find(lines, hunk, drift)
            if at is None:
                raise PatchError(
                    f"{mutant.name}: {name} has no such lines as about line {hunk.line}; correct the patch"
                )
            lines[at : at + len(hunk.old)] = hunk.new
            drift = at - (hunk.line - 1) + len(hunk.new) - len(hunk.old)
        texts[name] = "\n".join(lines)
    return texts


def _files(name: str, diff: str) -> list[tuple[str, tuple[Hunk, ...]]]:
    """Each file of a diff, with its hunks."""
    files = []
    for part in re.split(r"^--- (?=a/)", diff, flags=re.MULTILINE)[1:]:
        found = re.match(r"a/(\S+).*\n\+\+\+ b/(\S+).*\n", part)
        if found is None or found[1] != found[2]:
            raise PatchError(f"{name}: '--- a/FILE' must stand above '+++ b/FILE', the same file")
        hunks = re.split(r"^@@ -(\d+)[^\n]*@@[^\n]*\n", part[found.end() :], flags=re.MULTILINE)[1:]
        files.append((found[1], tuple(_hunk(name, int(hunks[i]), hunks[i + 1]) for i in range(0, len(hunks), 2))))
    return files


def _hunk(name: str, line: int, text: str) -> Hunk:
    old, new = [], []
    for row in text.removesuffix("\n").split("\n"):
        mark, content = row[:1] or " ", row[1:]
        if mark not in " +-":
            raise PatchError(f"{name}: a line of a hunk begins with a space, + or -, not with {row!r}")
        if mark in " -":
            old.append(content)
        if mark in " +":
            new.append(content)
    if old == new:
        raise PatchError(f"{name}: the hunk at line {line} changes nothing")
    return Hunk(line, tuple(old), tuple(new))


def _find(lines: list[str], hunk: Hunk, drift: int) -> int | None:
    """Where the old lines of ``hunk`` stand: of several places, the one nearest to where it says."""
    size = len(hunk.old)
    places = [at for at in range(len(lines) - size + 1) if tuple(lines[at : at + size]) == hunk.old]
    return min(places, key=lambda at: abs(at - (hunk.line - 1 + drift)), default=None)
