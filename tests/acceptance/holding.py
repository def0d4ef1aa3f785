"""A broker with somebody's jobs and secrets in it: who asks for them, and what shows that nothing has changed.

The peer speaks plain `zmq` and `msgpack`, so that nothing of ours keeps it from asking for what it may not have.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import msgpack
import zmq
from zmq.utils.monitor import recv_monitor_message

from airunner.broker.requests import KINDS
from airunner.certs.home import Home
from airunner.certs.principal import ALL_ROLES, Role
from airunner.certs.tokenkeys import load_signing_key
from airunner.certs.tokens import TokenSigner
from airunner.protocol.coding import encode
from tests.acceptance.running import RunningBroker
from tests.acceptance.test_plain_msgpack import Map, Plain
from tests.fuzz.asking import aimed_at
from tests.protocol.examples import REQUESTS

MONITORED_MS_MAX: Final = 10_000
NEEDED: Final[Mapping[str, Role]] = {request.__name__: kind.role for request, kind in KINDS.items()}
SECRET_COMMAND: Final = "secret-command"
SUBMITTING: Final = b"owner submits it"
SETTING: Final = b"owner sets it in"
RIGHT: Final = {
    "curve_serverkey": "broker.public",
    "curve_publickey": "client.public",
    "curve_secretkey": "client.secret",
}
_OVER: Final = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
)


def token(door: RunningBroker, tenant: str = "default", *roles: Role) -> str:
    """A token with these roles, or with all."""
    signer = TokenSigner(load_signing_key({}, Home(door.home)))
    return signer.mint(subject="test", tenant=tenant, roles=roles or ALL_ROLES, ttl_s=3_600, now_s=time.time())


def take_hold(owner: Plain) -> Map:
    """The owner's running job (its id, attempt and true task token), beside one that waits and a secret."""
    submitting = {"type": "EnqueueJob", "jobs": [{"command": SECRET_COMMAND}]}
    assert owner.ask(submitting, SUBMITTING)["type"] == "JobsEnqueued"
    (lease,) = owner.ask(dequeue("default", bytes(32)))["leases"]
    assert owner.ask(submitting)["type"] == "JobsEnqueued"
    assert owner.ask(example("SetSecret", {}), SETTING)["type"] == "SecretSet"
    return proof_of(lease)


def dequeue(queue: str, seed: bytes) -> Map:
    """A request for a job of a queue."""
    lease = {"type": "DequeueJob", "agent": "a", "queues": [queue], "visibility_ms": 600_000}
    return {**lease, "token_seed": seed}


def proof_of(lease: Map) -> Map:
    """What proves this lease."""
    return {name: lease[name] for name in ("job_id", "attempt", "task_token")}


def state(owner: Plain) -> list[Map]:
    """All that the owner sees: jobs and the log of each, queues, secrets and agents."""
    jobs = owner.ask({"type": "ListJobs", "page_size": 100})
    lists = [owner.ask({"type": kind}) for kind in ("ListQueues", "ListSecrets", "ListAgents")]
    for agent in lists[-1]["agents"]:
        agent.pop("silent_ms", None)  # it grows
    logs = [owner.ask({"type": "ReplayJobEvents", "job_id": job["id"]}) for job in jobs["jobs"]]
    whole = [owner.ask({"type": "GetJob", "job_id": job["id"]}) for job in jobs["jobs"]]
    return [jobs, *lists, *logs, *whole]


def example(name: str, lease: Map) -> Map:
    """The request of that name, aimed at the job of this lease."""
    aimed: Map = aimed_at(msgpack.unpackb(encode(REQUESTS[name])), lease)
    return aimed


def handshake(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, options: Mapping[str, bytes], kind: int = zmq.DEALER
) -> int:
    """What a connection with these options comes to."""
    with context.socket(kind) as socket:
        socket.linger = 0
        socket.reconnect_ivl = -1
        for name, value in options.items():
            setattr(socket, name, value)
        with socket.get_monitor_socket(_OVER) as monitor:
            monitor.rcvtimeo = MONITORED_MS_MAX
            socket.connect(endpoint)
            event = recv_monitor_message(monitor)["event"]
            socket.disable_monitor()
            return int(event)
