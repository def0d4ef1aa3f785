"""Putting of files: what is stored and recorded of a request, and what of one that goes wrong."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from airunner.agent.artifacts.collecting import FILES_MAX, Found, TooManyArtifacts
from airunner.agent.artifacts.packing import Packed
from airunner.agent.artifacts.step import Put
from airunner.agent.artifacts.uploading import Uplink
from airunner.agent.jobsocket.connection import Hungup
from airunner.agent.jobsocket.putting import BATCH_BYTES, Puts, put_artifacts
from airunner.protocol.blobs import PIECE_BYTES_MAX, unpacked
from airunner.protocol.errors import BadRequest
from airunner.protocol.jobsocket import ArtifactsPut, PutArtifacts, PutContent, PutEnd, PutFile, ToAgent
from tests.agent.artifacts.test_uploading import Link
from tests.agent.playing import inline
from tests.broker.stage import LEASE

WHOLE = PutContent(data=bytes(PIECE_BYTES_MAX))
END = PutEnd()


class Sent:
    """A connection over which a job has sent these messages, and then closed it."""

    def __init__(self, messages: Iterable[ToAgent]) -> None:
        self._messages = iter(messages)

    async def receive(self) -> ToAgent:
        for message in self._messages:
            return message
        raise Hungup


class Attempt:
    """What an attempt keeps: the files that are recorded, and the content of each."""

    def __init__(self, bytes_max: int = 100 * PIECE_BYTES_MAX) -> None:
        self.link = Link()
        self.link.holds = False
        self.recorded: list[Packed[Found]] = []
        uplink = Uplink(self.link, inline, lambda: 0.5)  # type: ignore[arg-type]
        self.puts = Puts(uplink, LEASE.ref, self._record, print, bytes_max, Put())

    async def _record(self, packed: Packed[Found]) -> None:
        assert all(part.blob in self.link.has for part in packed.slices), "recorded before it is stored"
        self.recorded.append(packed)

    async def put(self, *messages: ToAgent) -> ArtifactsPut:
        return await put_artifacts(Sent(messages), self.puts)  # type: ignore[arg-type]

    @property
    def contents(self) -> dict[str, bytes]:
        pieces = {blob.id: unpacked(blob) for request in self.link.sent for blob in request.blobs}
        return {
            packed.key.path: b"".join(
                pieces[each.blob][each.offset : each.offset + each.length] for each in packed.slices
            )
            for packed in self.recorded
        }


def content(data: bytes) -> PutContent:
    return PutContent(data=data)


async def test_files_of_all_sizes_are_stored_before_they_are_recorded() -> None:
    attempt = Attempt()
    pieces = 2 * BATCH_BYTES // PIECE_BYTES_MAX + 1
    put = await attempt.put(
        *(PutFile(path="small", mode=0o600), content(b"abc")),
        *(PutFile(path="large"), *[WHOLE] * pieces, content(b"rest")),
        *(PutFile(path="empty"), PutFile(path="folder/"), PutFile(path="link", target="small"), END),
    )
    large = bytes(PIECE_BYTES_MAX * pieces) + b"rest"
    assert put == ArtifactsPut(files=5, size_bytes=3 + len(large))
    assert attempt.contents == {"small": b"abc", "large": large, "empty": b"", "folder/": b"", "link": b""}
    assert {each.key.path: (each.key.mode, each.key.target) for each in attempt.recorded}["small"] == (0o600, "")


async def test_a_file_that_does_not_come_to_its_end_is_not_kept_and_those_before_it_are() -> None:
    attempt = Attempt()
    first = [PutFile(path="first"), *[WHOLE] * (BATCH_BYTES // PIECE_BYTES_MAX)]
    with pytest.raises(Hungup):
        await attempt.put(*first, PutFile(path="second"), *[WHOLE] * (BATCH_BYTES // PIECE_BYTES_MAX))
    assert list(attempt.contents) == ["first"]
    assert attempt.puts.so_far == Put(files=1, size_bytes=BATCH_BYTES), "only what is kept counts"


async def test_requests_beside_another_have_small_batches_in_memory() -> None:
    attempt = Attempt()
    attempt.puts.busy = True
    pieces = [content(bytes([number]) * PIECE_BYTES_MAX) for number in range(6)]
    await attempt.put(PutFile(path="a"), *pieces[:3], END)
    assert len(attempt.link.asked) == 3, "after each piece"
    attempt.puts.busy = False
    await attempt.put(PutFile(path="a"), *pieces[3:], END)
    assert len(attempt.link.asked) == 4
    assert not attempt.puts.busy


@pytest.mark.parametrize(
    "messages",
    [
        [content(b"of no file")],
        [PutFile(path="a"), content(b"short"), content(b"more")],
        [PutFile(path="folder/"), content(b"x")],
        [PutFile(path="link", target="a"), content(b"x")],
        [PutFile(path="folder/", target="a")],
        [PutFile(path="link", target="../a")],
        [PutFile(path="../a")],
        [PutArtifacts()],
    ],
)
async def test_what_is_out_of_order_or_leads_out_is_refused(messages: list[ToAgent]) -> None:
    attempt = Attempt()
    with pytest.raises(BadRequest):
        await attempt.put(*messages, END)
    assert attempt.recorded == []


async def test_all_puts_of_an_attempt_together_are_bounded_and_what_is_refused_does_not_count() -> None:
    attempt = Attempt(bytes_max=2 * PIECE_BYTES_MAX)
    await attempt.put(PutFile(path="a"), WHOLE, END)
    with pytest.raises(TooManyArtifacts, match="--artifact-gib"):
        await attempt.put(PutFile(path="b"), WHOLE, content(b"x"), END)
    await attempt.put(PutFile(path="c"), WHOLE, END)
    assert list(attempt.contents) == ["a", "c"]
    attempt.puts.so_far.files = FILES_MAX
    with pytest.raises(TooManyArtifacts, match="files"):
        await attempt.put(PutFile(path="d"), END)
