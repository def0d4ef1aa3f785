"""Who is refused at the broker's door, each over a real socket; and that nothing has changed by it.

The peer speaks plain `zmq` and `msgpack`, so that nothing of ours keeps it from asking for what it may not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from socket import create_connection

import msgpack
import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from airunner.protocol.coding import encode
from airunner.protocol.frames import BODY_BYTES_MAX
from tests.acceptance.holding import (
    MONITORED_MS_MAX,
    NEEDED,
    RIGHT,
    SECRET_COMMAND,
    SETTING,
    SUBMITTING,
    example,
    handshake,
    token,
)
from tests.acceptance.running import RunningBroker, airunner
from tests.acceptance.test_plain_msgpack import VERSION, Map, Plain
from tests.fuzz.handshake import COMMAND, GREETING_BYTES, LONG, CurveClient, frame, greeting, metadata
from tests.fuzz.streams import MORE
from tests.protocol.examples import REQUESTS

pytestmark = pytest.mark.usefixtures("nothing_changes")


# --- roles and tenants --------------------------------------------------------------------------------

NOBODYS = "019b7765-6400-7000-8000-000000000009"


@pytest.mark.parametrize("name", [name for name in NEEDED if "job_id" in str(msgpack.unpackb(encode(REQUESTS[name])))])
def test_another_tenants_job_is_as_one_that_is_not_there(door: RunningBroker, held: Map, name: str) -> None:
    with Plain(door, token(door, "stranger")) as stranger:
        theirs = stranger.ask(example(name, held))
        nobodys = stranger.ask(example(name, {**held, "job_id": NOBODYS}))
    assert str(theirs).replace(held["job_id"], "ID") == str(nobodys).replace(NOBODYS, "ID")
    assert "not-found" in str(theirs) or "lost" in str(theirs)
    assert SECRET_COMMAND not in str(theirs)


def test_the_same_names_are_another_tenants_own(door: RunningBroker, owner: Plain, held: Map) -> None:
    """Ids of requests too: what another tenant has asked under one is neither a conflict nor answered again."""
    opening = b"owner opens it.."
    assert owner.ask({"type": "UpdateQueue", "queue": "default", "mode": "open"}, opening)["mode"] == "open"
    with Plain(door, token(door, "copycat")) as copycat:
        paused = copycat.ask({"type": "UpdateQueue", "queue": "default", "mode": "paused"}, opening)
        assert paused == {"type": "QueueUpdated", "queue": "default", "mode": "paused"}
        (mine,) = copycat.ask({"type": "EnqueueJob", "jobs": [{"command": "true"}]}, SUBMITTING)["job_ids"]
        assert mine != held["job_id"]
        assert [job["id"] for job in copycat.ask({"type": "ListJobs"})["jobs"]] == [mine]
        (queue,) = copycat.ask({"type": "ListQueues"})["queues"]
        assert (queue["mode"], queue["waiting"]) == ("paused", 1)
        assert copycat.ask({**example("SetSecret", {}), "box": b"mine"}, SETTING) == {"type": "SecretSet"}
        assert len(copycat.ask({"type": "ListSecrets"})["secrets"]) == 1
        assert copycat.ask(example("RemoveSecret", {})) == {"type": "SecretRemoved"}
        assert copycat.ask({"type": "ListSecrets"})["secrets"] == []


# --- sockets ------------------------------------------------------------------------------------------


def test_whoever_has_not_the_right_keys_gets_no_connection(door: RunningBroker, owner: Plain) -> None:
    right = {name: owner.key(file) for name, file in RIGHT.items()}
    public, secret = zmq.curve_keypair()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    for case, options in {
        "no CURVE": {},
        "PLAIN": {"plain_username": b"admin", "plain_password": b"admin"},
        "an unknown key": {**right, "curve_publickey": public, "curve_secretkey": secret},
        "the wrong broker's key": {**right, "curve_serverkey": public},
    }.items():
        for endpoint, kind in ((door.requests, zmq.DEALER), (door.events, zmq.SUB)):
            assert handshake(context, endpoint, options, kind) != zmq.EVENT_HANDSHAKE_SUCCEEDED, case
            assert handshake(context, endpoint, right, kind) == zmq.EVENT_HANDSHAKE_SUCCEEDED
    context.destroy(linger=0)


def test_a_routing_id_is_nobodys_name(door: RunningBroker, held: Map) -> None:
    """Two peers claim one routing id: the first is served on, and hears nothing that was not meant for it."""
    plain = [Plain(door, token(door, "stranger")) for _ in range(2)]
    try:
        for one in plain:
            one.dealer.close()
            one.dealer = one.socket(zmq.DEALER, "")
            one.dealer.routing_id = b"claimed"
            with one.dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED) as monitor:
                monitor.rcvtimeo = MONITORED_MS_MAX
                one.dealer.connect(door.requests)
                assert recv_monitor_message(monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
                one.dealer.disable_monitor()
            if one is plain[0]:
                assert one.ask({"type": "Ping"})["type"] == "Pong"
        plain[1].send({"type": "GetJob", "job_id": held["job_id"]})
        for _ in range(10):
            assert plain[0].ask({"type": "GetJob", "job_id": held["job_id"]})["code"] == "not-found"
        assert plain[1].dealer.poll(0) == 0
    finally:
        for one in plain:
            one.context.destroy(linger=0)


def test_a_name_that_only_a_broker_may_give_gets_nothing_that_was_meant_for_another(
    door: RunningBroker, owner: Plain, held: Map
) -> None:
    """libzmq lets no peer of its own begin a routing id with a zero, as those are that it draws itself."""
    ping = Plain(door, "")
    with ExitStack() as stack:
        stack.callback(ping.context.destroy, linger=0)
        forgers = [
            stack.enter_context(closing(Forger(door, identity)))
            for identity in (b"\0\0\0\0\1", b"\0\xff\xff\xff\xff", b"\0", bytes(5), bytes(255), b"\xff" * 255)
        ]
        for _ in range(10):
            assert owner.ask({"type": "GetJob", "job_id": held["job_id"]})["type"] == "JobFound"
            assert ping.ask({"type": "Ping"})["type"] == "Pong"
        for number, forger in enumerate(forgers):
            request_id = bytes([number]) * 16
            forger.send([VERSION, request_id, b"", msgpack.packb({"type": "Ping"})])
            version, answered, body = forger.receive(3)
            assert (version, answered) == (VERSION, request_id), "the first that comes is its own"
            assert msgpack.unpackb(body)["type"] == "Pong"
        assert owner.ask({"type": "Ping"})["type"] == "Pong"


class Forger:
    """A listed key that names itself, over plain TCP."""

    def __init__(self, door: RunningBroker, identity: bytes) -> None:
        self._client = CurveClient.of_home(door.home / "certs")
        host, _, port = door.requests.removeprefix("tcp://").rpartition(":")
        self._connection = create_connection((host, int(port)), MONITORED_MS_MAX / 1_000)
        self._stream = self._connection.makefile("rb")
        self._connection.sendall(greeting() + frame(self._client.hello(), COMMAND))
        assert len(self._stream.read(GREETING_BYTES)) == GREETING_BYTES
        self._client.welcome(self._next())
        properties = metadata({b"Socket-Type": b"DEALER", b"Identity": identity})
        self._connection.sendall(frame(self._client.initiate(properties), COMMAND))
        assert self._next().startswith(b"\x05READY")

    def send(self, frames: list[bytes]) -> None:
        for left, content in zip(reversed(range(len(frames))), frames, strict=True):
            self._connection.sendall(frame(self._client.message(content, MORE if left else 0)))

    def receive(self, count: int) -> list[bytes]:
        return [self._client.opened(self._next()) for _ in range(count)]

    def close(self) -> None:
        self._stream.close()
        self._connection.close()

    def _next(self) -> bytes:
        """What the next frame holds."""
        flags = self._stream.read(1)[0]
        return self._stream.read(int.from_bytes(self._stream.read(8 if flags & LONG else 1), "big"))


def test_a_message_on_the_events_socket_ends_nothing(door: RunningBroker, owner: Plain) -> None:
    """Frames that are no subscriptions, and one that says that another follows, which libzmq takes out."""
    topic = b"sixteen bytes..."
    with Plain(door, "") as stranger:
        first, second = (stranger.socket(zmq.XSUB, door.events) for _ in range(2))
        for ear in (first, second):
            ear.setsockopt(zmq.ONLY_FIRST_SUBSCRIBE, 1)
            ear.send(b"\1" + topic)
            assert ear.recv_multipart() == [topic, b""]
        for frames in ([b"\5x", b"\0" + topic], [b"\5x", b"\1" + topic], [b"", b""], [b"\0"], [b"\2" * 400] * 100):
            first.send_multipart(frames)
        # What comes after it on the same connection is heard, so all of it was.
        first.send(b"\1" + topic[::-1])
        while first.recv_multipart() != [topic[::-1], b""]:
            pass
        assert owner.ask({"type": "Ping"})["type"] == "Pong"


def test_the_largest_body_is_heard_and_one_byte_more_ends_the_connection(door: RunningBroker, owner: Plain) -> None:
    assert owner.ask(padded(BODY_BYTES_MAX))["code"] == "bad-request", "a Ping is shorter, but it was heard"
    with (
        Plain(door, token(door, "stranger")) as stranger,
        stranger.dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor,
    ):
        monitor.rcvtimeo = MONITORED_MS_MAX
        stranger.send(padded(BODY_BYTES_MAX + 1))
        assert recv_monitor_message(monitor)["event"] == zmq.EVENT_DISCONNECTED
        stranger.dealer.disable_monitor()


def padded(size_bytes: int) -> Map:
    """A Ping whose body takes so many bytes."""
    request = {"type": "Ping", "padding": bytes(70_000)}
    return {**request, "padding": bytes(70_000 + size_bytes - len(msgpack.packb(request)))}


BY_TASK_TOKEN = {  # it proves the lease
    *("UpdateJob", "PublishJobEvents", "CompleteJob", "ReleaseJob", "ReadJobStdin", "HaveBlobs", "PutBlob"),
    *("GetCache", "PutCache"),
}
LISTS = {"ListJobs", "ListQueues", "ListSecrets", "ListAgents", "ListBrokers"}


class Machine(Plain):
    """A peer with keys of its own, which were added to the list, and a token of the owner's with all roles."""

    def __init__(self, door: RunningBroker, name: str, *options: str) -> None:
        self._public, self._secret = zmq.curve_keypair()
        airunner(door.home, "certs", "add", name, "--key", self._public.decode(), *options)
        super().__init__(door, token(door, "owner"))

    def key(self, name: str) -> bytes:
        return {"client.public": self._public, "client.secret": self._secret}.get(name) or super().key(name)


def test_a_revoked_machine_is_refused_each_message_on_the_connection_that_it_has(
    door: RunningBroker, held: Map
) -> None:
    with Machine(door, "revoked", "--role", "agent,client", "--any-queue") as machine:
        assert machine.ask(example("GetJob", held))["type"] == "JobFound"
        airunner(door.home, "certs", "revoke", "revoked")
        for name in ("Ping", *NEEDED):
            reply = machine.ask(example(name, held))
            assert (reply["type"], reply["code"]) == ("Refused", "unauthenticated"), name
            assert "allow-list" in reply["message"]


@pytest.fixture(scope="module")
def bound(door: RunningBroker) -> Iterator[Machine]:
    """A machine of both roles that is bound to another queue than the owner's jobs are in."""
    with Machine(door, "bound", "--role", "agent,client", "--queue", "ci") as machine:
        yield machine


@pytest.mark.parametrize("name", sorted(set(NEEDED) - BY_TASK_TOKEN - LISTS))
def test_a_machine_bound_to_a_queue_can_neither_use_nor_see_another(bound: Machine, held: Map, name: str) -> None:
    reply = bound.ask(example(name, held))
    assert (reply["type"], reply["code"]) in {("Refused", "forbidden"), ("Refused", "not-found")}
