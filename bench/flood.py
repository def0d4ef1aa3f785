"""Start latency of one tenant's jobs while another tenant floods the broker, and on an idle broker.

The flood is a process that keeps hundreds of requests in flight on several connections, and sends a new request for
each reply, also for a refusal: small submissions, large submissions, and lists. The peaceful tenant submits jobs at a
low rate, to an agent of its own. Its latency is measured without and with the flood in turns.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from statistics import median
from typing import Final

import zmq

from airunner.certs.curve import load_broker_public, load_client_pair
from airunner.certs.home import Home
from airunner.protocol.coding import encode
from airunner.protocol.fields import JobSpec
from airunner.protocol.frames import pack_request
from airunner.protocol.names import REQUEST_ID_BYTES, RequestId
from airunner.protocol.requests import EnqueueJob, ListJobs
from bench.cluster import Cluster, cluster, token
from bench.figures import Bound, Figure, Reading, Sample
from bench.group import Group, Round
from bench.latency import start_ms
from bench.product import Product

NAME: Final = "submit to PROCESS_START"
FIGURES: Final = (
    Figure(NAME, "ms", Bound.MOST, 2, of="the same median while nothing floods the broker"),
    Figure("the flood", "requests/s"),
)
CONNECTIONS: Final = 4  # connections of the flood
OUTSTANDING: Final = 256  # requests in flight on each connection
RATE: Final = 20.0  # jobs a second of the peaceful tenant
SECONDS: Final = 5.0  # duration of each measurement
AHEAD_S: Final = 1.5  # by which the flood begins before a measurement
BODIES: Final = (
    encode(EnqueueJob(jobs=(JobSpec(command="true", queue="flood"),))),
    encode(EnqueueJob(jobs=(JobSpec(command="true", queue="flood", args=("x" * 100,)),) * 64)),
    encode(ListJobs(page_size=100)),
)


def flood(where: Cluster, token_text: str, ended: Path) -> float:
    """Flood the broker until the file `ended` exists; return the rate in requests/s."""
    random = Random(1)
    keys = Home(where.home)
    pair, broker = load_client_pair(keys), load_broker_public(keys)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    poller = zmq.Poller()
    sockets: list[zmq.Socket[bytes]] = []
    for _ in range(CONNECTIONS):
        socket = context.socket(zmq.DEALER)
        socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = broker, pair.public, pair.secret
        socket.connect(where.requests)
        poller.register(socket, zmq.POLLIN)
        sockets.append(socket)

    def ask(socket: zmq.Socket[bytes]) -> None:
        request_id = RequestId(random.randbytes(REQUEST_ID_BYTES))
        socket.send_multipart(pack_request(request_id, token_text.encode(), random.choice(BODIES)))

    for socket in sockets:
        for _ in range(OUTSTANDING):
            ask(socket)
    answered = 0
    began_s = time.monotonic()
    while not ended.exists():
        for socket, _ in poller.poll(100):
            socket.recv_multipart()
            ask(socket)
            answered += 1
    context.destroy(linger=0)
    return answered / (time.monotonic() - began_s)


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Measure with an agent of the peaceful tenant."""
    with (
        cluster(product, spawn=4, tenant="peace") as where,
        tempfile.TemporaryDirectory(prefix="airunner-bench-") as folder,
    ):
        floods = token(product, where.home, "flood")

        def measure() -> Sample:
            idle_ms = median(product.call(start_ms, where, RATE, SECONDS))
            ended = Path(folder) / "ended"
            ended.unlink(missing_ok=True)
            flooding = product.start(flood, where, floods, ended)
            try:
                time.sleep(AHEAD_S)
                busy_ms = median(product.call(start_ms, where, RATE, SECONDS))
            finally:
                ended.touch()
            return {NAME: Reading(busy_ms, idle_ms), "the flood": Reading(flooding.result())}

        yield measure


GROUP: Final = Group("flood", FIGURES, opened, table=False)
