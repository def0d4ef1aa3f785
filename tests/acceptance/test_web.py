"""`airunner web` as a process: killed, stopped, twice beside itself, without its broker, without its libraries."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile

import httpx
import pytest

from airunner.client.web.origins import LIBRARIES
from tests.acceptance.running import Cluster, Gate, environment, run, submit
from tests.acceptance.webserver import RunningWeb

WITHOUT = """
import sys
for library in {libraries}:
    sys.modules[library] = None  # as if it were not installed
sys.argv = ["airunner", *{words}]
from airunner.__main__ import main
main()
"""
IMPORTED = """
import sys
from airunner.commandline import make_app
make_app({command!r})
print(*sys.modules)
"""


def test_a_killed_server_disturbs_no_job_and_keeps_its_sessions(cluster: Cluster, web: RunningWeb, gate: Gate) -> None:
    cluster.agent()
    browser, reader = web.browser(), web.browser(("--role", "read", "--subject", "ada"))
    job = submit(cluster, gate.script)
    gate.wait()
    assert reader.get(f"/v1/jobs/{job}").json()["state"] == "RUNNING"
    assert reader.post(f"/v1/jobs/{job}/cancel").status_code == 403
    web.kill()
    with pytest.raises(httpx.ConnectError):
        browser.get("/")
    gate.open(1)
    assert cluster.airunner("wait", job).returncode == 0
    web.start()
    assert browser.get("/").status_code == 200
    link = web.link()
    web.kill()
    silent = cluster.airunner("login-link")
    assert silent.stdout.decode().startswith(f"{web.url}/login/")
    assert silent.stderr.decode() == (
        f"airunner: nothing listens at {web.url} yet: `airunner web` of this home starts the server\n"
    )
    web.start()
    assert cluster.airunner("login-link").stderr == b""
    assert httpx.post(link).status_code == 303, "a link outlives the server too"
    assert httpx.post(link).status_code == 404


def test_a_broker_that_is_away_is_said_with_when_to_come_again_and_nothing_has_to_be_done_when_it_is_back(
    cluster: Cluster, web: RunningWeb
) -> None:
    browser, curl = web.browser(), web.bearing()
    assert curl.get("/v1/jobs").status_code == 200
    cluster.broker.kill()
    with ThreadPoolExecutor() as pool:  # both at once, as each waits for a while
        away, page = pool.map(lambda call: call(), (lambda: curl.get("/v1/jobs"), lambda: browser.get("/")))
    assert (away.status_code, away.headers["retry-after"]) == (503, "2")
    assert away.json()["code"] == "unavailable"
    assert page.status_code == 503
    assert "The broker does not answer" in page.text
    cluster.broker.start()
    assert curl.get("/v1/jobs").status_code == 200
    assert browser.get("/").status_code == 200


def test_a_signal_ends_streams_with_an_id_to_resume_from(cluster: Cluster, web: RunningWeb, gate: Gate) -> None:
    cluster.agent()
    job = submit(cluster, gate.script)
    gate.wait()
    curl = web.bearing()
    with curl.stream("GET", f"/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"}) as stream:
        lines = stream.iter_lines()
        until_output = list(takewhile(lambda line: "early" not in line, lines))
        assert web.stop() == 0
        rest = list(lines)
    assert [line for line in rest if line][-2:] == ["event: over", "data: stopping"]
    last = [line for line in (*until_output, *rest) if line.startswith("id: ")][-1].removeprefix("id: ")
    gate.open(1)
    web.start()
    resumed = curl.get(f"/v1/jobs/{job}/events", headers={"Accept": "text/event-stream", "Last-Event-ID": last})
    ids = [int(line[4:]) for line in resumed.text.splitlines() if line.startswith("id: ")]
    assert ids[0] == int(last) + 1


def test_one_of_two_servers_redeems_a_link(cluster: Cluster, web: RunningWeb) -> None:
    other = RunningWeb(cluster)
    try:
        with ThreadPoolExecutor(16) as pool:
            for _ in range(4):
                path = web.link().partition("/login/")[2]
                posts = pool.map(lambda url, path=path: httpx.post(f"{url}/login/{path}"), [web.url, other.url] * 8)
                assert sorted(answer.status_code for answer in posts) == [303, *[404] * 15]
        session = web.browser().cookies
        assert httpx.get(f"{other.url}/v1/jobs", cookies=session).status_code == 200, "they have one key"
    finally:
        other.close()


def test_what_cannot_be_served_is_one_line(cluster: Cluster, web: RunningWeb) -> None:
    for words, code, said in (
        (("--listen", web.listen), 69, f"cannot serve HTTP on {web.listen}: Address already in use; is another server"),
        (("--listen", "here"), 64, "--listen 'here' is not an address: it names no port; write HOST:PORT"),
        (("--public-url", "ci.example.org"), 64, "--public-url 'ci.example.org': expected a URL such as https://"),
        (("--public-url", "https://ci.example.org/x"), 64, "without a path"),
    ):
        done = cluster.airunner("web", *words)
        assert done.returncode == code
        assert said in done.stderr.decode()
        assert done.stderr.count(b"\n") == 1


def test_an_open_server_without_tls_is_warned_of_and_one_behind_a_proxy_is_not(cluster: Cluster) -> None:
    for words, warns in ((), True), (("--public-url", "https://ci.example.org"), False):
        running = RunningWeb(cluster, "--listen", "0.0.0.0:0", *words)
        assert warns == running.url.startswith("http://127.0.0.1:")
        assert any("warning: other machines reach 0.0.0.0" in line for line in running.process.lines) == warns
        assert running.stop() == 0
    assert cluster.airunner("login-link").stdout.startswith(b"https://ci.example.org/login/")


def test_without_its_libraries_the_server_names_them_and_every_other_command_works(cluster: Cluster) -> None:
    def without(*words: str) -> subprocess.CompletedProcess[str]:
        program = WITHOUT.format(libraries=LIBRARIES, words=words)
        return subprocess.run(
            [sys.executable, "-c", program], env=cluster.environ, capture_output=True, text=True, check=False
        )

    done = without("web")
    assert (done.returncode, done.stderr.count("\n")) == (64, 1)
    assert "pip install 'airunner-jobs[web]'" in done.stderr
    assert without("list", "--json").returncode == 0
    assert without("login-link").stdout.startswith("http://127.0.0.1:8090/login/")


@pytest.mark.parametrize("command", ["submit", "list", "web", "login-link", "up"])
def test_no_command_line_imports_a_library_of_the_server(cluster: Cluster, command: str) -> None:
    program = IMPORTED.format(command=command)
    environ = environment(cluster.home)
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert "typer" in done.stdout.split()
    assert not {*LIBRARIES, "h11", "anyio._backends"} & set(done.stdout.split())
    assert run(environ, command, "--help").returncode == 0
