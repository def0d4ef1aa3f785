"""Benchmark of peers: airunner, beanstalkd and PgQueuer do the same work in turn, each with an fsync for each commit.

Run it with `make bench-peers`. What is not installed is left out, and the last lines say what to install.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.figures import Row, Sample, rows
from bench.peers import airunner, beanstalkd, pgqueuer
from bench.peers.works import FIGURES, Peer, Works
from bench.product import Unmeasured, end_on_sigterm
from bench.results import report, write
from bench.table import beside

PEERS: Final = (airunner.PEER, beanstalkd.PEER, pgqueuer.PEER)
ROUNDS: Final = 3


def measure(peers: Sequence[Peer], notes: list[str]) -> list[Row]:
    """Measure all peers in turn, `ROUNDS` times; add to `notes` what could not be measured."""
    samples: dict[str, list[Sample]] = {peer.name: [] for peer in peers}
    with ExitStack() as stack:
        works: dict[str, Works] = {}
        for peer in peers:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="airunner-peers-")))
            works[peer.name] = stack.enter_context(peer.started(folder))
        for number in range(ROUNDS):
            for name, work in works.items():
                began_s = time.monotonic()
                try:
                    samples[name].append(work.measure())
                except Unmeasured as error:
                    notes.append(f"{name} was not measured in round {number + 1}: {error}")
                taken_s = time.monotonic() - began_s
                print(f"round {number + 1} of {ROUNDS}, {name}, took {taken_s:.1f} s", file=sys.stderr, flush=True)
    return [row for peer in peers for row in rows(peer.name, FIGURES, samples[peer.name])]


def main() -> int:
    """Print the figures of all peers beside each other; return 1 if one of them could not be measured."""
    parser = argparse.ArgumentParser(prog="make bench-peers", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the JSON instead of the table")
    options = parser.parse_args()
    end_on_sigterm()
    notes: list[str] = []
    began_s = time.monotonic()
    measured = measure([peer for peer in PEERS if not peer.missing], notes)
    failed = bool(notes)
    notes += [peer.missing for peer in PEERS if peer.missing]
    result = report(measured, notes, "", time.monotonic() - began_s)
    path = write(result, "peers-")
    if options.json:
        print(path.read_text(), end="")
    else:
        print("\n".join((*beside(measured), *notes)))
        print(f"measured in {result.seconds:.0f} s; all readings are in {path}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
