"""Runs every test under coverage and holds the bounds: all of protocol/, nine tenths of the rest.

Processes that the acceptance tests start are measured too, but for those that they kill.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final

PURE: Final = "protocol/*"
REST: Final = "agent/*,broker/*,certs/*,client/*,airunner/*"


def coverage(*arguments: str) -> int:
    """The exit code of `coverage ARGUMENTS`."""
    return subprocess.run([sys.executable, "-m", "coverage", *arguments], check=False).returncode


def main() -> int:
    """0 when every test passes and both bounds hold."""
    coverage("erase")
    tests = coverage("run", "-m", "pytest", "-q", *sys.argv[1:])
    coverage("combine", "--quiet")
    pure = coverage("report", f"--include={PURE}", "--fail-under=100")
    rest = coverage("report", f"--include={REST}", "--fail-under=90")
    if tests:
        print("tests failed", file=sys.stderr)
    elif pure or rest:
        print("coverage is below its bound: 100 % of protocol/, 90 % of the rest", file=sys.stderr)
    return tests or pure or rest


if __name__ == "__main__":
    sys.exit(main())
