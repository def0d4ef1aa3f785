"""Coverage gate: runs every test under coverage and checks the bounds, 100 % of protocol/ and 90 % of each other part.

Processes that tests start are measured too, including the launcher and its keepers (tests/agent/conftest.py). Code that
a process ran before a SIGKILL is not counted, so the true numbers are a little higher.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from io import StringIO
from pathlib import Path
from typing import IO, Final

from coverage import Coverage

CHECKOUT: Final = Path(__file__).resolve().parents[1]
CLUSTERS: Final = "tests/acceptance"
BOUNDS: Final = {"protocol": 100, "certs": 90, "transport": 90, "broker": 90, "agent": 90, "client": 90, "airunner": 90}
"""Percent of lines and branches, for each part."""
COMMANDS: Final = (
    "agents",
    "backup",
    "bad_input",
    "cancel",
    "controls",
    "doctor",
    "machines",
    "main_job",
    "run",
    "secrets",
)
"""Acceptance tests of command lines that no other test runs: these are measured. The others are not, because a measured
process takes nearly twice as long, and they start some hundreds."""


def coverage(*arguments: str) -> int:
    """Run `coverage ARGUMENTS` and return its exit code."""
    return subprocess.run([sys.executable, "-m", "coverage", *arguments], cwd=CHECKOUT, check=False).returncode


def run_tests(options: Sequence[str]) -> int:
    """Run all tests and return the exit code; tests on a cluster mostly wait, and so run beside the others."""
    bare = [sys.executable, "-m", "pytest", "-q", *options]
    measuring = [sys.executable, "-m", "coverage", "run", *bare[1:]]
    commands = [f"{CLUSTERS}/test_{name}.py" for name in COMMANDS]
    with ExitStack() as ends:
        beside: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
        for command in (
            [*measuring, *commands],
            [*bare, CLUSTERS, *(f"--ignore={file}" for file in commands)],
        ):
            output = ends.enter_context(tempfile.TemporaryFile())
            started = subprocess.Popen(command, cwd=CHECKOUT, stdout=output, stderr=subprocess.STDOUT)
            ends.callback(started.kill)
            beside.append((started, output))
        failed = subprocess.run([*measuring, f"--ignore={CLUSTERS}"], cwd=CHECKOUT, check=False).returncode
        for process, said in beside:
            failed = process.wait() or failed
            said.seek(0)
            sys.stdout.write(said.read().decode(errors="replace"))
    return failed


def unmeasured(measured: Coverage) -> list[str]:
    """Return the modules that never ran: the report would omit them, because it follows no links."""
    seen = measured.get_data().measured_files()
    modules = [path for part in BOUNDS for path in (CHECKOUT / part).rglob("*.py")]
    return [str(path.relative_to(CHECKOUT)) for path in modules if path.stat().st_size and str(path) not in seen]


def shortfalls() -> list[str]:
    """Return a message for each bound that is not met; print the coverage of each part."""
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
    """Run the gate; return 0 when every test passes and every bound is met."""
    coverage("erase")
    failed = run_tests(sys.argv[1:])
    # Killed processes leave truncated files, which are skipped and then removed.
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
