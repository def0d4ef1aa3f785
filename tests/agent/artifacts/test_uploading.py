"""Uploading of pieces: how much is in flight, how large requests are, and which refusals end it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import anyio
import pytest
from trio.testing import wait_all_tasks_blocked

from airunner.agent.artifacts import uploading
from airunner.agent.artifacts.packing import Piece
from airunner.agent.artifacts.uploading import PACKED_BYTES, PUTS_MAX, SILENT_S, Uplink, Upload
from airunner.agent.launcher.contract import LeaseEnded
from airunner.protocol.blobs import Blob, BlobId, packed
from airunner.protocol.coding import encode
from airunner.protocol.errors import BadRequest, Forged, NoBlobs, NotFound, PeerError, StaleToken
from airunner.protocol.frames import BODY_BYTES_MAX
from airunner.protocol.replies import BlobsMissing, BlobsPut
from airunner.protocol.requests import HaveBlobs, PutBlob
from airunner.protocol.requestsize import REQUEST_BYTES_MAX, RequestSize
from tests.agent.playing import inline
from tests.broker.stage import LEASE
from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture

KIB = 1_024


class Link:
    """A channel that keeps requests with blobs until the test lets them land."""

    def __init__(self) -> None:
        self.request_size = RequestSize()
        self.has: set[bytes] = set()
        self.asked: list[HaveBlobs] = []
        self.sent: list[PutBlob] = []  # all of them
        self.flying: list[anyio.Event] = []
        self.smaller: list[Callable[[], PutBlob]] = []
        self.holds = True
        self.refusal: PeerError | None = None

    async def ask(self, request: HaveBlobs | PutBlob, smaller: Callable[[], PutBlob] | None = None) -> Any:
        if self.refusal is not None:
            raise self.refusal
        if isinstance(request, HaveBlobs):
            self.asked.append(request)
            return BlobsMissing(missing=tuple(at for at, one in enumerate(request.ids) if one not in self.has))
        assert smaller is not None
        self.sent.append(request)
        self.smaller.append(smaller)
        if self.holds:
            self.flying.append(landed := anyio.Event())
            await landed.wait()
        self.has.update(blob.id for blob in request.blobs)
        return BlobsPut()

    async def land(self) -> None:
        """Let the oldest request land."""
        self.flying.pop(0).set()
        await wait_all_tasks_blocked()

    @property
    def flying_bytes(self) -> int:
        return sum(sizes(self.sent[-len(self.flying) :])) if self.flying else 0


def sizes(sent: list[PutBlob]) -> list[int]:
    return [sum(len(blob.content) for blob in request.blobs) for request in sent]


def pieces(count: int, size: int, seed: int = 1) -> list[Piece]:
    random = Random(seed)
    return [Piece.of(random.randbytes(size)) for _ in range(count)]


def upload(link: Link, uplink: Uplink | None = None, say: Callable[[str], None] = print) -> Upload:
    return Upload(uplink or Uplink(link, inline, lambda: 0.5), LEASE.ref, say)  # type: ignore[arg-type]


async def test_requests_are_as_large_as_the_link_carries_and_few_are_in_flight() -> None:
    link = Link()
    link.request_size.bytes_max = 100 * KIB
    async with anyio.create_task_group() as group:
        group.start_soon(upload(link).store, pieces(64, 20 * KIB))
        await wait_all_tasks_blocked()
        while link.flying:
            assert len(link.flying) <= PUTS_MAX
            assert link.flying_bytes <= PUTS_MAX * link.request_size.bytes_max
            await link.land()
    assert max(sizes(link.sent)) <= 100 * KIB
    assert len(link.sent) <= 17
    assert len(link.has) == 64


async def test_a_fast_link_carries_two_large_pieces_in_a_request_and_a_body_has_room_for_them() -> None:
    link = Link()
    link.holds = False
    link.request_size.bytes_max = REQUEST_BYTES_MAX
    await upload(link).store(pieces(6, 1_000_000))
    assert [len(request.blobs) for request in link.sent] == [2, 2, 2]
    assert all(len(encode(request)) <= BODY_BYTES_MAX for request in link.sent)
    link.request_size.broken()
    await upload(link).store(pieces(2, 1_000_000, 2))
    assert [len(request.blobs) for request in link.sent[3:]] == [1, 1]


async def test_a_slow_link_carries_one_large_piece_at_a_time_of_all_attempts_together() -> None:
    link = Link()
    uplink = Uplink(link, inline, lambda: 0.5)  # type: ignore[arg-type]
    async with anyio.create_task_group() as group:
        for seed in range(3):
            group.start_soon(upload(link, uplink).store, pieces(3, 500 * KIB, seed))
        await wait_all_tasks_blocked()
        for _ in range(9):
            assert len(link.flying) == 1
            await link.land()
    assert len(link.has) == 9


async def test_few_pieces_of_a_window_are_in_memory_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[bytes]()

    def noted(piece: bytes, known: BlobId | None = None) -> Blob:
        made.append(piece)
        return packed(piece, known)

    monkeypatch.setattr(uploading, "packed", noted)
    link = Link()
    async with anyio.create_task_group() as group:
        group.start_soon(upload(link).store, pieces(40, 512 * KIB))
        await wait_all_tasks_blocked()
        while link.flying:
            ahead = len(made) - len(link.has) - len(link.flying)
            assert ahead * 512 * KIB <= PACKED_BYTES + PUTS_MAX * 512 * KIB
            await link.land()
    assert len(link.has) == len(made) == 40


async def test_what_a_link_does_not_carry_any_more_is_sent_later() -> None:
    link = Link()
    link.request_size.bytes_max = 100 * KIB
    async with anyio.create_task_group() as group:
        group.start_soon(upload(link).store, pieces(5, 20 * KIB))
        await wait_all_tasks_blocked()
        whole, last = link.sent
        assert (len(whole.blobs), len(last.blobs)) == (4, 1)
        link.request_size.bytes_max = 50 * KIB
        link.sent[0] = link.smaller[0]()
        assert link.sent[0].blobs == whole.blobs[:2]
        link.holds = False
        await link.land()
        await link.land()
    sent = [blob for request in link.sent for blob in request.blobs]
    assert sorted(blob.id for blob in sent) == sorted({blob.id for blob in sent}), "none was sent twice, or left out"
    assert len(sent) == 5


async def test_pieces_that_the_broker_has_or_that_were_taken_before_are_not_sent() -> None:
    link = Link()
    link.holds = False
    one, two, three = pieces(3, KIB)
    link.has.add(one.id)
    uploading = upload(link)
    await uploading.store([one, two, two])
    await uploading.store([two, three])
    assert [[blob.id for blob in request.blobs] for request in link.sent] == [[two.id], [three.id]]


async def test_a_piece_that_is_being_sent_is_not_sent_again() -> None:
    link = Link()
    uploading = upload(link)
    one, other = pieces(2, KIB)
    async with anyio.create_task_group() as group:
        group.start_soon(uploading.store, [one])
        await wait_all_tasks_blocked()
        group.start_soon(uploading.store, [one, other])
        await wait_all_tasks_blocked()
        assert [[blob.id for blob in request.blobs] for request in link.sent] == [[one.id], [other.id]]
        await link.land()
        await link.land()


@pytest.mark.parametrize(
    ("refusal", "raised"),
    [
        (StaleToken(), LeaseEnded),
        (NotFound(), LeaseEnded),
        (NoBlobs(), NoBlobs),
        (BadRequest(), NoBlobs),
        (Forged(), Forged),
    ],
)
async def test_what_no_repeat_mends_ends_the_upload(refusal: PeerError, raised: type[Exception]) -> None:
    link = Link()
    link.refusal = refusal
    with pytest.raises(raised):
        await upload(link).store(pieces(1, KIB))


async def passing(seconds: float) -> None:
    """Let so much of the virtual time pass."""
    with anyio.move_on_after(seconds):
        await anyio.Event().wait()


async def test_the_log_says_once_that_a_broker_is_waited_for_that_keeps_silent() -> None:
    link, said = Link(), list[str]()
    link.request_size.bytes_max = 1
    async with anyio.create_task_group() as group:
        uploading = upload(link, say=said.append)
        group.start_soon(uploading.watch)
        await passing(3 * SILENT_S)
        assert said == [], "nothing was asked"
        group.start_soon(uploading.store, pieces(2 * PUTS_MAX, KIB))
        await passing(SILENT_S - 1)
        await link.land()
        await passing(SILENT_S - 1)
        assert said == [], "it has answered meanwhile"
        await passing(5 * SILENT_S)
        assert said == [f"artifacts wait for the broker: it has stored nothing of them for {SILENT_S:.0f} s"]
        group.cancel_scope.cancel()
