"""``python -m test.mutants.run [NAME ...]``: let every mutant loose, and see that each is caught.

Prints a table: mutant, what kind of test caught it, which rule or test, the simulator's seed, seconds. Exits with 0
only if all were caught and the tree without any fault was not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import attrs

from test.mutants.hunt import ROOT, Catch, Hunter, copy_of, simulate
from test.mutants.patches import TRAPS, Mutant, PatchError, changed, load

NICENESS = 10
BEGINS = ".. The runner's table begins here."
ENDS = ".. The runner's table ends here."


def run(hunter: Hunter, mutants: Sequence[Mutant], jobs: int) -> list[Catch]:
    """Hunt all ``mutants``, ``jobs`` at a time. One line is printed for each on standard error as it ends."""
    with ThreadPoolExecutor(jobs) as pool:
        hunts = [pool.submit(hunter.hunt, mutant) for mutant in mutants]
        for number, hunt in enumerate(as_completed(hunts), 1):
            catch = hunt.result()
            what = f"{catch.kind}: {catch.what}" if catch.kind else "SURVIVES"
            print(f"{number:3}/{len(mutants)}  {catch.mutant}  {what}  {catch.seconds:.0f} s", file=sys.stderr)
    return [hunt.result() for hunt in hunts]


def table(catches: Sequence[Catch], mutants: Sequence[Mutant]) -> str:
    """What caught which mutant, as text that is reStructuredText, too."""
    traps = {mutant.name: "" if mutant.trap is None else str(mutant.trap) for mutant in mutants}
    rows = [("mutant", "trap", "caught by", "rule or test", "seed", "seconds")]
    for one in catches:
        seed = "" if one.seed is None else str(one.seed)
        what = one.what.removeprefix("test/")
        rows.append((one.mutant, traps[one.mutant], one.kind or "NOTHING", what, seed, f"{one.seconds:.1f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    border = "  ".join("=" * width for width in widths)
    return "\n".join([border, lines[0], border, *lines[1:], border])


def summary(catches: Sequence[Catch], mutants: Sequence[Mutant], seconds: float) -> str:
    """The same in a few lines."""
    kinds = Counter(catch.kind for catch in catches if catch.kind)
    by_kind = ", ".join(f"{count} by {kind}" for kind, count in kinds.items())
    traps = sorted({mutant.trap for mutant in mutants if mutant.trap is not None})
    missing = [f"{number} ({TRAPS[number]})" for number in TRAPS if number not in traps]
    return (
        f"{sum(kinds.values())} of {len(catches)} mutants caught in {seconds:.0f} s: {by_kind or 'none'}.\n"
        f"Traps put back in: {', '.join(map(str, traps)) or 'none'}; not: {', '.join(missing) or 'none'}."
    )


def write_into(page: Path, text: str) -> None:
    """Put ``text`` between the marks in the document ``page``, in place of what stands there."""
    head, begins, rest = page.read_text().partition(BEGINS)
    _, ends, tail = rest.partition(ENDS)
    if not begins or not ends:
        raise SystemExit(f"{page} has no place for the table: it needs the lines {BEGINS!r} and {ENDS!r}")
    page.write_text(f"{head}{BEGINS}\n\n{text}\n\n{ENDS}{tail}")


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m test.mutants.run", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these mutants; all unless given")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default: 2)")
    parser.add_argument("--cpu-seconds", type=float, default=60.0, help="of the simulator for each (default: 60)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there as JSON, too")
    parser.add_argument("--rst", type=Path, metavar="FILE", help="write the table into that document, too")
    options = parser.parse_args(arguments)
    mutants = load()
    unknown = sorted(set(options.names) - {mutant.name for mutant in mutants})
    if unknown:
        parser.error(f"no such mutant: {', '.join(unknown)}")
    if options.names:
        mutants = [mutant for mutant in mutants if mutant.name in options.names]
    began = time.monotonic()
    with copy_of(ROOT) as clean:
        try:
            for mutant in mutants:
                changed(mutant, clean)
        except PatchError as error:
            print(error)
            return 1
        control = simulate(clean, options.cpu_seconds)
        if control["rule"] is not None:
            print(f"without any fault, seed {control['seed']} breaks {control['rule']}: {control['detail']}")
            return 1
        catches = run(Hunter(clean, options.cpu_seconds), mutants, options.jobs)
    printed = table(catches, mutants) + "\n\n" + summary(catches, mutants, time.monotonic() - began)
    print(printed)
    if options.rst is not None:
        write_into(options.rst, printed)
    if options.json is not None:
        options.json.write_text(json.dumps([attrs.asdict(catch) for catch in catches], indent=1) + "\n")
    return 0 if all(catch.kind for catch in catches) else 1


if __name__ == "__main__":
    os.nice(NICENESS)
    sys.exit(main())
