"""Runs every test under coverage and holds the bounds: all of protocol/, nine tenths of each other part.

Processes that tests start are measured too, the launcher and its keepers among them (tests/agent/conftest.py);
what a process ran that is killed with SIGKILL is not counted, so the true numbers are a little higher.
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
"""Those of the tests on clusters that are about command lines, which no other tests run, and so are measured. The
others are not: a process that is measured takes nearly twice as long, and they start some hundreds."""


def coverage(*arguments: str) -> int:
    """The exit code of `coverage ARGUMENTS`."""
    return subprocess.run([sys.executable, "-m", "coverage", *arguments], cwd=CHECKOUT, check=False).returncode


def run_tests(options: Sequence[str]) -> int:
    """The exit code of all tests: those on a cluster mostly wait, and so run beside the others."""
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
    """Modules of which not a line has run: the report would leave them out, as it follows no links."""
    seen = measured.get_data().measured_files()
    modules = [path for part in BOUNDS for path in (CHECKOUT / part).rglob("*.py")]
    return [str(path.relative_to(CHECKOUT)) for path in modules if path.stat().st_size and str(path) not in seen]


def shortfalls() -> list[str]:
    """Every bound that does not hold, in words; prints how each part stands."""
    measured = Coverage()
    measured.load()
    faults = [f"{module} was never run" for module in unmeasured(measured)]
    for part, bound in BOUNDS.items():
        percent = measured.report(include=[f"{part}/*"], file=StringIO())
        print(f"  {part:<9} {percent:6.2f} % of at least {bound} %")
        if percent < bound:
            faults.append(f"coverage of {part}/ is {percent:.2f} %, and {bound} % is the least")
    return faults


def main() -> int:
    """0 when every test passes and every bound holds."""
    coverage("erase")
    failed = run_tests(sys.argv[1:])
    # Killed processes leave torn files, which are passed over and then removed.
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
