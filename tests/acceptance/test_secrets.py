"""A sealed secret reaches its job, and is nowhere else: on no disk, in no log, on no wire."""

from __future__ import annotations

import hashlib
import json
import secrets
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from airunner.agent.output.patterns import patterns_of
from tests.acceptance.running import Cluster, events
from tests.acceptance.slowlink import SlowLink

HOST = "127.0.0.2"  # before the broker's
TOKEN = secrets.token_urlsafe(24)
KEY = b"-----BEGIN KEY-----\n" + b"\n".join(secrets.token_hex(24).encode() for _ in range(20)) + b"\n\xff\0 end\n"
JOB = """
printf %s "$API_TOKEN" | sha256sum
sha256sum < "$DEPLOY_KEY"
stat -c 'mode %a' "$DEPLOY_KEY"
case $DEPLOY_KEY in "$AIRUNNER_WORKSPACE"/*) echo it is in the checkout; exit 9;; esac
echo "token=$API_TOKEN"
printf %s "$API_TOKEN" | base64
cat "$DEPLOY_KEY"
base64 "$DEPLOY_KEY"
"""
ASKING = ("--secret", "API_TOKEN", "--secret-file", "DEPLOY_KEY")


def set_secret(cluster: Cluster, name: str, value: bytes, *options: str) -> None:
    done = cluster.airunner("secret", "set", name, *options, given=value)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr


def test_a_secret_is_neither_on_the_brokers_disk_nor_in_a_log_nor_on_the_wire(cluster: Cluster, tmp_path: Path) -> None:
    broker = cluster.broker
    direct = broker.requests
    with ExitStack() as stack:
        links: list[SlowLink] = []
        for endpoint in (broker.requests, broker.events):  # at the same ports, which the broker tells itself
            listen = (HOST, int(endpoint.rpartition(":")[2]))
            links.append(stack.enter_context(closing(SlowLink(endpoint, listen=listen, keeps=True))))
        broker.requests = links[0].endpoint
        agent = cluster.agent()
        assert cluster.airunner("certs", "queue-key", "default").returncode == 0
        set_secret(cluster, "API_TOKEN", TOKEN.encode() + b"\n")
        (tmp_path / "key").write_bytes(KEY)
        set_secret(cluster, "DEPLOY_KEY", b"", "--from-file", str(tmp_path / "key"))
        (tmp_path / "key").unlink()
        done = cluster.airunner("submit", *ASKING, "--", "sh", "-c", JOB)
        assert done.returncode == 0, done.stderr
        listed = cluster.airunner("secret", "list", "--json").stdout
        shown = cluster.airunner("list", "--json").stdout
        broker.requests = direct
    captured = b"\n--\n".join(stream for link in links for stream in link.streams)
    for value in (TOKEN.encode(), KEY):
        assert hashlib.sha256(value).hexdigest().encode() in done.stdout, "the job had it, to the last byte"
    assert b"mode 600" in done.stdout
    assert b"token=[REDACTED]" in done.stdout
    assert [json.loads(line)["name"] for line in listed.splitlines()] == ["API_TOKEN", "DEPLOY_KEY"]
    everything = {str(path): path.read_bytes() for path in cluster.home.rglob("*") if path.is_file()}
    assert any(path.endswith(("airunner.db", "airunner.db-wal")) for path in everything)
    everything |= {
        "the network": captured,
        "the screen": done.stdout + done.stderr + listed + shown,
        "the broker's log": "\n".join(broker.process.lines).encode(),
        "the agent's log": "\n".join(agent.lines).encode(),
    }
    assert len(captured) > 10_000
    patterns = patterns_of([TOKEN, KEY.decode("utf-8", "surrogateescape")], count_max=10_000)
    given_away = {*patterns.literal, *patterns.folds}
    for place, content in everything.items():
        assert [pattern for pattern in given_away if pattern in content] == [], place


def test_secrets_are_set_listed_and_removed_and_outlive_the_broker(cluster: Cluster) -> None:
    assert cluster.airunner("certs", "queue-key", "builds").returncode == 0
    set_secret(cluster, "A", b"one", "--queue", "builds")
    cluster.broker.kill()
    cluster.broker.start()
    rows = cluster.airunner("secret", "list").stdout.decode().splitlines()
    assert [row.split()[:2] for row in rows] == [["SECRET", "QUEUE"], ["A", "builds"]]
    agent = cluster.agent("--queue", "builds")
    job = ("submit", "--queue", "builds", "--secret", "A", "--", "sh", "-c")
    assert cluster.airunner(*job, "test $A = one").returncode == 0
    set_secret(cluster, "A", b"two", "--queue", "builds")
    assert cluster.airunner(*job, "test $A = two").returncode == 0
    assert cluster.airunner("secret", "rm", "A", "--queue", "builds").returncode == 0
    again = cluster.airunner("secret", "rm", "A", "--queue", "builds")
    assert again.stderr.startswith(b"airunner: queue builds has no secret A")
    submitted = cluster.airunner(*job[:3], "--secret", "A", "--no-monitor", "--", "true")
    (*_, last) = events(cluster, submitted.stdout.decode().strip())
    assert (last["state"], last["reason"]) == ("FAILED", "secret-missing")
    assert agent.running


@pytest.mark.parametrize(
    ("arguments", "given", "told"),
    [
        (("set", "A"), b"value", "run `airunner certs queue-key default` where the queue's agents run"),
        (("set", "1A"), b"value", "'1A' is no name of a secret"),
        (("list", "--queue", "a b"), b"", "--queue 'a b': expected"),
        (("set", "A", "--queue", "made"), b"\n", "the value of A is empty"),
        (("set", "A", "--queue", "made", "--from-file", "/nowhere"), b"", "cannot read /nowhere: No such file"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(
    standing: Cluster, arguments: tuple[str, ...], given: bytes, told: str
) -> None:
    assert standing.airunner("certs", "queue-key", "made").returncode == 0
    done = standing.airunner("secret", *arguments, given=given)
    assert done.returncode != 0
    assert done.stderr.decode().count("\n") == 1
    assert told in done.stderr.decode()
    assert standing.airunner("secret", "list", "--json").stdout == b""


def test_the_log_names_what_is_too_short_to_be_redacted(standing: Cluster) -> None:
    variables = ("--env", "A_TOKEN=s3cr3t-value", "--env", "PRIMARY_KEY=default", "--env", "B_TOKEN=true")
    out = ("--env", "C_TOKEN=in-the-open", "--no-redact", "C_TOKEN")
    done = standing.airunner("submit", *variables, *out, "--", "echo", "s3cr3t-value default true in-the-open")
    assert done.stdout == b"[REDACTED] default true in-the-open\n", done.stderr
    assert b"airunner: not redacted, since too short or too common: B_TOKEN\n" in done.stderr
    for asked in (("list", "--limit", "5"), ("list", "--json"), ("list", "--columns", "command")):
        shown = standing.airunner(*asked).stdout
        assert b"[REDACTED] default true" in shown
        assert b"s3cr3t-value" not in shown
