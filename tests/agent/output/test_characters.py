"""Output is cut between two characters, wherever its pieces were cut, and no byte of it is lost or kept for ever."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.agent.attempt.supervisor import Supervisor
from airunner.agent.launcher.contract import LaunchSpec
from airunner.agent.leases.heldlease import HeldLease
from airunner.agent.output.batching import Batcher
from airunner.agent.output.characters import INCOMPLETE_S, Characters, cut, incomplete_bytes
from airunner.agent.output.outputlimit import OutputLimit
from airunner.agent.output.recorder import Recorder
from airunner.agent.output.redactor import Redactor
from airunner.protocol.events import OUTPUT_BYTES_MAX, Output, Stream
from tests.agent.attempt.test_supervisor import GRACE_S, LEASE
from tests.agent.output.recording import recorder_in, taken
from tests.agent.playing import PlayedProcess
from tests.agent.test_output_end import Pipe
from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture


@given(st.text(), st.integers(1, 5))
def test_each_piece_of_a_text_is_a_text(text: str, size: int) -> None:
    whole, characters = text.encode(), Characters()
    shown = [characters.feed(whole[at : at + size]).decode() for at in range(0, len(whole), size)]
    assert "".join(shown) == text
    assert characters.finish() == b""
    first, rest = cut(whole, size)
    assert first.decode() + rest.decode() == text
    assert len(first) <= size


@given(st.lists(st.binary(max_size=6)))
def test_bytes_that_are_no_text_pass_in_their_order_and_at_most_three_are_held(pieces: list[bytes]) -> None:
    characters, shown = Characters(), b""
    for piece in pieces:
        shown += characters.feed(piece)
        assert len(characters.held) <= 3
    assert shown + characters.finish() == b"".join(pieces)


@pytest.mark.parametrize(
    ("data", "held"),
    [
        (b"prompt: ", 0),
        (b"caf\xc3", 1),
        (b"\xe2\x82", 2),
        (b"\xf0\x9f\x9a", 3),
        ("é€🚀".encode(), 0),
        (b"\x80", 0),
        (b"\xff", 0),
        (b"\xc0", 0),
        (b"\xf4\x90", 0),
        (b"\xe2\x82\x82\x82", 0),
        (b"", 0),
    ],
)
def test_only_what_may_still_become_a_character_is_held(data: bytes, held: int) -> None:
    assert incomplete_bytes(data) == held


async def logged(recorder: Recorder, whole: bytes, size: int, stream: Stream = Stream.STDOUT) -> list[bytes]:
    """The data of all OUTPUT events after `whole` has come in pieces of a size, each sent at once."""
    shown: list[bytes] = []
    for at in range(0, len(whole), size):
        await recorder.add_output(stream, whole[at : at + size], 1)
        shown += [body.data for body in taken(recorder) if isinstance(body, Output)]
    recorder.end_output(2)
    return shown + [body.data for body in taken(recorder) if isinstance(body, Output)]


@pytest.mark.parametrize("secrets", [(), ("ßecret🚀",)])
@pytest.mark.parametrize("size", [1, 3, 7, OUTPUT_BYTES_MAX])
async def test_no_event_ends_inside_a_character(tmp_path: Path, size: int, secrets: tuple[str, ...]) -> None:
    text = "né ßecret🚀 €" * (20 if size < 8 else 20_000)
    recorder = recorder_in(tmp_path)
    recorder.redact_with(Redactor(secrets))
    shown = await logged(recorder, text.encode(), size)
    expected = text.replace("ßecret🚀", "[REDACTED]") if secrets else text
    assert "".join(data.decode() for data in shown) == expected


@pytest.mark.parametrize("log_bytes", range(300_000, 300_008))
async def test_what_is_left_out_of_a_log_leaves_no_part_of_a_character(tmp_path: Path, log_bytes: int) -> None:
    recorder = recorder_in(tmp_path)
    recorder._limit = OutputLimit(log_bytes)
    shown = await logged(recorder, "é€🚀".encode() * 60_000, OUTPUT_BYTES_MAX)
    assert all(data.decode() for data in shown)
    assert log_bytes - 6 <= sum(map(len, shown)) <= log_bytes


def test_bytes_that_become_no_character_take_no_text_with_them() -> None:
    batcher = Batcher(100)
    pieces = ["né €".encode(), b"\xe2\x82", b"x"]
    for piece in pieces:
        batcher.add_output(Stream.STDOUT, piece, 1, 1)
    assert [body.data for body in batcher.next_batch(1) if isinstance(body, Output)] == pieces


async def test_a_byte_that_becomes_no_character_is_shown_in_time_and_in_its_place(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    process = PlayedProcess(LaunchSpec(("true",), {}, "/"), stubborn=False)
    process.stdout = Pipe(iter([b"Pass\xe9"]))  # type: ignore[assignment] # another played source
    supervisor = Supervisor(HeldLease(LEASE, anyio.current_time(), 60_000), recorder, lambda: 1, GRACE_S)
    async with anyio.create_task_group() as group:
        group.start_soon(supervisor.supervise, process, None)
        await anyio.sleep(INCOMPLETE_S - 1)  # virtual
        assert [body.data for body in taken(recorder) if isinstance(body, Output)] == [b"Pass"]
        await anyio.sleep(2)  # virtual
        assert [body.data for body in taken(recorder) if isinstance(body, Output)] == [b"\xe9"]
        group.cancel_scope.cancel()
