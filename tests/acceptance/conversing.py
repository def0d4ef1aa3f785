"""A recorded conversation with a broker: every request once, as bytes, and what each was answered.

`hold` holds a recorded one again, to the byte, but for what a broker draws: ids of jobs, and the task tokens and watch
keys that come of them. `python -m tests.acceptance.conversing REVISION` prints one of a newer revision, which begins as
the newest that is kept; run it in a checkout of the commit whose conversation is to be kept.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgpack

from airunner.protocol.coding import encode
from tests.acceptance.running import RunningBroker, airunner, running_broker
from tests.acceptance.test_plain_msgpack import Map, Plain
from tests.protocol.examples import REQUESTS

FOLDER: Final = Path(__file__).parent / "conversations"
NAMES: Final = frozenset({"job_id", "job_ids", "id", "task_token"})  # a broker draws them; requests name them again
DRAWN: Final = frozenset(
    {"watch_key", "events_port", "message", "revisions"}
)  # and these; of them only the type is kept
Names = list[tuple[bytes, bytes]]  # what was drawn then, and is now


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


def record(speaker: Speaker) -> list[Map]:
    """The newest kept conversation as it is said today, and the examples of requests that it does not have."""
    newest = max(int(path.stem.removeprefix("revision-")) for path in FOLDER.iterdir())
    kept = conversation(newest)
    kinds = {one["kind"] for one in kept}
    new = [(name, encode(example)) for name, example in REQUESTS.items() if name not in kinds]
    asked = [(one["kind"], bytes.fromhex(one["id"]), request, reply) for one, request, reply in _say(kept, speaker)]
    for number, (name, body) in enumerate(new, start=len(kept) + 1):
        request_id = bytes([number]) * 16
        asked.append((name, request_id, body, speaker.speak(request_id, body)))
    return [
        {"kind": kind, "id": request_id.hex(), "request": request.hex(), "reply": reply.hex()}
        for kind, request_id, request, reply in asked
    ]


def conversation(revision: int) -> list[Map]:
    """The one that is kept of a revision."""
    kept: list[Map] = json.loads((FOLDER / f"revision-{revision}.json").read_text())
    return kept


def hold(said: list[Map], speaker: Speaker) -> Iterator[tuple[str, Any, Any]]:
    """Say it again: of each request its kind, what it was answered then (in today's names), and what it is now."""
    names: Names = []
    for one, _, now in _say(said, speaker, names):
        then = _renamed(bytes.fromhex(one["reply"]), names)
        yield one["kind"], _opened(msgpack.unpackb(then)), _opened(msgpack.unpackb(now))


def _say(said: list[Map], speaker: Speaker, names: Names | None = None) -> Iterator[tuple[Map, bytes, bytes]]:
    """Say it again: of each what was said then, and its request and reply now; `names` become today's."""
    names = [] if names is None else names
    for one in said:
        request = _renamed(bytes.fromhex(one["request"]), names)
        now = speaker.speak(bytes.fromhex(one["id"]), request)
        names += _names(_opened(msgpack.unpackb(bytes.fromhex(one["reply"]))), _opened(msgpack.unpackb(now)))
        yield one, request, now


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


def _renamed(raw: bytes, names: Names) -> bytes:
    """With what the broker has drawn this time in place of what it drew then; both take the same room."""
    for old, new in names:
        raw = raw.replace(old, new)
    return raw


def _names(then: Any, now: Any, where: str = "") -> Names:
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
        with running_broker(home, "memory:") as running, Speaker(running, b"AR" + sys.argv[1].encode()) as speaking:
            sys.stdout.write(json.dumps(record(speaking), indent=1) + "\n")
