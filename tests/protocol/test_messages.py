"""Every message and every error survives the wire, and nothing else gets through it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import get_args

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from airunner.protocol.coding import canonical_hash, decode_reply, decode_request, encode, error_of, refusal
from airunner.protocol.errors import BadRequest, PeerError
from airunner.protocol.events import EventBody
from airunner.protocol.fields import JobSpec
from airunner.protocol.frames import BODY_BYTES_MAX
from airunner.protocol.job import JobState, JobSummary, Reason, Result, command_summary, encode_spec
from airunner.protocol.names import ARGUMENTS_MAX
from airunner.protocol.replies import JobLease, JobsLeased, JobsListed, Refused, Reply
from airunner.protocol.requests import (
    PAGE_SIZE_MAX,
    REPLAY_BYTES_MAX,
    SLOTS_MAX,
    EnqueueJob,
    GetJob,
    ReplayJobEvents,
    Request,
)
from tests.protocol.examples import BEYOND_BOUNDS, EVENTS, JOB_ID, NOW_MS, REPLIES, REQUESTS, TOKEN


def test_every_message_and_event_has_an_example():
    assert {type(example) for example in EVENTS.values()} == set(get_args(EventBody))
    assert {type(example) for example in REQUESTS.values()} == set(get_args(Request))
    assert {type(example) for example in REPLIES.values()} == set(get_args(Reply))


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (GetJob(job_id="\udcff"), "not UTF-8"),  # what Python makes of a byte 0xff on a command line
        (ReplayJobEvents(job_id=JOB_ID, from_sequence=10**20), "too large"),
    ],
)
def test_what_cannot_be_written_is_refused_in_words(request_: Request, told: str):
    with pytest.raises(BadRequest, match=told):
        encode(request_)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_comes_out_as_it_went_in_under_its_name_and_an_unknown_field_is_ignored(name: str):
    body = msgpack.unpackb(encode(REQUESTS[name]))
    assert body["type"] == name
    for more in ({}, {"from_the_future": [1, {"a": b"b"}]}):
        assert decode_request(msgpack.packb(body | more)) == REQUESTS[name]


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_comes_out_as_it_went_in_under_its_name(name: str):
    assert decode_reply(encode(REPLIES[name])) == REPLIES[name]
    assert msgpack.unpackb(encode(REPLIES[name]))["type"] == name


@pytest.mark.parametrize("name", REQUESTS)
def test_an_ill_typed_field_is_a_bad_request(name: str):
    body = msgpack.unpackb(encode(REQUESTS[name]))
    for field in body:
        with pytest.raises(BadRequest):
            decode_request(msgpack.packb(body | {field: 1.5}))


TREE = {"upload": bytes(16), "size_bytes": 1, "index": [[bytes(32), 0, 1]]}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"type": "Unheard"},
        {"type": "GetJob"},
        {"type": "GetJob", "job_id": ""},
        {"type": "GetJob", "job_id": "x" * 65},
        {"type": "ListJobs", "page": 0},
        {"type": "ListJobs", "queue": "; rm"},
        {"type": "EnqueueJob", "jobs": []},
        {"type": "EnqueueJob", "jobs": [{"command": ""}]},
        {"type": "EnqueueJob", "jobs": [{"command": "a\0b"}]},
        {"type": "EnqueueJob", "jobs": [{"command": "a", "metadata": {str(n): "" for n in range(65)}}]},
        {"type": "EnqueueJob", "jobs": [{"command": "a", "metadata": {str(n): "" for n in range(61)}}] * 17},
        {"type": "EnqueueJob", "jobs": [{"command": "a", "stdin_bytes": 1}]},
        {"type": "EnqueueJobWithStdin", "job": {"command": "a"}, "stdin": b"x"},
        {"type": "EnqueueJobWithStdin", "job": {"command": "a", "stdin_bytes": 2}, "stdin": b"x"},
        {"type": "EnqueueJobWithStdin", "job": {"command": "a", "stdin_bytes": 1, "owner": "\n"}, "stdin": b"x"},
        {"type": "EnqueueJobWithStdin", "job": {"command": "a"}, "stdin": b""},
        {"type": "EnqueueJobWithTree", "job": {"command": "a"}, "ids": [bytes(32)]},
        {"type": "EnqueueJobWithTree", "job": {"command": "a", "tree": TREE}, "ids": []},
        {"type": "EnqueueJobWithTree", "job": {"command": "a", "tree": TREE, "stdin_bytes": 1}, "ids": [bytes(32)]},
        {"type": "ReleaseJob", "job_id": JOB_ID, "attempt": 1, "task_token": TOKEN},
        {"type": "ReleaseJob", "lease": {"job_id": JOB_ID, "attempt": 0, "task_token": TOKEN}},
        {"type": "ReleaseJob", "lease": {"job_id": JOB_ID, "attempt": 1, "task_token": TOKEN[:-1]}},
        {"type": "ReleaseJob", "lease": {"job_id": JOB_ID, "attempt": 2**53, "task_token": TOKEN}},
        {"type": "PublishJobEvents"},
        {"type": "PublishJobEvents", "batches": [], "completions": []},
        {"type": "UpdateQueue", "queue": "q", "mode": "closed"},
        {"type": "UpdateQueue", "queue": "no spaces", "mode": "open"},
        {"type": "JobsEnqueued", "job_ids": []},
        *BEYOND_BOUNDS.values(),
    ],
)
def test_what_is_no_request_is_a_bad_request(body: dict[str, object] | bytes):
    with pytest.raises(BadRequest):
        decode_request(body if isinstance(body, bytes) else msgpack.packb(body))


def unbounded(found: inspect.Type, path: str = "") -> Iterator[str]:
    """The arrays and maps of a type that have no bound, and what may be anything."""
    match found:
        case inspect.StructType(fields=fields):
            for field in fields:
                yield from unbounded(field.type, f"{path}.{field.name}")
        case inspect.UnionType(types=types) | inspect.TupleType(item_types=types):
            for one in types:
                yield from unbounded(one, path)
        case inspect.VarTupleType(item_type=item, max_length=most):
            yield from [path] if most is None else unbounded(item, path)
        case inspect.DictType(key_type=key, value_type=value, max_length=most):
            yield from [path] if most is None else [*unbounded(key, path), *unbounded(value, path)]
        case _:
            if not isinstance(found, _FLAT):
                yield path


_FLAT = (inspect.StrType, inspect.BytesType, inspect.IntType, inspect.BoolType, inspect.NoneType, inspect.EnumType)


def test_the_types_of_a_request_bound_all_that_its_decoder_builds():
    assert list(unbounded(inspect.type_info(Request))) == []
    assert list(unbounded(inspect.type_info(Reply))) != []


@pytest.mark.parametrize(
    "body",
    [
        b"\x82\xa4type\xaaDequeueJob\xa6queues\xdd\xff\xff\xff\xff",
        b"\x82\xa4type\xaaDequeueJob\xa4tags\xdf\xff\xff\xff\xff",
        b"\x82\xa4type\xa8ListJobs\xa1x\xdd\xff\xff\xff\xff",
        b"\x82\xa4type\xa8ListJobs\xa1x" + b"\x91" * 1_000_000 + b"\xc0",
    ],
)
def test_a_decoder_builds_nothing_that_a_request_only_claims(body: bytes):
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest):
            decode_request(body)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_so_much_metadata_is_a_request():
    body = {"type": "EnqueueJob", "jobs": [{"command": "a", "metadata": {str(n): "" for n in range(64)}}] * 16}
    assert isinstance(decode_request(msgpack.packb(body)), EnqueueJob)


@given(st.binary(max_size=200))
def test_garbage_is_a_bad_request_and_nothing_worse(body: bytes):
    for decode in (decode_request, decode_reply):
        with pytest.raises(BadRequest):
            decode(body)


@given(st.sampled_from(sorted(REQUESTS)), st.integers(0, 400), st.integers(0, 255))
def test_a_flipped_byte_is_a_request_or_a_bad_request(name: str, at: int, byte: int):
    body = bytearray(encode(REQUESTS[name]))
    body[at % len(body)] = byte
    try:
        request = decode_request(bytes(body))
    except BadRequest:
        return
    assert isinstance(request, get_args(Request))


def test_what_is_no_reply_is_a_bad_request():
    for body in (encode(REQUESTS["GetJob"]), msgpack.packb({"type": "JobCompleted", "state": "LOST"})):
        with pytest.raises(BadRequest, match="reply"):
            decode_reply(body)


def test_the_hash_tells_bodies_apart_and_not_their_spelling():
    first, other = (EnqueueJob(jobs=(JobSpec(command="x", environment=env),)) for env in ({"A": "1", "B": "2"}, {}))
    respelled = EnqueueJob(jobs=(JobSpec(command="x", environment={"B": "2", "A": "1"}),))
    assert canonical_hash(first) == canonical_hash(respelled) != canonical_hash(other)


def test_the_largest_grant_fits_a_reply():
    """Many leases of jobs with as many arguments as a job may have: the agent must be able to read them."""
    spec = JobSpec(command="x", args=("",) * ARGUMENTS_MAX)
    encode_spec(spec)
    lease = JobLease(job_id=JOB_ID, attempt=1, task_token=TOKEN, visibility_ms=300_000, spec=spec)
    body = encode(JobsLeased(leases=(lease,) * SLOTS_MAX))
    assert max(len(body), REPLAY_BYTES_MAX) < BODY_BYTES_MAX
    assert len(decode_reply(body).leases) == SLOTS_MAX


def test_the_largest_page_of_jobs_fits_a_reply():
    spec = JobSpec(command="\U0001f680" * 4_000, owner="\U0001f680" * 128, repository="\U0001f680" * 4_096)
    job = JobSummary(
        id=JOB_ID,
        state=JobState.FAILED,
        queue="q" * 128,
        command=command_summary(spec),
        submitted_ms=NOW_MS,
        attempt=2**53 - 1,
        owner=spec.owner,
        repository=spec.repository,
        started_ms=NOW_MS,
        finished_ms=NOW_MS,
        result=Result(reason=Reason.CHECKOUT_FAILED),
    )
    page = JobsListed(jobs=(job,) * PAGE_SIZE_MAX, more=True)
    assert len(encode(page)) <= BODY_BYTES_MAX
    assert decode_reply(encode(page)) == page
    with pytest.raises(BadRequest):
        decode_request(msgpack.packb({"type": "EnqueueJob", "jobs": [{"command": "x", "owner": "o" * 129}]}))


@pytest.mark.parametrize("code", [*PeerError.codes(), "from-the-future"])
def test_an_error_crosses_the_wire_as_itself(code: str):
    kind = PeerError.codes().get(code, PeerError)
    assert kind().message
    error = error_of(Refused(code=code, message="why", expected_index=3))
    assert (type(error), error.message) == (kind, "why")
    assert kind is PeerError or (kind.code, error.expected_index, refusal(error).code) == (code, 3, code)


def test_two_errors_cannot_share_a_code():
    with pytest.raises(AssertionError, match="share"):
        type("Twice", (PeerError,), {"code": "busy"})
