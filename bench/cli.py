"""Start-up time of the command line, beside an empty Python program."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import Final

from bench.figures import Bound, Figure, Reading, Sample
from bench.group import Group, Round
from bench.product import Product

COMMANDS: Final = (("--help",), ("submit", "--help"), ("run", "--", "true"))
EMPTY: Final = "python -c pass"
FIGURES: Final = (
    Figure("airunner --help", "ms", of=EMPTY),
    Figure("airunner submit --help", "ms", of=EMPTY),
    Figure("airunner run -- true", "ms", Bound.MOST, offset=600, of=EMPTY),
)
STARTS: Final = 5  # of each command in a round, in turn, so that other load affects all of them alike


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Measure the commands from their start to their end."""
    commands = [[product.python, "-c", "pass"], *(product.command(*words) for words in COMMANDS)]

    def taken_ms(command: list[str]) -> float:
        began_s = perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=product.environ())
        return (perf_counter() - began_s) * 1_000

    def measure() -> Sample:
        turns = [[taken_ms(command) for command in commands] for _ in range(STARTS)]
        empty, *ours = (median(taken) for taken in zip(*turns, strict=True))
        return {figure.name: Reading(taken, empty) for figure, taken in zip(FIGURES, ours, strict=True)}

    yield measure


GROUP: Final = Group("cli", FIGURES, opened, table=False)
