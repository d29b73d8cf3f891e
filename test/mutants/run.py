"""``python -m test.mutants.run [NAME ...]``: let every mutant loose, and see that each is caught.

Prints a table: mutant, what kind of test caught it, which rule or test, the simulator's seed, seconds. Exits with 0
only if all were caught and the tree without any fault was not.

A run over all mutants takes hours. With ``--again`` it takes minutes: what the table says caught a mutant last is tried
first. Files are written after each mutant, so a run that is stopped loses nothing of what it found.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import attrs

from test.mutants.hunt import ROOT, Catch, Hunter, copy_of, simulate
from test.mutants.patches import Mutant, PatchError, changed, load
from test.mutants.table import read_from, summary, table, write_into

NICENESS = 10
PAGE = ROOT / "docs" / "mutants.rst"
"""The page with the table, unless another is given."""


def run(
    hunter: Hunter,
    mutants: Sequence[Mutant],
    jobs: int,
    last: Mapping[str, Catch] | None = None,
    after_each: Callable[[Sequence[Catch]], None] = lambda catches: None,
) -> list[Catch]:
    """Hunt all ``mutants``, ``jobs`` at a time. One line is printed for each on standard error as it ends.

    :param last: what caught each mutant in an earlier run, where that is to be tried first.
    :param after_each: is called as each hunt ends, with what was found until then.
    """
    last = last or {}
    catches: list[Catch] = []
    with ThreadPoolExecutor(jobs) as pool:
        hunts = [pool.submit(hunter.hunt, mutant, last.get(mutant.name)) for mutant in mutants]
        for hunt in as_completed(hunts):
            catch = hunt.result()
            catches.append(catch)
            what = f"{catch.kind}: {catch.what}" if catch.kind else "SURVIVES"
            anew = "  hunted anew" if catch.mutant in last and not catch.again else ""
            place = f"{len(catches):3}/{len(mutants)}"
            print(f"{place}  {catch.mutant}  {what}  {catch.seconds:.0f} s{anew}", file=sys.stderr)
            after_each(catches)
    return [hunt.result() for hunt in hunts]


def hunted_anew(catches: Sequence[Catch], last: Mapping[str, Catch]) -> str:
    """Which mutants were not caught by what caught them last, in one line."""
    names = [catch.mutant for catch in catches if not catch.again]
    count = f"{len(catches) - len(names)} of {len(catches)} caught by what caught them last"
    told = ", ".join(name if name in last else f"{name} (not in the table)" for name in names)
    return f"{count}; hunted anew: {told or 'none'}."


def make_parser() -> argparse.ArgumentParser:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m test.mutants.run", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these mutants; all unless given")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default: 2)")
    parser.add_argument("--cpu-seconds", type=float, default=60.0, help="of the simulator for each (default: 60)")
    parser.add_argument("--again", action="store_true", help="try first what the table says caught each mutant last")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there as JSON, too")
    parser.add_argument("--rst", type=Path, metavar="FILE", help="write the rows into the table in that document, too")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    all_mutants = load()
    unknown = sorted(set(options.names) - {mutant.name for mutant in all_mutants})
    if unknown:
        parser.error(f"no such mutant: {', '.join(unknown)}")
    mutants = [mutant for mutant in all_mutants if not options.names or mutant.name in options.names]
    last = read_from(options.rst or PAGE) if options.again else {}

    def write(catches: Sequence[Catch]) -> None:
        if options.rst is not None:
            write_into(options.rst, catches, all_mutants)
        if options.json is not None:
            options.json.write_text(json.dumps([attrs.asdict(catch) for catch in catches], indent=1) + "\n")

    began = time.monotonic()
    with copy_of(ROOT) as clean:
        trouble = trouble_of(clean, mutants, options.cpu_seconds)
        if trouble is not None:
            print(trouble)
            return 1
        catches = run(Hunter(clean, options.cpu_seconds), mutants, options.jobs, last, write)
    print(table(catches, mutants), summary(catches, mutants), sep="\n\n")
    print(f"That took {time.monotonic() - began:.0f} s.")
    if options.again:
        print(hunted_anew(catches, last))
    return 0 if all(catch.kind for catch in catches) else 1


def trouble_of(clean: Path, mutants: Sequence[Mutant], cpu_seconds: float) -> str | None:
    """Why ``mutants`` of the tree ``clean`` cannot be hunted, if so: a patch does not fit, or the tree has a fault."""
    try:
        for mutant in mutants:
            changed(mutant, clean)
    except PatchError as error:
        return str(error)
    control = simulate(clean, cpu_seconds)
    if control["rule"] is None:
        return None
    return f"without any fault, seed {control['seed']} breaks {control['rule']}: {control['detail']}"


if __name__ == "__main__":
    os.nice(NICENESS)
    sys.exit(main())
