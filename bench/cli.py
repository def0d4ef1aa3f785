"""Start-up time of the command line, compared with an empty Python program.

Each round runs every command once, so that other load on the machine affects all of them alike. The medians are printed
in ms and as multiples of `python -c pass`. Run it with `python -m bench.cli [--rounds 15]`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from statistics import median
from time import perf_counter
from typing import Final

AIRUNNER: Final = (sys.executable, "-m", "airunner")
COMMANDS: Final = {
    "python -c pass": (sys.executable, "-c", "pass"),
    "airunner --help": (*AIRUNNER, "--help"),
    "airunner submit --help": (*AIRUNNER, "submit", "--help"),
    "airunner run -- true": (*AIRUNNER, "run", "--", "true"),
}
RUN_S_MAX: Final = 0.6  # bound of the median of `airunner run -- true`, in seconds


def seconds(command: tuple[str, ...]) -> float:
    """Measure the seconds that a command takes, from its start to its end."""
    began = perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return perf_counter() - began


def main() -> None:
    """Print the medians and ratios; exit with 1 if `airunner run` takes longer than `RUN_S_MAX`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="runs of each command (default 15)")
    rounds = [[seconds(command) for command in COMMANDS.values()] for _ in range(parser.parse_args().rounds)]
    medians = [median(times) for times in zip(*rounds, strict=True)]
    for name, time_s in zip(COMMANDS, medians, strict=True):
        print(f"{time_s * 1_000:7.0f} ms   {time_s / medians[0]:5.1f} x   {name}")
    print(f"`airunner run -- true` may take {RUN_S_MAX} s at most")
    sys.exit(medians[-1] > RUN_S_MAX)


if __name__ == "__main__":
    main()
