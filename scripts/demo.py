"""Demonstration `make demo`: starts a temporary cluster, runs a real job on it, and removes everything again.

The job is configs/example-job.yaml: it clones this checkout and runs this project's fast tests.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hacluster import CHECKOUT, Ports, airunner, own_environment, stop

REPLAYED_EVENTS: Final = 4  # last events of the job that the demonstration replays


def run(environ: Mapping[str, str], *words: str) -> int:
    """Show a command, run it, and return its exit code."""
    print(f"\n\033[1m$ {shlex.join(words)}\033[0m" if sys.stdout.isatty() else f"\n$ {shlex.join(words)}", flush=True)
    return subprocess.run(words, env=environ, cwd=CHECKOUT, check=False).returncode


def newest(environ: Mapping[str, str]) -> tuple[str, int]:
    """Return the newest job's id, and the number of events in its log."""
    listed = subprocess.run(
        ["airunner", "list", "--limit", "1", "--json"], env=environ, check=True, capture_output=True
    )
    job_id = json.loads(listed.stdout)["id"]
    shown = subprocess.run(["airunner", "show", job_id, "--json"], env=environ, check=True, capture_output=True)
    return job_id, json.loads(shown.stdout)["last_sequence"]


def procfile_environment(home: Path, ports: Ports) -> dict[str, str]:
    """Return the environment for the Procfile's processes and for their clients."""
    broker = f"tcp://127.0.0.1:{ports.requests}"
    return {
        **own_environment(home),
        "AIRUNNER_LISTEN": broker,
        "AIRUNNER_EVENTS": f"tcp://127.0.0.1:{ports.events}",
        "AIRUNNER_HTTP": f"127.0.0.1:{ports.http}",
        "AIRUNNER_BROKER": broker,
    }


@contextmanager
def cluster(environ: Mapping[str, str], log: Path) -> Generator[None]:
    """Run the Procfile's processes until the end of the block."""
    with log.open("wb") as output:
        honcho = subprocess.Popen(
            [sys.executable, "-m", "honcho", "start"],
            env=environ,
            cwd=CHECKOUT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        stop(honcho.pid)
        honcho.wait()


def demonstrate(environ: Mapping[str, str]) -> int:
    """Submit, list, replay and show a job; return the exit code of the first command that fails, or 0."""
    submitted = run(environ, "airunner", "submit", "--config", "configs/example-job.yaml", str(CHECKOUT))
    listed = run(environ, "airunner", "list")
    job_id, events = newest(environ)
    first = str(max(1, events - REPLAYED_EVENTS + 1))
    replayed = run(environ, "airunner", "monitor", job_id, "--from-sequence", first)
    shown = run(environ, "airunner", "show", job_id)
    return submitted or listed or replayed or shown


def main() -> int:
    """Run the demonstration; return 0 if the job was COMPLETED."""
    with tempfile.TemporaryDirectory(prefix="airunner-demo-") as scratch:
        home = Path(scratch, "home")
        environ = procfile_environment(home, Ports.free())
        log = Path(scratch, "cluster.log")
        airunner(environ, home, "certs", "init")
        print(f"\nstarting the cluster of the Procfile: {environ['AIRUNNER_BROKER']}", flush=True)
        with cluster(environ, log):
            code = demonstrate(environ)
        if code:
            print(f"\nthe demo failed (exit code {code}); the cluster's log:\n{log.read_text()}", file=sys.stderr)
        else:
            print("\nthe job is COMPLETED with exit code 0, and the cluster is stopped again", flush=True)
        return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
