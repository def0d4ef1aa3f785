"""The first commands of README.md are run as they stand there, line by line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.acceptance.running import REPOSITORY, environment
from tests.postgresql.serving import free_port

SECTION = re.compile(r"\n## First job\n(.*?)\n## ", re.DOTALL)
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def test_every_line_of_the_first_job_does_what_its_comment_says(tmp_path: Path) -> None:
    section = SECTION.search((REPOSITORY / "README.md").read_text())
    assert section is not None
    lines = "".join(BLOCK.findall(section[1])).splitlines()
    assert len(lines) > 7
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = environment(tmp_path / "home", {"PATH": path, "AIRUNNER_LISTEN": endpoint, "AIRUNNER_BROKER": endpoint})
    try:
        for line in lines:
            done = subprocess.run(["bash", "-c", line], env=environ, cwd=REPOSITORY, capture_output=True, check=False)
            code = re.search(r"exits with (\d+)", line)
            assert done.returncode == (int(code[1]) if code else 0), (line, done.stderr.decode())
            said = re.search(r"prints (\w+)", line)
            assert said is None or said[1] in done.stdout.decode()
    finally:
        subprocess.run(["airunner", "down"], env=environ, check=False)
