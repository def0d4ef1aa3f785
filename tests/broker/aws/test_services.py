"""Services of AWS behind a server that answers what is asked: nothing that AWS would say ends a broker."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from airunner.broker.aws.opening import open_lines
from airunner.broker.aws.ports import AwsFault, Entry, EventBus, Message, Queue
from airunner.broker.aws.services import EventBridgeBus, SqsQueue
from airunner.broker.store.awserrors import open_client
from airunner.broker.store.awsurl import AwsUrl
from airunner.protocol.errors import OperatorError
from tests.broker.stage import Disk

PAGE = b"<html>log in to the network</html>"


class Portal(BaseHTTPRequestHandler):
    """A captive portal: it answers everything, with its own page."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsUrl]:
    """URL of a store behind one."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with ThreadingHTTPServer(("127.0.0.1", 0), Portal) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield AwsUrl.parse(f"aws:jobs?region=eu-central-1&endpoint=http://127.0.0.1:{server.server_port}&bus=jobs")
        server.shutdown()
        thread.join()


async def test_an_event_is_not_taken_for_sent_by_a_page_of_a_proxy(url: AwsUrl) -> None:
    bus: EventBus = EventBridgeBus(open_client(url, "events", connections=1), "jobs", Disk())
    with pytest.raises(AwsFault, match="no answer of EventBridge"):
        await bus.put([Entry("JOB_LEASED", 1, "{}")])


async def test_a_queue_behind_a_page_of_a_proxy_has_no_messages(url: AwsUrl) -> None:
    client = open_client(url, "sqs", connections=1)
    queue: Queue = SqsQueue(client, "jobs-bells", f"{url.endpoint}/1/jobs-bells", Disk())
    assert await queue.receive() == []
    assert await queue.send([Message("{}")]) == 1, "it is lost"
    await queue.delete(["r"])


def test_such_a_queue_is_refused_at_the_start_in_one_line(url: AwsUrl) -> None:
    with pytest.raises(OperatorError, match="cannot use the queue jobs-bells: ") as refused, open_lines(url, print):
        pass
    assert "\n" not in refused.value.message
