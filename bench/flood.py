"""Start latency of one tenant's jobs while another tenant floods the broker, and on an idle broker.

The flood is a process that keeps hundreds of requests in flight on several connections, and sends a new request for
each reply, also for a refusal: small submissions, large submissions, and lists. The peaceful tenant submits jobs at a
low rate, to an agent of its own. Its latency is measured with and without the flood in turns. Run it with
`python -m bench.flood [--rounds 3]`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from statistics import median
from typing import Final

import anyio
import zmq

from airunner.certs.curve import load_broker_public, load_client_pair
from airunner.certs.home import Home
from airunner.protocol.coding import encode
from airunner.protocol.fields import JobSpec
from airunner.protocol.frames import pack_request
from airunner.protocol.names import REQUEST_ID_BYTES, RequestId
from airunner.protocol.requests import EnqueueJob, ListJobs
from bench.cluster import Cluster, cluster, token
from bench.latency import measure

RATIO_MAX: Final = 2.0  # bound of the median latency during the flood, divided by that of the idle broker
CONNECTIONS: Final = 4  # connections of the flood
OUTSTANDING: Final = 256  # requests in flight on each connection
RATE: Final = 20.0  # jobs a second of the peaceful tenant
SECONDS: Final = 5.0  # duration of each measurement
BODIES: Final = (
    encode(EnqueueJob(jobs=(JobSpec(command="true", queue="flood"),))),
    encode(EnqueueJob(jobs=(JobSpec(command="true", queue="flood", args=("x" * 100,)),) * 64)),
    encode(ListJobs(page_size=100)),
)


def flood(requests: str, home: str, token_text: str) -> None:
    """Flood the broker until killed; print the rate in requests/s after every thousand replies."""
    random = Random(1)
    keys = Home(Path(home))
    pair, broker = load_client_pair(keys), load_broker_public(keys)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    poller = zmq.Poller()
    sockets: list[zmq.Socket[bytes]] = []
    for _ in range(CONNECTIONS):
        socket = context.socket(zmq.DEALER)
        socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = broker, pair.public, pair.secret
        socket.connect(requests)
        poller.register(socket, zmq.POLLIN)
        sockets.append(socket)

    def ask(socket: zmq.Socket[bytes]) -> None:
        request_id = RequestId(random.randbytes(REQUEST_ID_BYTES))
        socket.send_multipart(pack_request(request_id, token_text.encode(), random.choice(BODIES)))

    for socket in sockets:
        for _ in range(OUTSTANDING):
            ask(socket)
    asked = 0
    began = time.monotonic()
    while True:
        for socket, _ in poller.poll():
            socket.recv_multipart()
            ask(socket)
            asked += 1
            if asked % 1_000 == 0:
                print(f"{asked / (time.monotonic() - began):.0f}", flush=True)


@contextmanager
def flooded(running: Cluster) -> Generator[list[str]]:
    """Flood as tenant `flood` during the block; after it the yielded list contains the flood's rates in requests/s."""
    arguments = [running.requests, str(running.home), token(running, "flood")]
    command = [sys.executable, "-c", "import sys; from bench.flood import flood; flood(*sys.argv[1:])", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    rates = [process.stdout.readline().strip()]  # waits until the flood has begun
    try:
        yield rates
    finally:
        process.kill()
        rates += process.stdout.read().split()
        process.wait()


def main() -> None:
    """Print both latencies of each round; exit with 1 if the median ratio is above `RATIO_MAX`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind, in turns (default 3)")
    options = parser.parse_args()
    ratios: list[float] = []
    with cluster(spawn=4, tenant="peace") as running:
        peace = token(running, "peace")

        def latency_ms() -> float:
            return median(anyio.run(measure, running.requests, str(running.home), RATE, SECONDS, peace))

        for _ in range(options.rounds):
            idle_ms = latency_ms()
            with flooded(running) as rates:
                busy_ms = latency_ms()
            ratios.append(busy_ms / idle_ms)
            print(
                f"idle {idle_ms:5.1f} ms   beside {rates[-1]} requests/s {busy_ms:5.1f} ms   {ratios[-1]:.2f} times",
                flush=True,
            )
    print(f"median {median(ratios):.2f} times the idle latency (at most {RATIO_MAX:g})")
    sys.exit(median(ratios) > RATIO_MAX)


if __name__ == "__main__":
    main()
