"""Jobs for pages to show, of each kind and state: what a small project has on an ordinary day."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from airunner.protocol.replies import QueueMode
from tests.browser.sites import Site

PIPES: Final = r"""
echo "--- Collecting"
printf 'collected \033[1m412 items\033[0m in 3 files\n'
echo "+++ Running"
for suite in api broker client; do
    printf '\033[32mPASSED\033[0m tests/%s/test_life.py::test_a_job_ends_once\n' $suite
    printf '\033[33mSKIPPED\033[0m tests/%s/test_disk.py (no room for it)\n' $suite
done
echo "warning: the cache is cold" >&2
for percent in 10 40 70 100; do printf '\rcoverage %s %%' $percent; done; echo
"""
FAILING: Final = (
    PIPES
    + r"""
printf '\033[31mFAILED\033[0m tests/broker/test_lease.py::test_a_lease_ends - assert 41 == 42\n'
echo '::group::Traceback'
echo 'tests/broker/test_lease.py:17: AssertionError'
echo '::endgroup::'
exit 1
"""
)
LOAD: Final = "echo warming up; exec sleep 1000"
TERMINAL: Final = r"""
printf '\033[2J\033[H\033[1;44;97m deploy to production %*s\033[0m\n\n' 58 "$(tput cols)x$(tput lines)"
for host in web-1 web-2 web-3 db-1; do
    printf '  \033[36m%-8s\033[0m [' $host
    for step in 1 2 3 4 5 6 7 8 9 10 11 12; do printf '\033[38;5;%sm#\033[0m' $((40 + step)); done
    printf '] \033[32mdone\033[0m\n'
done
printf '\n\033[38;2;255;140;0mfour hosts\033[0m, \033[4mno downtime\033[0m\n'
"""


SCRIPTS: Final = {"test.sh": PIPES, "integration.sh": FAILING, "deploy.sh": TERMINAL, "load.sh": LOAD}


class Prepared:
    """Ids of the jobs of a site that have something to show."""

    def __init__(self, site: Site, folder: Path) -> None:
        repository = _repository(folder / "product")
        with site.sdk() as client:

            def submit(name: str, script: str, **fields: object) -> str:
                notes = {"team": "core", "pipeline": "412"}
                given = {"repository": str(repository), "branch": "main", "owner": "ada", "metadata": notes, **fields}
                return client.submit(command="bash", args=[script], name=name, **given).id

            self.passed = submit("unit tests", "test.sh")
            self.failed = submit("integration tests (3.12)", "integration.sh")
            self.terminal = submit("deploy", "deploy.sh", process_type="pty")
            client.wait_many([self.passed, self.failed, self.terminal])
            self.running = submit("load test", "load.sh", owner="grace")
            self.waiting = submit("train", "test.sh", queue="gpu", require={"gpu": "a100"})
            self.paused = submit("nightly", "test.sh", queue="nightly", priority=5)
            client.update_queue("nightly", QueueMode.PAUSED)
        assert site.cluster.airunner("certs", "queue-key", "default").returncode == 0
        for name in ("NPM_TOKEN", "SENTRY_DSN"):
            assert site.cluster.airunner("secret", "set", name, given=b"a value").returncode == 0


def _repository(root: Path) -> Path:
    """A repository with one commit."""
    root.mkdir()
    for name, script in SCRIPTS.items():
        (root / name).write_text(script, encoding="utf-8")
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    for words in (("init", "-q", "-b", "main"), ("add", "."), (*identity, "commit", "-qm", "First commit")):
        subprocess.run(("git", *words), cwd=root, check=True)
    return root
