"""Recording for README: commands of airunner run as a job in a terminal, whose log is exported as an animated image.

The image has the digest of this file in its last line, so `make docs` records again only when the commands change.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Final

from airunner.testing import cluster

IMAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "recording.svg"
COMMANDS: Final = (
    "airunner submit -- sh -c 'echo hello; exit 7'",
    "airunner explain @last",
    "airunner submit -d --name nightly -- sleep 60",
    "airunner submit -f matrix.yaml",
    "airunner list",
    "airunner logs 'test (3.12, mysql)'",
)
MATRIX: Final = """
    command: sh
    args: ["-c", "echo {{matrix.python}} on {{matrix.database}}; test {{matrix.database}} != mysql"]
    name: test
    matrix: {python: ["3.11", "3.12"], database: [sqlite, mysql]}
"""
# Each command is typed as a person would, a character at a time, and its output stays for a while.
PLAYER: Final = r"""
while IFS= read -r line; do
    printf '\033[1;32m$\033[0m '
    for ((at = 0; at < ${#line}; at++)); do printf '%s' "${line:at:1}"; sleep 0.03; done
    printf '\n'; sleep 0.3; eval "$line" </dev/null; sleep 1.8
done <<'END'
"""
TERMINAL: Final = "100x28"


def main() -> int:
    """Record the commands, unless the image is that of this file."""
    if IMAGE.exists() and IMAGE.read_text().endswith(mark()):
        return 0
    with cluster() as running:

        def airunner(*words: str) -> None:
            command = [sys.executable, "-m", "airunner", *words]
            subprocess.run(command, env=running.environ, stdout=subprocess.DEVNULL, check=True)

        path = f"{Path(sys.executable).parent}:{running.environ['PATH']}"
        where = {"AIRUNNER_HOME": running.home, "AIRUNNER_BROKER": running.broker, "PATH": path}
        variables = [word for name, value in where.items() for word in ("--env", f"{name}={value}")]
        written = f"cat >matrix.yaml <<'END'\n{textwrap.dedent(MATRIX)}END\nclear\n"
        script = f"{written}{PLAYER}{chr(10).join(COMMANDS)}\nEND\n"
        options = ["--quiet", "--name", "recording", "--pty", "--terminal", TERMINAL, *variables]
        airunner("submit", *options, "--", "bash", "-c", script)
        airunner("export", "--quiet", "--format", "svg", "--output", str(IMAGE), "recording")
    IMAGE.write_text(IMAGE.read_text().rstrip("\n") + f"\n{mark()}")
    return 0


def mark() -> str:
    """Return the last line of the image of this file."""
    return f"<!-- {hashlib.sha256(Path(__file__).read_bytes()).hexdigest()} -->\n"


if __name__ == "__main__":
    sys.exit(main())
