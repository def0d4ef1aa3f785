"""Benchmark: measures every figure beside its reference, prints one table, and says which targets are missed.

Run it with `make bench`, `make bench ONLY=queue` or `make bench BASE=<revision>`. The table goes to standard output,
progress to standard error, and all readings to a JSON file in `bench/results/`. Exit code 1: a target is missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager

from bench.figures import Row, Sample, rows
from bench.group import Group, Round
from bench.groups import GROUPS
from bench.product import WORKING_TREE, Product, Unmeasured, end_on_sigterm, revision
from bench.results import report, write
from bench.table import legend, missed, table


def progress(line: str) -> None:
    """Print a line of progress on standard error."""
    print(line, file=sys.stderr, flush=True)


def measure(group: Group, products: Sequence[Product], notes: list[str]) -> list[Row]:
    """Measure a group's rounds, the products in turn within each; add to `notes` what could not be measured."""
    samples: dict[str, list[Sample]] = {product.name: [] for product in products}
    with ExitStack() as stack:
        measuring: dict[str, Round] = {}
        for product in products:
            progress(f"{group.name}: setting up {product.name}")
            with noted(f"{group.name} is not measured on {product.name}", notes):
                stack.enter_context(noted(f"{group.name} did not stop on {product.name}", notes))
                measuring[product.name] = stack.enter_context(group.opened(product))
        for number in range(group.rounds):
            for name in list(measuring):
                began_s = time.monotonic()
                measured = measuring.pop(name)
                with noted(f"{group.name} is not measured on {name}", notes):
                    samples[name].append(measured())
                    measuring[name] = measured
                taken_s = time.monotonic() - began_s
                progress(f"{group.name}: round {number + 1} of {group.rounds}, {name}, took {taken_s:.1f} s")
    ours, *others = (samples[product.name] for product in products)
    return list(rows(group.name, group.figures, ours, others[0] if others else ()))


@contextmanager
def noted(what: str, notes: list[str]) -> Generator[None]:
    """Note why the block has failed, so that a failure costs one group and not the whole run."""
    try:
        yield
    except (Unmeasured, AssertionError, LookupError, OSError, ValueError, subprocess.SubprocessError) as error:
        notes.append(f"{what}: {str(error) or type(error).__name__}")
        progress(notes[-1])


def main() -> int:
    """Measure what is asked for; return 1 when a target is missed or a group could not be measured."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    names = [group.name for group in GROUPS]
    parser.add_argument(
        "--only", metavar="NAME", default="", help=f"groups to measure, with commas: {', '.join(names)}"
    )
    parser.add_argument("--base", metavar="REVISION", default="", help="measure this revision beside the working tree")
    parser.add_argument("--json", action="store_true", help="print the JSON instead of the table")
    options = parser.parse_args()
    end_on_sigterm()
    only = [name for name in options.only.split(",") if name]
    if unknown := set(only) - set(names):
        parser.error(f"no group is named {', '.join(sorted(unknown))}; they are {', '.join(names)}")
    chosen = [group for group in GROUPS if (group.name in only if only else group.table)]
    measured: list[Row] = []
    notes: list[str] = []
    began_s = time.monotonic()
    with ExitStack() as stack:
        products = [WORKING_TREE]
        if options.base:
            try:
                products.append(stack.enter_context(revision(options.base)))
            except Unmeasured as error:
                parser.error(str(error))
        for group in chosen:
            measured += measure(group, products, notes)
    result = report(measured, notes, options.base, time.monotonic() - began_s)
    path = write(result)
    if options.json:
        print(path.read_text(), end="")
    else:
        print("\n".join((*table(measured, options.base), *legend(measured), *notes)))
        print(f"measured in {result.seconds:.0f} s; all readings are in {path}")
        if missing := missed(measured):
            print(f"missed: {'; '.join(missing)}")
    return int(bool(missed(measured)) or any(f" on {WORKING_TREE.name}: " in note for note in notes))


if __name__ == "__main__":
    sys.exit(main())
