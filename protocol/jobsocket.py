"""Messages of a job's socket: what a process of a job asks its agent, and what the agent answers.

`AIRUNNER_JOB_SOCKET` in the environment of a job is the path of a Unix socket. A connection carries one request, what
belongs to it, and one answer. A frame is the length of its body (4 bytes, the highest first) and the body: a
MessagePack map with a `type`.

```
 job                                    agent
  PutArtifacts
  PutFile{path, mode, target}            once for each file, folder or link
  PutContent{data} …                     of a file; each has 1 MiB, only the last may be shorter
  PutEnd                    ──────────►
                            ◄──────────  ArtifactsPut{files, size_bytes}: all are stored; or SocketRefused
```

A further request is a further class here, and a further row in the agent's table of requests.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from airunner.protocol.blobs import PIECE_BYTES_MAX
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import BadRequest
from airunner.protocol.events import ARTIFACT_PATH_CHARS_MAX
from airunner.protocol.names import Natural, Text

SOCKET_VARIABLE: Final = "AIRUNNER_JOB_SOCKET"
BODY_BYTES_MAX: Final = PIECE_BYTES_MAX + 65_536  # a piece, or two paths in four bytes a character
_LENGTH: Final = struct.Struct(">I")
_TYPE: Final = "type"


class PutArtifacts(Struct, frozen=True, tag=True, tag_field=_TYPE):
    """Request to keep files as artifacts of the job; the files follow, and `PutEnd`."""


class PutFile(Struct, frozen=True, kw_only=True, omit_defaults=True, tag=True, tag_field=_TYPE):
    """File, folder or link to keep, as in an ARTIFACT event; the content of a file follows."""

    path: Annotated[str, Meta(min_length=1, max_length=ARTIFACT_PATH_CHARS_MAX)]
    mode: Annotated[int, Meta(ge=0, le=0o777)] = 0o644
    target: Text = ""


class PutContent(Struct, frozen=True, kw_only=True, tag=True, tag_field=_TYPE):
    """Content of the last `PutFile`: a piece of it."""

    data: Annotated[bytes, Meta(min_length=1, max_length=PIECE_BYTES_MAX)]


class PutEnd(Struct, frozen=True, tag=True, tag_field=_TYPE):
    """End of the files of a `PutArtifacts`."""


class ArtifactsPut(Struct, frozen=True, kw_only=True, tag=True, tag_field=_TYPE):
    """Answer to `PutArtifacts`: the number of files, folders and links that are stored, and their bytes."""

    files: Natural
    size_bytes: Natural


class SocketRefused(Struct, frozen=True, kw_only=True, tag=True, tag_field=_TYPE):
    """Refusal of a request: an error's code, as in `errors`, and its message."""

    code: str
    message: str


ToAgent = PutArtifacts | PutFile | PutContent | PutEnd
ToJob = ArtifactsPut | SocketRefused
Message = TypeVar("Message", ToAgent, ToJob)

_encoder: Final = msgspec.msgpack.Encoder()


def frame(message: ToAgent | ToJob) -> bytes:
    """Encode a message as a frame."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Frames of a byte stream: feed it what arrives, and take the bodies of the frames that are complete."""

    def __init__(self) -> None:
        self._left = bytearray()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Add a chunk, and yield the bodies that are complete. Raises `BadRequest`: a frame is too long."""
        left = self._left
        left += chunk
        while len(left) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(left)
            if length > BODY_BYTES_MAX:
                raise BadRequest(f"a frame of {length:,} bytes; {BODY_BYTES_MAX:,} are the most")
            end = _LENGTH.size + length
            if len(left) < end:
                return
            body = bytes(memoryview(left)[_LENGTH.size : end])
            del left[:end]
            yield body


def message_of_job(body: bytes) -> ToAgent:
    """Decode a message of a job. Raises `BadRequest`."""
    return _decoded(body, _to_agent)


def message_of_agent(body: bytes) -> ToJob:
    """Decode a message of an agent. Raises `BadRequest`."""
    return _decoded(body, _to_job)


_to_agent: Final = msgspec.msgpack.Decoder[ToAgent](ToAgent)
_to_job: Final = msgspec.msgpack.Decoder[ToJob](ToJob)


def _decoded(body: bytes, decoder: msgspec.msgpack.Decoder[Message]) -> Message:
    try:
        return decoder.decode(body)
    except UNDECODABLE as error:
        raise BadRequest(str(error)) from error
