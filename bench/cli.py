"""Start-up time of the command line, beside an empty Python program: the best of `STARTS` starts of each."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from time import perf_counter
from typing import Final

from bench.cluster import Cluster, cluster
from bench.figures import Bound, Figure, Reading, Sample
from bench.group import Group, Round
from bench.product import Product

OFFLINE: Final = {"--help": 4.0, "--version": 4.0}  # times the reference, at most
ONLINE: Final = {"list": 8.0, "show @last": 8.0, "submit -d -- true": 8.0, "queues": 8.0}
EMPTY: Final = "python -c pass"
RUN: Final = "run -- true"
FIGURES: Final = (
    *(
        Figure(f"airunner {words}", "ms", Bound.MOST, factor=factor, of=EMPTY)
        for words, factor in {**OFFLINE, **ONLINE}.items()
    ),
    Figure("airunner submit --help", "ms", of=EMPTY),
    Figure(f"airunner {RUN}", "ms", Bound.MOST, offset=600, of=EMPTY),
)
STARTS: Final = 10  # of each command in a round, in turn, so that other load affects all of them alike


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Measure the commands from their start to their end, beside a cluster with one agent."""
    with cluster(product, spawn=1) as where:
        environ = _environ(product, where)
        words = (figure.name.removeprefix("airunner ").split() for figure in FIGURES)
        commands = [[product.python, "-c", "pass"], *(product.command(*some) for some in words)]
        subprocess.run(product.command("submit", "--", "true"), check=True, capture_output=True, env=environ)

        def taken_ms(command: list[str]) -> float:
            began_s = perf_counter()
            subprocess.run(command, check=True, capture_output=True, env=environ)
            return (perf_counter() - began_s) * 1_000

        def measure() -> Sample:
            turns = [[taken_ms(command) for command in commands] for _ in range(STARTS)]
            empty, *ours = (min(taken) for taken in zip(*turns, strict=True))
            return {figure.name: Reading(taken, empty) for figure, taken in zip(FIGURES, ours, strict=True)}

        yield measure


def _environ(product: Product, where: Cluster) -> dict[str, str]:
    """Return the environment of the commands: their modules are compiled once, as those of an installed package."""
    environ = product.environ(where.home) | {"AIRUNNER_BROKER": where.requests}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    return environ


GROUP: Final = Group("cli", FIGURES, opened, table=False)
