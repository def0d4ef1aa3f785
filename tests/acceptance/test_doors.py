"""Who is refused at the broker's door, each over a real socket; and that nothing has changed by it.

The peer speaks plain `zmq` and `msgpack`, so that nothing of ours keeps it from asking for what it may not have.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import msgpack
import pytest
import zmq
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from zmq.utils.monitor import recv_monitor_message

from airunner.broker.admission import ROLES
from airunner.certs.home import Home
from airunner.certs.principal import Role
from airunner.certs.tokenkeys import load_signing_key, thumbprint
from airunner.protocol.frames import BODY_BYTES_MAX
from airunner.protocol.messages import encode
from tests.acceptance.running import RunningBroker, airunner, running_broker
from tests.acceptance.test_plain_msgpack import Map, Plain
from tests.protocol.examples import REQUESTS

pytestmark = pytest.mark.timeout(60)

MONITORED_MS_MAX = 10_000


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """One broker for all who are refused: none of them may change anything."""
    home = tmp_path_factory.mktemp("doors") / "home"
    airunner(home, "certs", "init")
    with running_broker(home, "memory:") as running:
        yield running


def token(door: RunningBroker, tenant: str = "default", *roles: str) -> str:
    options = ["--role", ",".join(roles)] if roles else []
    return airunner(door.home, "token", "--subject", "test", "--tenant", tenant, *options).strip()


@pytest.fixture(scope="module")
def owner(door: RunningBroker) -> Iterator[Plain]:
    """Whoever owns the job that the others are after, and holds its first attempt."""
    plain = Plain(door, token(door, "owner"))
    yield plain
    plain.context.destroy(linger=0)


@pytest.fixture(scope="module")
def held(owner: Plain) -> Map:
    """The owner's running job: its id, attempt and true task token."""
    (job_id,) = owner.ask({"type": "EnqueueJob", "jobs": [{"command": "secret-command"}]})["job_ids"]
    lease = {"type": "DequeueJob", "agent": "a", "queues": ["default"], "visibility_ms": 600_000}
    (granted,) = owner.ask({**lease, "token_seed": bytes(32)})["leases"]
    return {"job_id": job_id, "attempt": 1, "task_token": granted["task_token"]}


def state(owner: Plain) -> list[Map]:
    """All that the owner sees: jobs, queues and the log of each job."""
    jobs = owner.ask({"type": "ListJobs", "page_size": 100})
    logs = [owner.ask({"type": "ReplayJobEvents", "job_id": job["id"]}) for job in jobs["jobs"]]
    whole = [owner.ask({"type": "GetJob", "job_id": job["id"]}) for job in jobs["jobs"]]
    return [jobs, owner.ask({"type": "ListQueues"}), *logs, *whole]


@pytest.fixture(autouse=True)
def nothing_changes(owner: Plain, held: Map) -> Iterator[None]:
    assert held
    before = state(owner)
    yield
    assert state(owner) == before


def refused(door: RunningBroker, words: str, request: Map) -> Map:
    plain = Plain(door, words)
    try:
        return plain.ask(request)
    finally:
        plain.context.destroy(linger=0)


# --- tokens -------------------------------------------------------------------------------------------


def forged_tokens(home: Path) -> dict[str, str]:
    key = load_signing_key({}, Home(home))
    kid, now = thumbprint(key.public_key()), int(time.time())
    claims: dict[str, Any] = {
        "iss": "airunner",
        "aud": "airunner",
        "sub": "mallory",
        "tenant": "owner",
        "roles": ["admin", "read", "submit", "work"],
        "iat": now,
        "exp": now + 600,
    }

    def signed(change: dict[str, Any], *, by: Any = key, alg: str = "ES256", name: str | None = kid) -> str:
        wanted = {claim: value for claim, value in {**claims, **change}.items() if value is not None}
        return jwt.encode(wanted, by, algorithm=alg, headers={"kid": name} if name else {})

    header = jwt.utils.base64url_encode(b'{"alg":"HS256","typ":"JWT","kid":"' + kid.encode() + b'"}')
    payload = signed({}).split(".")[1].encode()
    public_pem = (home / "certs" / "token.public.pem").read_bytes()
    mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(header + b"." + payload, public_pem)
    return {
        "none": "",
        "no JWT": "no.jwt.atall",
        "expired": signed({"iat": now - 60, "exp": now - 1}),
        "not yet valid": signed({"nbf": now + 3_600}),
        "from the future": signed({"iat": now + 3_600, "exp": now + 7_200}),
        "wrong issuer": signed({"iss": "somebody"}),
        "wrong audience": signed({"aud": "somewhere"}),
        **{
            f"without {claim}": signed({claim: None})
            for claim in ("iss", "aud", "iat", "exp", "sub", "tenant", "roles")
        },
        "alg none": jwt.encode(claims, None, algorithm="none", headers={"kid": kid}),
        "HS256 with the public key": b".".join([header, payload, jwt.utils.base64url_encode(mac)]).decode(),
        "unknown kid": signed({}, name="unknown"),
        "no kid": signed({}, name=None),
        "another key under our kid": signed({}, by=ec.generate_private_key(ec.SECP256R1())),
        "RS256": signed({}, by=rsa.generate_private_key(65_537, 2_048), alg="RS256"),
        "ES384": signed({}, by=ec.generate_private_key(ec.SECP384R1()), alg="ES384"),
    }


def test_every_other_token_opens_nothing(door: RunningBroker, held: Map) -> None:
    for case, words in forged_tokens(door.home).items():
        for request in (
            {"type": "GetJob", "job_id": held["job_id"]},
            {"type": "CancelJob", "job_id": held["job_id"]},
            {"type": "EnqueueJob", "jobs": [{"command": "true"}]},
        ):
            reply = refused(door, words, request)
            assert (reply["type"], reply["code"]) == ("Refused", "unauthenticated"), case
            assert not words or words not in reply["message"], case


# --- roles and tenants --------------------------------------------------------------------------------

NOBODYS = "019b7765-6400-7000-8000-000000000009"
BY_NAME = {kind.__name__: role for kind, role in ROLES.items()}


def example(name: str, held: Map) -> Map:
    """The request of that name, aimed at the owner's job with its true task token."""
    request: Map = msgpack.unpackb(encode(REQUESTS[name]))
    parts = [request, *request.get("leases", ()), *request.get("batches", ()), *request.get("completions", ())]
    for part in parts:
        for field in ("job_id", "attempt", "task_token"):
            if field in part:
                part[field] = held[field]
    return request


@pytest.mark.parametrize("name", BY_NAME)
def test_a_token_without_the_role_is_forbidden_each_message(door: RunningBroker, held: Map, name: str) -> None:
    others = [role.value for role in Role if role is not BY_NAME[name]]
    reply = refused(door, token(door, "owner", *others), example(name, held))
    assert (reply["type"], reply["code"]) == ("Refused", "forbidden")


@pytest.mark.parametrize("name", [name for name in BY_NAME if "job_id" in str(msgpack.unpackb(encode(REQUESTS[name])))])
def test_another_tenants_job_is_as_one_that_is_not_there(door: RunningBroker, held: Map, name: str) -> None:
    stranger = Plain(door, token(door, "stranger"))
    try:
        theirs = stranger.ask(example(name, held))
        nobodys = stranger.ask(example(name, {**held, "job_id": NOBODYS}))
    finally:
        stranger.context.destroy(linger=0)
    assert str(theirs).replace(held["job_id"], "ID") == str(nobodys).replace(
        "019b7765-6400-7000-8000-000000000009", "ID"
    )
    assert "not-found" in str(theirs) or "lost" in str(theirs)
    assert "secret-command" not in str(theirs)


def test_another_tenant_neither_sees_nor_leases_nor_repeats(door: RunningBroker, owner: Plain, held: Map) -> None:
    assert held
    stranger = Plain(door, token(door, "stranger"))
    try:
        assert stranger.ask({"type": "ListJobs"})["jobs"] == []
        assert stranger.ask({"type": "ListQueues"})["queues"] == []
        assert stranger.ask({"type": "ListAgents"})["agents"] == []
        lease = {"type": "DequeueJob", "agent": "a", "queues": ["default"], "visibility_ms": 60_000}
        assert stranger.ask({**lease, "token_seed": bytes(32)})["leases"] == []
        # The same request id is another tenant's own: it is neither a conflict nor the other's answer.
        name = b"0123456789abcdef"
        mine = {"type": "UpdateQueue", "queue": "default", "mode": "open"}
        assert owner.ask(mine, name) == stranger.ask(mine, name)
    finally:
        stranger.context.destroy(linger=0)


@pytest.mark.parametrize("name", ["UpdateJob", "PublishJobEvents", "CompleteJob", "ReleaseJob"])
def test_the_token_of_another_attempt_proves_nothing(door: RunningBroker, owner: Plain, held: Map, name: str) -> None:
    assert door.process.running
    for wrong in ({**held, "task_token": bytes(32)}, {**held, "attempt": 2}):
        reply = str(owner.ask(example(name, wrong)))
        assert "stale-token" in reply or "lost" in reply


# --- sockets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["no CURVE", "PLAIN", "an unknown key", "the wrong broker's key"])
def test_whoever_has_not_the_right_keys_gets_no_connection(door: RunningBroker, owner: Plain, case: str) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        for endpoint in (door.requests, door.events):
            assert handshake(context, endpoint, keys_of(owner, case)) != zmq.EVENT_HANDSHAKE_SUCCEEDED
        right = {name: owner.key(file) for name, file in RIGHT.items()}
        assert handshake(context, door.requests, right) == zmq.EVENT_HANDSHAKE_SUCCEEDED
    finally:
        context.destroy(linger=0)


RIGHT = {"curve_serverkey": "broker.public", "curve_publickey": "client.public", "curve_secretkey": "client.secret"}


def keys_of(owner: Plain, case: str) -> dict[str, bytes]:
    """What such a peer sets on its socket."""
    if case == "no CURVE":
        return {}
    if case == "PLAIN":
        return {"plain_username": b"admin", "plain_password": b"admin"}
    public, secret = zmq.curve_keypair()
    if case == "the wrong broker's key":
        right = {name: owner.key(file) for name, file in RIGHT.items()}
        return {**right, "curve_serverkey": public}
    return {"curve_serverkey": owner.key("broker.public"), "curve_publickey": public, "curve_secretkey": secret}


def handshake(context: zmq.Context[zmq.Socket[bytes]], endpoint: str, options: dict[str, bytes]) -> int:
    """What a connection with these options comes to."""
    failed = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    failed |= zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED
    with context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.reconnect_ivl = -1
        for name, value in options.items():
            setattr(socket, name, value)
        with socket.get_monitor_socket(failed) as monitor:
            monitor.rcvtimeo = MONITORED_MS_MAX
            socket.connect(endpoint)
            event = recv_monitor_message(monitor)["event"]
            socket.disable_monitor()
            return int(event)


def test_a_routing_id_is_nobodys_name(door: RunningBroker, owner: Plain, held: Map) -> None:
    """Two peers claim one routing id: the first is served on, and hears nothing that was not meant for it."""
    plain = [Plain(door, token(door, "stranger")) for _ in range(2)]
    try:
        for one in plain:
            one.dealer.close()
            one.dealer = one.context.socket(zmq.DEALER)
            one.dealer.linger = 0
            one.dealer.rcvtimeo = MONITORED_MS_MAX
            one.dealer.routing_id = b"claimed"
            for name, file in RIGHT.items():
                setattr(one.dealer, name, owner.key(file))
            one.dealer.connect(door.requests)
            if one is plain[0]:
                assert one.ask({"type": "Ping"}) == {"type": "Pong"}
        plain[1].send({"type": "GetJob", "job_id": held["job_id"]})
        for _ in range(10):
            assert plain[0].ask({"type": "GetJob", "job_id": held["job_id"]})["code"] == "not-found"
        assert plain[1].dealer.poll(0) == 0
    finally:
        for one in plain:
            one.context.destroy(linger=0)


def test_a_message_on_the_events_socket_ends_nothing(door: RunningBroker, owner: Plain) -> None:
    """Frames that are no subscriptions, and one that says that another follows, which libzmq takes out."""
    topic = b"sixteen bytes..."
    stranger = Plain(door, "")
    try:
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
        assert owner.ask({"type": "Ping"}) == {"type": "Pong"}
    finally:
        stranger.context.destroy(linger=0)


def test_a_message_of_very_many_frames_is_refused_like_one_of_five(door: RunningBroker) -> None:
    stranger = Plain(door, token(door, "stranger"))
    try:
        for surplus in (1, 100_000):
            stranger.dealer.send_multipart([b"AR1", bytes(16), b"", b"", *[b""] * surplus])
            assert stranger.receive()[1]["code"] == "bad-request"
        assert stranger.ask({"type": "Ping"}) == {"type": "Pong"}
    finally:
        stranger.context.destroy(linger=0)


def test_the_largest_body_is_heard_and_one_byte_more_ends_the_connection(door: RunningBroker, owner: Plain) -> None:
    assert owner.ask(padded(BODY_BYTES_MAX))["code"] == "bad-request", "a Ping is shorter, but it was heard"
    stranger = Plain(door, token(door, "stranger"))
    try:
        with stranger.dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
            monitor.rcvtimeo = MONITORED_MS_MAX
            stranger.send(padded(BODY_BYTES_MAX + 1))
            assert recv_monitor_message(monitor)["event"] == zmq.EVENT_DISCONNECTED
            stranger.dealer.disable_monitor()
    finally:
        stranger.context.destroy(linger=0)


def padded(size_bytes: int) -> Map:
    """A Ping whose body takes so many bytes."""
    request = {"type": "Ping", "padding": bytes(70_000)}
    return {**request, "padding": bytes(70_000 + size_bytes - len(msgpack.packb(request)))}
