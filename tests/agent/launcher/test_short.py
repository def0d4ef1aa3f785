"""Short commands: start, output and end are one message, if nothing is lost by it."""

from __future__ import annotations

import fcntl
import os

import pytest
from msgspec.structs import replace

from airunner.agent.launcher.child.shortoutput import OUTPUT_BYTES_MAX, whole_output
from airunner.agent.launcher.contract import Exit, LaunchSpec, LeaseEnded
from airunner.agent.launcher.local import ChildLauncher
from airunner.protocol.fields import TerminalSize
from airunner.transport.timers import boot_s
from tests.agent.launcher.launching import TIMEOUT_S, children_of, ended, read_all, shell, works


def waited_for(script: str, short_s: float = TIMEOUT_S, terminal: TerminalSize | None = None) -> LaunchSpec:
    return replace(shell(script, terminal=terminal), short_s=short_s)


async def test_a_command_that_ends_in_time_is_launched_and_has_ended_with_all_its_output(
    launcher: ChildLauncher,
) -> None:
    for _ in range(2):  # the keeper takes another
        process = await launcher.launch(waited_for("echo out; echo err >&2; kill -9 $$"))
        assert process.ran_s is not None
        assert process.spent.memory_peak_bytes > 0
        assert await process.wait() == Exit(None, 9)
        assert await process.end(TIMEOUT_S) == []
        assert (await process.vitals(), await process.holders(), process.terminal_size()) == (None, [], None)
        assert process.stderr is not None
        assert (await read_all(process.stdout), await read_all(process.stderr)) == (b"out\n", b"err\n")
        process.keep_until(0)
        process.close()
    assert len(children_of(launcher.pid)) == 1


async def test_output_that_is_merged_or_not_wanted_is_as_of_any_command(launcher: ChildLauncher) -> None:
    process = await launcher.launch(replace(waited_for("echo out; echo err >&2"), merged=True))
    assert process.stderr is None
    assert await process.stdout.receive(2) == b"ou"
    process.stdout.close()
    assert await process.stdout.receive() == b""


@pytest.mark.parametrize(
    ("script", "short_s", "terminal", "output"),
    [
        ("echo started; exec sleep 1000", 0.01, None, b"started\n"),
        ("echo started; sleep 1000 &", TIMEOUT_S, None, b"started\n"),
        (f"head -c {OUTPUT_BYTES_MAX + 1} /dev/zero", TIMEOUT_S, None, bytes(OUTPUT_BYTES_MAX + 1)),
        ("echo started", TIMEOUT_S, TerminalSize(), b"started\r\n"),
    ],
    ids=["long", "leaves a process", "writes much", "in a terminal"],
)
async def test_any_other_command_is_reported_when_it_runs(
    launcher: ChildLauncher, script: str, short_s: float, terminal: TerminalSize | None, output: bytes
) -> None:
    process = await launcher.launch(waited_for(script, short_s, terminal))
    assert process.ran_s is None
    assert await process.stdout.receive() == output
    await ended(process)
    await works(launcher)


async def test_a_job_that_is_waited_for_is_killed_at_its_deadline(launcher: ChildLauncher) -> None:
    await works(launcher)
    with pytest.raises(LeaseEnded):
        await (await launcher.launch(waited_for("exec sleep 1000", 0.5), boot_s() + 0.3)).wait()
    await works(launcher)


def test_output_is_whole_when_nobody_can_write_more_and_otherwise_stays_in_its_pipes() -> None:
    (out, to_out), (err, to_err) = os.pipe(), os.pipe()
    os.write(to_out, b"x" * OUTPUT_BYTES_MAX)
    os.close(to_out)
    assert whole_output([out, err]) is None, "something can still be written to the second pipe"
    os.write(to_err, b"y")
    os.close(to_err)
    assert whole_output([out, err]) is None, "it is too much"
    assert os.read(out, 1) == b"x"
    assert whole_output([out, err]) == [b"x" * (OUTPUT_BYTES_MAX - 1), b"y"]
    os.close(out)
    os.close(err)


def test_each_packet_is_read_of_a_pipe_whose_writer_wants_packets() -> None:
    out, to_out = os.pipe()
    fcntl.fcntl(to_out, fcntl.F_SETFL, os.O_DIRECT)  # as `dd oflag=direct` does with its standard output
    os.write(to_out, b"one")
    os.write(to_out, b"two")
    os.close(to_out)
    assert whole_output([out]) == [b"onetwo"]
    os.close(out)
