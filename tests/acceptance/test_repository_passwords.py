"""A password in a repository's URL is for git alone, whatever stands in it; where it ends is never guessed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from airunner.protocol.fields import JobSpec
from airunner.protocol.job import decode_spec, encode_spec
from tests.acceptance.running import Cluster
from tests.agent.checkout.repositories import git, new_repository
from tests.agent.checkout.serving import HttpServer, over_http

pytestmark = pytest.mark.timeout(60)

PASSWORD = "hun'ter\"22"
UNCLEAR = "https://user:hun/ter2@127.0.0.1:9/p.git"
TELLING = r"""printf "$AIRUNNER_REPOSITORY\nhun\047ter\04222\n"; git remote -v"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HttpServer]:
    folder = tmp_path / "served"
    new_repository(folder / "p")
    git(folder, "clone", "--quiet", "--bare", "p", "p.git")
    git(folder / "p.git", "update-server-info")
    with over_http(folder, f"user:{PASSWORD}") as server:
        yield server


def test_a_password_with_quotes_opens_the_repository_and_is_seen_nowhere(cluster: Cluster, server: HttpServer) -> None:
    cluster.agent()
    url = f"http://user:{PASSWORD}@{server.authority}/p.git"
    done = cluster.airunner("submit", "--json", url, "--", "sh", "-c", TELLING)
    assert done.returncode == 0, done.stderr
    job_id = json.loads(done.stdout.splitlines()[-1])["job_id"]
    for words in (["show", job_id], ["list", "--json"], ["monitor", job_id]):
        done_too = cluster.airunner(*words)
        done.stdout += done_too.stdout + done_too.stderr
    shown = f"http://[REDACTED]@{server.authority}/p.git"
    assert shown.encode() in done.stdout
    assert b"\n[REDACTED]\n" in done.stdout, "what the job wrote itself"
    assert PASSWORD[-5:].encode() not in done.stdout.replace(b"\\", b"")


def test_one_that_an_earlier_release_has_stored_is_hidden_and_not_run_again(cluster: Cluster) -> None:
    job_id = cluster.airunner("submit", "--no-monitor", "https://host/x", "--", "true").stdout.decode().strip()
    assert cluster.airunner("cancel", job_id).returncode == 0
    cluster.broker.stop()
    with closing(apsw.Connection(str(cluster.home / "broker" / "airunner.db"))) as store:
        ((spec,),) = store.execute("SELECT spec FROM job WHERE job_id = ?", (job_id,))
        assert isinstance(spec, bytes)
        assert decode_spec(spec).repository == "https://host/x"
        store.execute("UPDATE job SET spec = ?", (encode_spec(JobSpec(command="true", repository=UNCLEAR)),))
    cluster.broker.start()
    shown = cluster.airunner("show", job_id).stdout + cluster.airunner("list", "--json").stdout
    again = cluster.airunner("retry", "--no-monitor", job_id)
    assert b"https://[REDACTED]" in shown
    assert again.returncode == 2
    assert b"cannot be submitted again" in again.stderr
    assert b"ter2" not in shown + again.stdout + again.stderr
