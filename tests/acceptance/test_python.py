"""The Python API against a real cluster: its examples, its pages, its programs, its types."""

from __future__ import annotations

import ast
import doctest
import inspect
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from xml.etree import ElementTree as ET

import pytest

import airunner
from airunner import ClientNotOpen, testing
from airunner.sync import Client
from airunner.testing import Cluster
from tests.acceptance.running import REPOSITORY
from tests.agent.checkout.repositories import commit, new_repository

TIMEOUT_S = 60
NAMES = {name: getattr(airunner, name) for name in airunner.__all__}
DOCUMENTED = [name for name in dir(Client) if ">>>" in (getattr(airunner.Client, name, None).__doc__ or "")]
ALL_DOCUMENTED = {"submit", "submit_many", "map", "wait", "follow", "logs", "search", "list", "cancel", "retry"}
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
PRINTED = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)


@pytest.fixture
def client(airunner_cluster: Cluster) -> Iterator[Client]:
    assert os.environ["AIRUNNER_BROKER"] == airunner_cluster.broker
    with Client() as opened:
        yield opened


def examples(of: object, name: str) -> list[doctest.Example]:
    return doctest.DocTestParser().get_examples(inspect.getdoc(of) or "", name)


@pytest.mark.parametrize("name", DOCUMENTED)
async def test_examples_of_the_asynchronous_client_print_what_they_say(name: str, airunner_cluster: Cluster) -> None:
    names: dict[str, Any] = {**NAMES}
    async with airunner_cluster.client() as names["client"]:
        for example in examples(getattr(airunner.Client, name), name):
            code = compile(example.source, name, "single", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            printed = StringIO()
            with redirect_stdout(printed):
                result = eval(code, names)
                if inspect.iscoroutine(result):
                    await result
            assert doctest.OutputChecker().check_output(example.want, printed.getvalue(), 0), example.source


@pytest.mark.parametrize("name", DOCUMENTED)
def test_examples_of_the_blocking_client_print_what_they_say(name: str, client: Client) -> None:
    run_doctest(getattr(Client, name), {**NAMES, "client": client})


def test_the_example_of_a_cluster_prints_what_it_says() -> None:
    run_doctest(testing.cluster, {"cluster": testing.cluster})


def run_doctest(of: object, names: dict[str, Any]) -> None:
    test = doctest.DocTest(examples(of, "example"), names, "example", None, None, None)
    assert test.examples
    said = StringIO()
    assert not doctest.DocTestRunner().run(test, out=said.write).failed, said.getvalue()


def test_every_method_that_people_need_has_an_example() -> None:
    assert set(DOCUMENTED) >= ALL_DOCUMENTED


def test_every_block_of_the_page_runs_and_prints_what_its_comments_say(client: Client, tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for number, block in enumerate(BLOCK.findall((REPOSITORY / "docs/howto/python.md").read_text())):
        if block.startswith("# test_"):
            (tmp_path / "test_page.py").write_text(block)
            words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert "1 passed" in done.stdout, done.stdout + done.stderr
            continue
        printed = StringIO()
        with redirect_stdout(printed):
            exec(compile(block, f"block {number}", "exec", dont_inherit=True), names)
        names["client"] = client
        expected = PRINTED.findall(block)
        assert not expected or printed.getvalue().splitlines() == expected


def program(name: str, *words: str) -> list[str]:
    return [sys.executable, str(REPOSITORY / "examples" / name), *words]


@pytest.mark.unmeasured
@pytest.mark.usefixtures("airunner_cluster")
def test_a_test_suite_is_fanned_out_and_its_reports_are_gathered(tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "suite")
    files = {"test_a.py": "def test_one(): pass", "test_b.py": "def test_two(): assert 1 == 2"}
    for name, text in files.items():
        (repository / name).write_text(text)
    commit(repository, "tests")
    output = tmp_path / "report.xml"
    words = (str(repository), *files, "missing.py", "--output", str(output), "--python", sys.executable)
    done = subprocess.run(program("junit.py", *words), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()) == (
        1,
        [
            "test_a.py: COMPLETED 0",
            "test_b.py: FAILED 1",
            "missing.py: FAILED 4",
            f"1 of 3 files passed; the report is {output}",
        ],
    )
    cases = {case.get("name"): [part.tag for part in case] for case in ET.parse(output).getroot().iter("testcase")}
    assert cases == {"test_one": [], "test_two": ["failure"]}
    output.unlink()
    words = (str(tmp_path / "nothing"), "test_a.py", "--output", str(output))
    subprocess.run(program("junit.py", *words), capture_output=True, check=False)
    [error] = ET.parse(output).getroot().iter("error")
    assert "is FAILED without a report" in str(error.get("message"))


@pytest.mark.usefixtures("airunner_cluster")
def test_a_nightly_batch_retries_and_is_submitted_once(tmp_path: Path) -> None:
    command = f"echo try; test $CUSTOMER = north && ! mkdir {tmp_path}/north"  # north fails once, west always
    words = program("nightly.py", "2027-01-31", "north", "west", "--backoff-s", "0.001", "--command", command)
    for _ in range(2):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, sorted(done.stdout.splitlines())) == (
            1,
            [
                "  try",
                "  try",
                "  try",
                "1 of 2 customers are done",
                "2027-01-31 north: COMPLETED after 2 tries",
                "2027-01-31 west: FAILED after 4 tries",
            ],
        )


def test_the_bot_posts_failures_and_retries_checkouts_once(client: Client, tmp_path: Path) -> None:
    posted: SimpleQueue[str] = SimpleQueue()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.put(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        words = program("failurebot.py", "--webhook", f"http://127.0.0.1:{server.server_port}", "--every-s", "0.02")
        with subprocess.Popen(words, stdout=subprocess.PIPE) as bot:
            assert bot.stdout is not None
            assert bot.stdout.readline() == b"watching for new jobs\n"
            shop = client.submit(command="sh", args=["-c", "echo no plums; exit 3"], name="shop")
            assert posted.get(timeout=TIMEOUT_S) == f"shop ({shop.id[:8]}): exit-code 3\nno plums"
            client.submit(command="make", repository=str(tmp_path / "nothing"))
            again = posted.get(timeout=TIMEOUT_S).rpartition("the checkout failed; trying again as ")[2]
            assert posted.get(timeout=TIMEOUT_S).startswith(f"make ({again[:8]}): checkout-failed 125")
            bot.terminate()
        server.shutdown()


@pytest.mark.unmeasured
def test_a_typed_program_is_narrowed_by_mypy() -> None:
    sample = Path(__file__).with_name("typedsample.py")
    words = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", str(sample)]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


def test_an_interrupt_ends_a_blocking_call_and_the_client_goes_on(client: Client) -> None:
    job = client.submit(command="sleep", args=["60"])

    def interrupt() -> None:
        next(client.follow(job, kinds=["PROCESS_START"]))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt):
        thread.start() or client.wait(job)
    client.cancel(job)
    assert client.wait(job).state is airunner.JobState.CANCELLED


def test_a_generator_that_calls_the_client_is_read_in_the_callers_thread(client: Client) -> None:
    for give in (client.submit_many, lambda jobs: client.submit_many(jobs=jobs)):
        first = client.submit(command="true", name="first")
        (again,) = give({"command": "true", "name": client.get(job).spec.name} for job in [first])
        assert client.get(again).spec.name == "first"


def test_the_end_of_a_blocking_clients_block_ends_the_calls_of_other_threads(airunner_cluster: Cluster) -> None:
    with ThreadPoolExecutor(2) as threads:
        with airunner_cluster.sync_client() as client:
            job = client.submit(command="sleep", args=["600"])
            events = client.follow(job)
            next(events)
            waiting = threads.submit(client.wait, job)
            following = threads.submit(list, events)
            client.get(job)
        for ended in (waiting, following):
            with pytest.raises(ClientNotOpen):
                ended.result()
    with airunner_cluster.sync_client() as client:
        client.cancel(job)


@pytest.mark.usefixtures("airunner_cluster")
def test_a_blocking_client_is_used_in_its_block_only() -> None:
    client = Client()
    for call in (lambda: client.get("x"), lambda: client.follow("x"), lambda: client.__exit__(None, None, None)):
        with pytest.raises(airunner.ClientNotOpen, match=r"use it inside of `with Client\(\) as client:`"):
            call()
    with client, pytest.raises(airunner.OperatorError, match="open already"):
        client.__enter__()
    with client:  # again, also while an argument of a call is made by other calls
        job = client.submit(command="echo", metadata={"kind": "word"})
        words = client.map({"command": "echo", "args": [job.id]} for job in client.list(metadata={"kind": "word"}))
        assert [ended.spec.args for ended in words] == [(job.id,)]
        events = client.follow(client.submit(command="true"))
        assert next(events).sequence == 1
    with pytest.raises(airunner.ClientNotOpen):
        list(events)
    events.close()


def test_a_cluster_ends_with_its_process(tmp_path: Path) -> None:
    code = "import airunner, sys\nwith airunner.testing.cluster(home=sys.argv[1]): print(1, flush=True), input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        supervisor = os.pidfd_open(json.loads((tmp_path / "cluster" / "lock").read_text())["pid"])
        process.kill()
    assert select.select([supervisor], [], [], TIMEOUT_S)[0]
    os.close(supervisor)
    with pytest.raises(airunner.OperatorError, match="the cluster did not start"), testing.cluster(slots=-1):
        pass
