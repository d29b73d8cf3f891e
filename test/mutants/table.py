"""The table of mutants: what caught each, as text that is reStructuredText, too.

The table stands in a page of the documentation. It is read back from there, so that a later run can try first what
caught each mutant last.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from test.mutants.hunt import Catch
from test.mutants.patches import TRAPS, Mutant

BEGINS = ".. The runner's table begins here."
ENDS = ".. The runner's table ends here."
COLUMNS = ("mutant", "trap", "caught by", "rule or test", "seed", "seconds")
NOTHING = "NOTHING"
TESTS = "test/"
"""The folder of all tests. The table leaves it out."""


def table(catches: Sequence[Catch], mutants: Sequence[Mutant]) -> str:
    """The table of ``catches``, one row each."""
    traps = {mutant.name: "" if mutant.trap is None else str(mutant.trap) for mutant in mutants}
    rows = [COLUMNS]
    for one in catches:
        seed = "" if one.seed is None else str(one.seed)
        what = one.what.removeprefix(TESTS)
        rows.append((one.mutant, traps[one.mutant], one.kind or NOTHING, what, seed, f"{one.seconds:.1f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    border = "  ".join("=" * width for width in widths)
    return "\n".join([border, lines[0], border, *lines[1:], border])


def summary(catches: Sequence[Catch], mutants: Sequence[Mutant]) -> str:
    """How many of ``catches`` caught their mutant, by kind, and which traps ``mutants`` put back in."""
    kinds = Counter(catch.kind for catch in catches if catch.kind)
    by_kind = ", ".join(f"{count} by {kind}" for kind, count in kinds.most_common())
    traps = sorted({mutant.trap for mutant in mutants if mutant.trap is not None})
    missing = [f"{number} ({TRAPS[number]})" for number in TRAPS if number not in traps]
    return (
        f"{sum(kinds.values())} of {len(catches)} mutants caught: {by_kind or 'none'}.\n"
        f"Traps put back in: {', '.join(map(str, traps)) or 'none'}; not: {', '.join(missing) or 'none'}."
    )


def read_from(page: Path) -> dict[str, Catch]:
    """The rows of the table in the document ``page``, by mutant.

    :raises SystemExit: if the page has no place for a table.
    """
    _, text, _ = _parts(page)
    borders = re.search(r"^=+(?:  =+)*$", text, re.MULTILINE)
    if borders is None:
        return {}
    spans = [found.span() for found in re.finditer("=+", borders[0])]
    rows = text[borders.end() + 1 :].partition(borders[0] + "\n")[2].partition("\n" + borders[0])[0]
    catches = (_read_row([row[begin:end].strip() for begin, end in spans]) for row in rows.split("\n") if row)
    return {catch.mutant: catch for catch in catches}


def _read_row(cells: Sequence[str]) -> Catch:
    mutant, _, kind, what, seed, seconds = cells
    if kind == NOTHING:
        return Catch(mutant, "", "", None, float(seconds))
    return Catch(mutant, kind, what if seed else TESTS + what, int(seed) if seed else None, float(seconds))


def write_into(page: Path, catches: Iterable[Catch], mutants: Sequence[Mutant]) -> None:
    """Put the rows of ``catches`` into the table in the document ``page``, in place of those of the same mutants.

    Rows of other mutants stay, and rows of those that are not in ``mutants`` go.

    :param mutants: all there are, in the order of the rows.
    :raises SystemExit: if the page has no place for a table.
    """
    rows = read_from(page) | {catch.mutant: catch for catch in catches}
    kept = [rows[mutant.name] for mutant in mutants if mutant.name in rows]
    head, _, tail = _parts(page)
    page.write_text(f"{head}{BEGINS}\n\n{table(kept, mutants)}\n\n{summary(kept, mutants)}\n\n{ENDS}{tail}")


def _parts(page: Path) -> tuple[str, str, str]:
    """What stands in ``page`` above the table's place, in it, and below it."""
    head, begins, rest = page.read_text().partition(BEGINS)
    text, ends, tail = rest.partition(ENDS)
    if not begins or not ends:
        raise SystemExit(f"{page} has no place for the table: it needs the lines {BEGINS!r} and {ENDS!r}")
    return head, text, tail
