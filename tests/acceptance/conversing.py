"""A recorded conversation with a broker: every request once, as bytes, and what each was answered.

`record` holds it with a broker of today, `hold` holds a recorded one again, to the byte, but for what a broker draws:
ids of jobs, and the task tokens and watch keys that come of them. `python -m tests.acceptance.conversing REVISION`
prints one; run it in a checkout of the commit whose conversation is to be kept.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgpack

from tests.acceptance.running import RunningBroker, airunner, running_broker
from tests.acceptance.test_plain_msgpack import Map, Plain

FOLDER: Final = Path(__file__).parent / "conversations"
NAMES: Final = frozenset({"job_id", "job_ids", "id", "task_token"})  # a broker draws them; requests name them again
DRAWN: Final = frozenset(
    {"watch_key", "events_port", "message", "revisions"}
)  # and these; of them only the type is kept
SEED: Final = bytes(range(32))


class Speaker(Plain):
    """A peer that puts any bytes into the four frames of a request."""

    def __init__(self, broker: RunningBroker, magic: bytes) -> None:
        super().__init__(broker, airunner(broker.home, "token", "--subject", "recorded", "--ttl", "1h").strip())
        self._magic = magic

    def speak(self, request_id: bytes, body: bytes) -> bytes:
        """The body of the answer; a Nudge, which nobody asked for, is not one."""
        self.dealer.send_multipart([self._magic, request_id, self.token, body])
        while True:
            magic, answered, reply = self.dealer.recv_multipart()
            if answered == request_id:
                assert magic == self._magic, "an answer is in the revision of its request"
                return bytes(reply)


class _Recorder:
    def __init__(self, speaker: Speaker) -> None:
        self.said: list[Map] = []
        self._speaker = speaker

    def ask(self, kind: str, **fields: Any) -> Map:
        """Ask, and keep what was said."""
        request_id = bytes([len(self.said) + 1]) * 16
        body = msgpack.packb({"type": kind, **fields})
        reply = self._speaker.speak(request_id, body)
        self.said.append({"kind": kind, "id": request_id.hex(), "request": body.hex(), "reply": reply.hex()})
        answer: Map = msgpack.unpackb(reply)
        return answer


def record(broker: RunningBroker, magic: bytes) -> list[Map]:
    """Ask every request of the protocol once, and some that are refused."""
    with Speaker(broker, magic) as speaker:
        recorder = _Recorder(speaker)
        _converse(recorder)
        return recorder.said


def _converse(here: _Recorder) -> None:
    ask = here.ask
    ask("Ping")
    spec = {"command": "sh", "args": ["-c", "true"], "environment": {"A": "1"}, "metadata": {"build": "42"}}
    full = {**spec, "owner": "ada", "priority": 5, "retry": {"limit": 1, "backoff_ms": 0}, "require": {"os": "linux"}}
    (first, second, third) = ask("EnqueueJob", jobs=[spec, full, spec])["job_ids"]
    ask("SetSecret", queue="default", name="API_TOKEN", box=bytes(64))
    ask("ListSecrets")
    leases = ask(
        "DequeueJob",
        agent="recorded-1",
        agent_slots=4,
        version="0.1.0",
        tags={"os": "linux"},
        queues=["default"],
        slots=2,
        visibility_ms=60_000,
        wait_ms=1_000,
        token_seed=SEED,
    )["leases"]
    held = {one["job_id"]: {name: one[name] for name in ("job_id", "attempt", "task_token")} for one in leases}
    assert list(held) == [second, first], "the highest priority, then the first"
    ask("UpdateJob", agent="recorded-1", leases=list(held.values()), visibility_ms=60_000)
    ask("WatchJob", job_id=first)
    now_ms = time.time_ns() // 1_000_000
    used = {"stdout_bytes": 4, "cpu_user_ms": 3, "memory_peak_bytes": 4_096}
    ended = {"exit_code": 0, "usage": used}
    bodies = [
        {"kind": "GIT_CLONE_START", "timestamp_ms": now_ms, "repository": "https://example.org/p.git"},
        {"kind": "GIT_CLONE_PROGRESS", "timestamp_ms": now_ms, "message": "Receiving objects: 42%"},
        {"kind": "GIT_CLONE_END", "timestamp_ms": now_ms, "commit": "c0ffee", "duration_ms": 5},
        {"kind": "PROCESS_START", "timestamp_ms": now_ms, "pid": 7, "started_at": now_ms},
        {"kind": "TERMINAL_RESIZE", "timestamp_ms": now_ms, "cols": 80, "rows": 24},
        {"kind": "OUTPUT", "timestamp_ms": now_ms, "stream": "stdout", "data": b"hi\n\xff"},
        {"kind": "HEARTBEAT", "timestamp_ms": now_ms, "elapsed_ms": 30_000, "processes": 2, "memory_bytes": 4_096},
        {"kind": "OUTPUT_TRUNCATED", "timestamp_ms": now_ms, "omitted_bytes": 9},
        {"kind": "PROCESS_ERROR", "timestamp_ms": now_ms, "message": "something"},
        {"kind": "PROCESS_END", "timestamp_ms": now_ms, "pid": 7, "exit_code": 0, "duration_ms": 5, "usage": used},
    ]
    batch = {"lease": held[first], "first_index": 0, "count": len(bodies), "events": msgpack.packb(bodies)}
    gap = {"lease": held[second], "first_index": 3, "count": 1, "events": msgpack.packb(bodies[:1])}
    completion = {"type": "CompleteJob", "lease": held[first], "event_count": len(bodies), "result": ended}
    ask("CompleteJob", lease=held[first], event_count=len(bodies), result=ended)
    ask("PublishJobEvents", batches=[batch, gap], completions=[completion])
    ask("ReleaseJob", lease=held[second])
    ask("ReleaseJob", lease=held[second])
    again = {"agent": "recorded-1", "tags": {"os": "linux"}, "queues": ["default"], "visibility_ms": 60_000}
    (lease,) = ask("DequeueJob", **again, token_seed=SEED)["leases"]
    other = {name: lease[name] for name in ("job_id", "attempt", "task_token")}
    ask("ListAgents")
    ask("CancelJob", job_id=second)
    ask("UpdateJob", leases=[other], visibility_ms=60_000)
    ask("CompleteJob", lease=other, event_count=0, result={"signal": 15, "reason": "cancelled"})
    ask("CancelJob", job_id=third)
    ask("RetryJob", job_id=first)
    ask("UpdateQueue", queue="default", mode="paused")
    ask("ListQueues")
    ask("ListJobs", state="COMPLETED", metadata={"build": "42"}, page_size=5)
    ask("GetJob", job_id=first)
    ask("GetJob", job_id=second)
    ask("GetJob", job_id="nobody's")
    ask("ReplayJobEvents", job_id=first)
    ask("ReplayJobEvents", job_id=second, from_sequence=3)
    ask("RemoveSecret", queue="default", name="API_TOKEN")
    ask("RemoveSecret", queue="default", name="API_TOKEN")


def conversation(revision: int) -> list[Map]:
    """The one that is kept of a revision."""
    kept: list[Map] = json.loads((FOLDER / f"revision-{revision}.json").read_text())
    return kept


def hold(said: list[Map], speaker: Speaker) -> Iterator[tuple[str, Any, Any]]:
    """Say it again: of each request its kind, what it was answered then (in today's names), and what it is now."""
    names: list[tuple[bytes, bytes]] = []
    for one in said:
        request = _renamed(bytes.fromhex(one["request"]), names)
        then = bytes.fromhex(one["reply"])
        now = speaker.speak(bytes.fromhex(one["id"]), request)
        names += _names(_opened(msgpack.unpackb(then)), _opened(msgpack.unpackb(now)))
        yield one["kind"], _opened(msgpack.unpackb(_renamed(then, names))), _opened(msgpack.unpackb(now))


def missing(then: Any, now: Any, where: str = "reply") -> list[str]:
    """What a peer of then would miss now: fields that are gone or are another thing. New ones it ignores."""
    if isinstance(then, dict) and isinstance(now, dict):
        gone = [f"{where}.{name} is gone" for name in then if name not in now]
        both = [name for name in then if name in now]
        return gone + [line for name in both for line in missing(then[name], now[name], f"{where}.{name}")]
    if isinstance(then, list) and isinstance(now, list):
        if len(then) != len(now):
            return [f"{where} has {len(now)}, not {len(then)}"]
        pairs = zip(then, now, strict=True)
        return [line for at, (old, new) in enumerate(pairs) for line in missing(old, new, f"{where}[{at}]")]
    name = where.rpartition(".")[2].partition("[")[0]
    if type(then) is type(now) and (then == now or name in DRAWN or name.endswith(("_ms", "_at"))):
        return []
    return [f"{where} is {now!r}, not {then!r}"]


def _opened(value: Any) -> Any:
    """The same, with the events of segments as they are."""
    if isinstance(value, dict):
        return {
            name: msgpack.unpackb(inner) if name == "events" and isinstance(inner, bytes) else _opened(inner)
            for name, inner in value.items()
        }
    return [_opened(inner) for inner in value] if isinstance(value, list) else value


def _renamed(raw: bytes, names: list[tuple[bytes, bytes]]) -> bytes:
    """With what the broker has drawn this time in place of what it drew then; both take the same room."""
    for old, new in names:
        raw = raw.replace(old, new)
    return raw


def _names(then: Any, now: Any, where: str = "") -> list[tuple[bytes, bytes]]:
    """What was drawn then, and in its place now."""
    if isinstance(then, dict) and isinstance(now, dict):
        return [pair for name in then if name in now for pair in _names(then[name], now[name], name)]
    if isinstance(then, list) and isinstance(now, list):
        return [pair for old, new in zip(then, now, strict=False) for pair in _names(old, new, where)]
    if where in NAMES and then != now:
        old, new = (one if isinstance(one, bytes) else str(one).encode() for one in (then, now))
        assert len(old) == len(new), f"{where} has another length"
        return [(old, new)]
    return []


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        airunner(home, "certs", "init")
        with running_broker(home, "memory:") as running:
            sys.stdout.write(json.dumps(record(running, b"AR" + sys.argv[1].encode()), indent=1) + "\n")
