"""Requests that are almost right, in their envelopes: from the examples, aimed at jobs that are there, then mutated.

Pure, as `bodies` is. What is drawn does not depend on what a broker answers; only the ids and tokens do that are put
in place of the examples'.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

import msgpack

from airunner.protocol.coding import encode
from airunner.protocol.compression import BATCH_BYTES_MAX, MAGIC, compressed
from airunner.protocol.frames import BODY_BYTES_MAX, REQUEST_FRAMES, REVISION, SERVED, TOKEN_BYTES_MAX, magic
from airunner.protocol.names import REQUEST_ID_BYTES
from tests.fuzz.bodies import hurt, monstrous, packed, warped
from tests.protocol.examples import JOB_ID, REQUESTS

AIMS_MAX: Final = 64  # jobs and leases that are remembered to be aimed at
WAIT_MS: Final = 200  # what an unharmed DequeueJob waits: so that a run need not wait for the end of so many
HUGE_TOKENS: Final = (TOKEN_BYTES_MAX, TOKEN_BYTES_MAX + 1, 200_000)
PING: Final = encode(REQUESTS["Ping"])

Map = dict[str, Any]
Frames = list[bytes]


LINES: Final = compressed(
    packed([{"kind": "OUTPUT", "timestamp_ms": 1, "stream": "stdout", "data": b"line\n" * 9_000}])
)
FRAMES: Final = (
    LINES,  # compressed as it should be, and what looks like it
    LINES[:-1],
    LINES * 2,
    LINES + b"\x90",
    LINES[:4] + b"\x00\x58" + LINES[7:],  # no size
    LINES[:4] + b"\xa0\xff\xff\xff\xff" + LINES[7:],  # 4 GiB
    compressed(bytes(10_000_000)),  # a bomb
    compressed(bytes(BATCH_BYTES_MAX)),
    MAGIC,
)


def published(events: bytes) -> Map:
    """A batch of these events."""
    example: Map = msgpack.unpackb(encode(REQUESTS["PublishJobEvents"]))
    return {"type": "PublishJobEvents", "batches": [{**example["batches"][0], "events": events}]}


def _examples() -> list[Map]:
    """Those of the protocol, and variants that let jobs be made, leased and published to."""
    examples: dict[str, Map] = {name: msgpack.unpackb(encode(request)) for name, request in REQUESTS.items()}
    lease = {**examples["DequeueJob"], "wait_ms": WAIT_MS, "visibility_ms": 60_000}
    short = {"type": "EnqueueJob", "jobs": [{"command": "true"}, {"command": "sh", "args": ["-c", "exit 7"]}]}
    extra = [
        {**lease, "tags": {"os": "linux"}},
        {**lease, "wait_ms": 0},
        short,
        {"type": "UpdateQueue", "queue": "default", "mode": "open"},
        {"type": "ListJobs"},
        {"type": "ListSecrets"},
        {"type": "ReplayJobEvents", "job_id": JOB_ID},
        {"type": "SearchLog", "job_id": JOB_ID},
        {"type": "SearchLog", "job_id": JOB_ID, "pattern": "(a+)+$", "regex": True, "context": 3, "limit": 2},
        {"type": "ReplayJobEvents", "job_id": JOB_ID, "zstd": True},
        {**examples["PublishJobEvents"], "completions": []},
        *(published(events) for events in FRAMES),
    ]
    return [*({**examples, "DequeueJob": lease}).values(), *extra]


EXAMPLES: Final[Sequence[Map]] = _examples()
PACKED: Final = [packed(example) for example in EXAMPLES]


class Tokens:
    """The JWTs that a run has: of every role, of one, of another tenant; and the ways to break one."""

    def __init__(self, whole: bytes, lesser: Sequence[bytes]) -> None:
        self._whole = whole
        self._lesser = lesser

    def draw(self, rng: Random) -> bytes:
        """Most often the one that opens everything, so that what lies behind it is reached."""
        chance = rng.random()
        if chance < 0.85:
            return self._whole
        return rng.choice(self._lesser) if chance < 0.95 else self._broken(rng)

    def _broken(self, rng: Random) -> bytes:
        whole = self._whole
        match rng.randrange(6):
            case 0:
                return b""
            case 1:
                return rng.randbytes(rng.randint(1, 300))
            case 2:
                return rng.choice((b"a", b".", b"\xff")) * rng.choice(HUGE_TOKENS)
            case 3:
                head, claims, signature = whole.split(b".")
                return b".".join(rng.choices((head, claims, signature, b""), k=rng.randint(1, 5)))
            case 4:
                return b"eyJhbGciOiJub25lIn0." + whole.split(b".")[1] + b"."
            case _:
                return hurt(rng, whole, [whole])


class Aims:
    """Jobs and leases that the broker told of: what is mutated at least begins as the truth."""

    def __init__(self) -> None:
        self._jobs: deque[Map] = deque([{"job_id": JOB_ID}], maxlen=AIMS_MAX)
        self._leases: deque[Map] = deque(maxlen=AIMS_MAX)

    def learn(self, reply: Mapping[str, Any]) -> None:
        """Note the ids in a reply."""
        self._jobs.extend({"job_id": job_id} for job_id in reply.get("job_ids", ()))
        if reply.get("type") == "JobsLeased":
            fields = ("job_id", "attempt", "task_token")
            self._leases.extend({field: lease[field] for field in fields} for lease in reply["leases"])

    def aimed(self, example: Map, chance: float) -> Map:
        """The example with a job or a lease in place of its own; `chance` (0 to 1) says which."""
        known = self._leases if self._leases and chance < 0.7 else self._jobs
        target = known[int(chance * 1_000) % len(known)]
        return aimed_at(example, target)


def aimed_at(part: Any, target: Map) -> Any:
    """The same with the fields of `target` in place of its own, wherever they stand."""
    if isinstance(part, list):
        return [aimed_at(piece, target) for piece in part]
    if isinstance(part, dict):
        return {name: target.get(name, aimed_at(piece, target)) for name, piece in part.items()}
    return part


class Asking:
    """An endless supply of requests from one seed."""

    def __init__(self, seed: str, tokens: Tokens) -> None:
        self.aims = Aims()
        self._rng = Random(seed)
        self._tokens = tokens
        self._before = self._rng.randbytes(REQUEST_ID_BYTES)

    def next(self) -> Frames:
        """The next request's frames."""
        rng = self._rng
        request_id = self._before if rng.random() < 0.03 else rng.randbytes(REQUEST_ID_BYTES)
        self._before = request_id
        frames = [magic(rng.choice(SERVED)), request_id, self._tokens.draw(rng), self._body()]
        return self._misframed(frames) if rng.random() < 0.05 else frames

    def oversized(self) -> Frames:
        """One with a frame that is larger than any may be: the broker ends the connection."""
        frames = [magic(REVISION), bytes(REQUEST_ID_BYTES), b"", b""]
        frames[self._rng.randrange(len(frames))] = bytes(BODY_BYTES_MAX + 1)
        return frames

    def _body(self) -> bytes:
        rng = self._rng
        at, aim, chance = rng.randrange(len(EXAMPLES)), rng.random(), rng.random()
        example = self.aims.aimed(EXAMPLES[at], aim)
        if chance < 0.10:
            return packed(example)
        if chance < 0.45:
            return packed(warped(rng, example))
        if chance < 0.98:
            return hurt(rng, packed(example), PACKED)
        return monstrous(rng, PACKED[at]) if chance < 0.995 else rng.randbytes(rng.randint(0, 300))

    def _misframed(self, frames: Frames) -> Frames:
        rng = self._rng
        at = rng.randrange(REQUEST_FRAMES)
        match rng.randrange(7):
            case 0:
                return frames[:at] or [b""]
            case 1:
                return frames[:at] + [rng.randbytes(3)] * rng.choice((1, 2, 100)) + frames[at:]
            case 2:
                return [rng.choice((b"", b"AR0", b"AR7", b"ar1", b"AR1\0", bytes(3))), *frames[1:]]
            case 3:
                return [frames[0], rng.randbytes(rng.choice((0, 1, 15, 17, 255, 256))), *frames[2:]]
            case 4:
                return [b"", *frames]  # a REQ's delimiter
            case 5:
                rng.shuffle(frames)
                return frames
            case _:
                frames[at] = hurt(rng, frames[at], frames)
                return frames
