"""Start latency of one tenant's jobs while another tenant floods the broker, and on an idle broker.

The flood is a process that keeps hundreds of requests in flight on several connections, and sends a new request for
each reply, also for a refusal: small submissions, large submissions, and lists. The peaceful tenant submits jobs at a
low rate, to an agent of its own. Its latency is measured without and with the flood in turns. A socket between the two
processes is connected once the flood has begun, and ends it when it is closed.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from random import Random
from statistics import median
from typing import Final

import zmq

from airunner.certs.curve import load_broker_public, load_client_pair
from airunner.certs.home import Home
from airunner.protocol.coding import encode
from airunner.protocol.fields import JobSpec
from airunner.protocol.frames import pack_request
from airunner.protocol.requests import EnqueueJob, ListJobs
from airunner.transport.ports import SYSTEM
from bench.cluster import Cluster, cluster, token
from bench.figures import Bound, Figure, Reading, Sample
from bench.group import Group, Round
from bench.latency import start_ms
from bench.product import Product
from bench.requests import request_id

NAME: Final = "submit to PROCESS_START"
FIGURES: Final = (
    Figure(NAME, "ms", Bound.MOST, 2, of="the same median while nothing floods the broker"),
    Figure("the flood", "requests/s"),
)
CONNECTIONS: Final = 4  # connections of the flood
OUTSTANDING: Final = 256  # requests in flight on each connection
RATE: Final = 20.0  # jobs a second of the peaceful tenant
SECONDS: Final = 5.0  # duration of each measurement
AHEAD: Final = 2 * CONNECTIONS * OUTSTANDING  # replies to the flood before a measurement begins
BEGIN_S: Final = 60.0  # for the flood to begin
BODIES: Final = (
    encode(EnqueueJob(jobs=(JobSpec(command="true", queue="flood"),))),
    encode(EnqueueJob(jobs=(JobSpec(command="true", queue="flood", args=("x" * 100,)),) * 64)),
    encode(ListJobs(page_size=100)),
)


def flood(where: Cluster, token_text: str, port: int) -> float:
    """Flood the broker; return the rate in requests/s, from the connection to this port until that is closed."""
    random = Random(1)
    keys = Home(where.home)
    pair, broker = load_client_pair(keys), load_broker_public(keys)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    poller = zmq.Poller()

    def ask(dealer: zmq.Socket[bytes]) -> None:
        request = pack_request(request_id(SYSTEM.wall_ms()), token_text.encode(), random.choice(BODIES))
        dealer.send_multipart(request)

    def answer(most: float) -> int:
        """Ask again for each reply, until there were so many or the connection is closed."""
        answered = 0
        while answered < most:
            for ready, _ in poller.poll():
                if isinstance(ready, int):  # the connection
                    return answered
                ready.recv_multipart()
                ask(ready)
                answered += 1
        return answered

    for _ in range(CONNECTIONS):
        dealer = context.socket(zmq.DEALER)
        dealer.curve_serverkey, dealer.curve_publickey, dealer.curve_secretkey = broker, pair.public, pair.secret
        dealer.connect(where.requests)
        poller.register(dealer, zmq.POLLIN)
        for _ in range(OUTSTANDING):
            ask(dealer)
    answer(AHEAD)
    with socket.create_connection(("127.0.0.1", port)) as until:
        poller.register(until, zmq.POLLIN)
        began_s = time.monotonic()
        rate = answer(math.inf) / (time.monotonic() - began_s)
    context.destroy(linger=0)
    return rate


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Measure with an agent of the peaceful tenant."""
    with cluster(product, spawn=4, tenant="peace") as where, socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(BEGIN_S)
        floods = token(product, where.home, "flood")

        def measure() -> Sample:
            idle_ms = median(product.call(start_ms, where, RATE, SECONDS))
            flooding = product.start(flood, where, floods, listening.getsockname()[1])
            with listening.accept()[0]:
                busy_ms = median(product.call(start_ms, where, RATE, SECONDS))
            return {NAME: Reading(busy_ms, idle_ms), "the flood": Reading(flooding.result())}

        yield measure


GROUP: Final = Group("flood", FIGURES, opened, table=False)
