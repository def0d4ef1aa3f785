"""A secret is on no disk and no screen, however a job writes it."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.acceptance.running import Cluster

SECRET = "p4ss/w0rd+with=odd&chars"
ENCODED = (
    base64.b64encode(SECRET.encode()).rstrip(b"=")[:-1],
    base64.b64encode(b"user:" + SECRET.encode())[7:-4],
    quote(SECRET, safe="").encode(),
)
TELLING = """
import base64, glob, os, select, sys, urllib.parse
size, times, home, copy = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
secret = os.environ["DEPLOY_TOKEN"].encode()
quoted = urllib.parse.quote(secret, "").encode()
encodings = secret, base64.b64encode(secret), base64.b64encode(b"user:" + secret), quoted
told = b"begin " + b" ".join(encodings) + b" end\\n"
told = told * times
for at in range(0, len(told), size):
    os.write(1, told[at : at + size])
    os.write(2, told[at : at + size])
spool = b""
while spool.count(b"THE LAST") < 6:  # until the spool holds what was written; a batch may cut one of them in two
    for stream in 1, 2:
        os.write(stream, b"THE LAST\\n")
    select.select([], [], [], 0.01)  # no flood, which would take longer to send than to write
    with open(glob.glob(home + "/agent/*/spool/*")[0], "rb") as file:
        spool = file.read()
with open(copy, "wb") as file:
    file.write(spool)
"""

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(("size", "times"), [(1, 3), (65_536, 2_000)])
def test_a_secret_is_neither_in_the_spool_nor_in_the_store_nor_on_a_screen(
    cluster: Cluster, tmp_path: Path, size: int, times: int
) -> None:
    cluster.agent()
    spool = tmp_path / "spool"
    command = [sys.executable, "-c", TELLING, str(size), str(times), str(cluster.home), str(spool)]
    screen = cluster.airunner("submit", "--env", f"DEPLOY_TOKEN={SECRET}", "--", *command)
    assert screen.returncode == 0
    assert screen.stdout.count(b"begin ") == times
    assert screen.stdout.startswith(b"begin [REDACTED] [REDACTED]")
    job_id = cluster.airunner("list", "--json").stdout.split(b'"id":"')[1].split(b'"')[0].decode()
    shown = cluster.airunner("show", job_id)
    replayed = cluster.airunner("monitor", job_id, "--json")
    places = {
        "the spool": spool.read_bytes(),
        "the screen": screen.stdout + screen.stderr,
        "what is shown": shown.stdout + shown.stderr,
        "the store's log": replayed.stdout,
    }
    for place, content in places.items():
        assert b"REDACTED" in content, place
        for told in (SECRET.encode(), *ENCODED):
            assert told not in content, place
    for path in cluster.home.rglob("*"):  # the job itself, as it was submitted, holds the plain value in the store
        if path.is_file():
            assert not any(told in path.read_bytes() for told in ENCODED), path
