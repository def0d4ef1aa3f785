"""Schemathesis at the HTTP API: requests made of its description, and answers held to it. `make web-fuzz` runs it.

What it finds it prints with the curl that repeats it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.acceptance.running import REPOSITORY, Cluster, RunningBroker, make_home
from tests.acceptance.webserver import RunningWeb

CONFIG = Path(__file__).with_name("schemathesis.toml")
HOOKS = "tests.fuzz.schemathesishooks"
REQUEST_S = 10  # for an answer, on a busy machine


def fuzz(url: str, token: str, seconds: int, seed: int) -> subprocess.CompletedProcess[bytes]:
    """Ask the server for so many seconds, after the one pass that takes some more."""
    words = ["--config-file", str(CONFIG), "run", f"{url}/openapi.json", "-H", f"Authorization: Bearer {token}"]
    words += ["--seed", str(seed), "--max-time", str(seconds), "--request-timeout", str(REQUEST_S)]
    words += ["--generation-database", "none", "--continue-on-failure", "--no-color", "--warnings", "off"]
    with tempfile.TemporaryDirectory() as folder:  # it keeps the cases that failed where it runs
        return subprocess.run(
            [str(Path(sys.executable).with_name("schemathesis")), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(REPOSITORY)},
            check=False,
        )


def main() -> None:
    """Fuzz a server of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        make_home(home)
        cluster = Cluster(RunningBroker(home, "memory:", "--tenant-requests", "1000000"))
        try:
            web = RunningWeb(cluster)
            done = fuzz(web.url, web.token(ttl_s=2 * given.seconds + 3_600), given.seconds, given.seed)
            web.stop()
        finally:
            cluster.close()
    sys.stdout.buffer.write(done.stdout)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
