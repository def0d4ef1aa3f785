"""Coverage gate: runs all tests and requires a coverage of 100 % of protocol/ and 90 % of each other part.

Processes of measured tests are measured too; launchers and keepers are in tests/agent/launcher alone (its conftest.py).
Code that ran in a process before its SIGKILL is not counted, so the true numbers are a little higher.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from io import StringIO
from pathlib import Path
from time import monotonic
from typing import IO, Final

from coverage import Coverage

CHECKOUT: Final = Path(__file__).resolve().parents[1]
CLUSTERS: Final = "tests/acceptance"
RUNNING_MAX: Final = 4  # lanes at a time: with more, two cores are too busy for tests of deadlines
BREAKING: Final = ("tests/simulation", "tests/fuzz", f"{CLUSTERS}/test_chaos.py", f"{CLUSTERS}/test_chaos_ha.py")
"""Tests that break processes, real or simulated ones."""
BOUNDS: Final = {"protocol": 100, "certs": 90, "transport": 90, "broker": 90, "agent": 90, "client": 90, "airunner": 90}
"""Required coverage of each part, in percent of lines and branches."""
AWS: Final = (
    "tests/aws",
    "tests/broker/aws",
    "tests/broker/store/dynamodb",
    "tests/conformance/test_dynamodb.py",
    "tests/broker/store/test_largest.py",
)
"""Tests that start emulators of AWS, which take seconds to start."""
STORES: Final = ("tests/broker/store", "tests/conformance", "tests/postgresql")
"""Tests of stores, and of PostgreSQL's servers."""
AGENTS: Final = ("tests/agent", "tests/certs", "tests/transport")
BROWSER: Final = "tests/browser"
"""Tests of pages in Chromium, a lane of their own: what takes long there is Chromium."""
SCALED: Final = "test_from_none_to_five_agents_and_back_for_fifty_jobs"
COMMANDS: Final = (
    *(
        f"{CLUSTERS}/test_{name}.py"
        for name in ("bad_input", "completion", "controls", "python", "run", "screens", "secrets", "up")
    ),
    *(f"{CLUSTERS}/test_scale_{name}.py::{SCALED}" for name in ("kubernetes", "slurm")),
)
"""Acceptance tests that are measured, because they run commands that no other test runs. The other acceptance tests are
not: they start some thousand processes, and each takes five times as long to start if it is measured."""
STARTED: Final = tuple(
    f"{CLUSTERS}/test_{name}.py"
    for name in ("agents", "backup", "main_job", "scale_kubernetes", "scale_slurm", "views")
)
"""Acceptance tests that run beside the other ones, which together take longest."""
RULES: Final = tuple(f"tests/test_{name}.py" for name in ("bench", "deploy", "deploy_ha", "packages", "tidy"))
"""Tests of files that are no part of the product."""
APART: Final = (CLUSTERS, BROWSER, *BREAKING, *AWS, *STORES, *AGENTS, *RULES)
"""Tests of other lanes than `parts`."""


def coverage(*arguments: str) -> int:
    """Run `coverage ARGUMENTS` and return its exit code."""
    return subprocess.run([sys.executable, "-m", "coverage", *arguments], cwd=CHECKOUT, check=False).returncode


def lanes(options: Sequence[str]) -> dict[str, list[str]]:
    """Return the commands that together run all tests, the longest first: some run at the same time, as many wait.

    Measured lanes leave out the tests that are marked `unmeasured` (tests/conftest.py).
    """
    bare = [sys.executable, "-m", "pytest", "-q", *options]
    measuring = [sys.executable, "-m", "coverage", "run", *bare[1:]]
    return {
        "clusters": [*bare, CLUSTERS, *_without(*COMMANDS, *STARTED, *BREAKING)],
        "breaking": [*bare, *BREAKING],
        "parts": [*measuring, *_without(*APART)],
        "aws": [*measuring, *AWS],
        "agents": [*measuring, *AGENTS],
        "stores": [*measuring, *STORES, *_without(*AWS)],
        "commands": [*measuring, *COMMANDS],
        "browser": [*bare, BROWSER],
        "started": [*bare, *STARTED, *RULES, *(f"--deselect={test}" for test in COMMANDS if "::" in test)],
    }


def _without(*paths: str) -> list[str]:
    return [f"--{'deselect' if '::' in path else 'ignore'}={path}" for path in paths]


def run_tests(options: Sequence[str]) -> int:
    """Run all tests and return the exit code; the first lane prints at once, the output of the others follows later."""
    began, failed, took = monotonic(), 0, list[str]()
    with ExitStack() as ends:
        running: dict[int, tuple[str, subprocess.Popen[bytes], IO[bytes] | None]] = {}
        waiting = list(lanes(options).items())
        while waiting or running:
            while waiting and len(running) < RUNNING_MAX:
                name, command = waiting.pop(0)
                output = ends.enter_context(tempfile.TemporaryFile()) if running else None
                started = subprocess.Popen(command, cwd=CHECKOUT, stdout=output, stderr=output)
                ends.callback(started.kill)
                running[started.pid] = name, started, output
            pid, status, used = os.wait4(-1, 0)
            name, ended, printed = running.pop(pid)
            ended.returncode = os.waitstatus_to_exitcode(status)
            failed = ended.returncode or failed
            took.append(f"  {name:<9} {monotonic() - began:4.0f} s, processor {used.ru_utime + used.ru_stime:4.0f} s")
            if printed is not None:
                printed.seek(0)
                print(printed.read().decode(errors="replace"), end="", flush=True)
    print("lanes of tests, and the processor time of what they started and waited for", *took, sep="\n")
    return failed


def unmeasured(measured: Coverage) -> list[str]:
    """Return the modules that never ran: coverage does not report them, because it follows no symbolic links."""
    seen = measured.get_data().measured_files()
    modules = [path for part in BOUNDS for path in (CHECKOUT / part).rglob("*.py")]
    return [str(path.relative_to(CHECKOUT)) for path in modules if path.stat().st_size and str(path) not in seen]


def shortfalls() -> list[str]:
    """Print the coverage of each part; return a message for each bound that is not met and each module not run."""
    measured = Coverage()
    measured.load()
    faults = [f"{module} was never run" for module in unmeasured(measured)]
    for part, bound in BOUNDS.items():
        percent = measured.report(include=[f"{part}/*"], file=StringIO())
        print(f"  {part:<9} {percent:6.2f} % (at least {bound} %)")
        if percent < bound:
            faults.append(f"coverage of {part}/ is {percent:.2f} %, below {bound} %")
    return faults


def main() -> int:
    """Run the gate; return 0 if every test passes and every bound is met."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # some thousand processes would each compile all that they import
    coverage("erase")
    failed = run_tests(sys.argv[1:])
    # Killed processes leave truncated data files, which `combine` skips; they are removed afterwards.
    combined = [sys.executable, "-m", "coverage", "combine", "--quiet"]
    subprocess.run(combined, cwd=CHECKOUT, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for torn in CHECKOUT.glob(".coverage.*"):
        torn.unlink()
    if failed:
        print("tests failed", file=sys.stderr)
        return failed
    coverage("report")
    faults = shortfalls()
    for fault in faults:
        print(fault, file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
