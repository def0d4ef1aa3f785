"""How a command is started, what it is given, a terminal too, and what is said where it cannot be."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from airunner.agent.launcher.contract import ByteSource, Exit, LaunchFailed
from airunner.agent.launcher.local import ChildLauncher, start_launcher
from airunner.protocol.errors import OperatorError
from airunner.protocol.fields import TerminalSize
from airunner.protocol.fieldtypes import TERMINAL_SIDE_MAX
from tests.agent.launcher.launching import (
    TIMEOUT_S,
    children_of,
    command,
    descriptors_of,
    ended,
    read_all,
    read_lines,
    shell,
)

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root may run jobs as other users")
MAPPED = "import mmap, os; print(len(mmap.mmap(0, 0, prot=mmap.PROT_READ)), os.lseek(0, 6, os.SEEK_SET))"
LONG = "x" * 300  # longer than any name in a folder may be


async def run(launcher: ChildLauncher, script: str, terminal: TerminalSize | None = None) -> bytes:
    process = await launcher.launch(shell(script, terminal=terminal))
    try:
        await process.wait()
        await process.end(TIMEOUT_S)
        return await read_all(process.stdout)
    finally:
        process.close()


def proc(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


async def test_stdout_and_stderr_are_told_apart(launcher: ChildLauncher) -> None:
    process = await launcher.launch(shell("echo out; echo err >&2; exit 7"))
    assert await process.wait() == Exit(7, None)
    assert await process.end(TIMEOUT_S) == []
    assert process.stderr is not None
    assert await read_all(process.stdout) == b"out\n"
    assert await read_all(process.stderr) == b"err\n"
    assert await process.stdout.receive() == b""


@pytest.mark.parametrize("user", [(), pytest.param((os.geteuid(), os.getegid()), marks=ROOT_ONLY)])
async def test_merged_stdout_and_stderr_are_one_stream_in_the_order_written(
    launcher: ChildLauncher, user: tuple[int, ...]
) -> None:
    script = "for i in $(seq 100); do echo out $i; (echo err $i >&2); done; exec 2>&-; echo end"
    process = await launcher.launch(replace(shell(script), merged=True, user=user))
    assert process.stderr is None
    assert process.terminal_size() is None
    expected = "".join(f"out {i}\nerr {i}\n" for i in range(1, 101))
    assert (await read_all(process.stdout)).decode() == f"{expected}end\n"
    await ended(process)
    assert await process.stdout.receive() == b""


@pytest.mark.parametrize("terminal", [None, TerminalSize()])
async def test_much_output_arrives_whole(launcher: ChildLauncher, terminal: TerminalSize | None) -> None:
    process = await launcher.launch(shell("stty -opost 2>/dev/null; seq 1 300000", terminal=terminal))
    output = await read_all(process.stdout)
    assert output == b"".join(b"%d\n" % number for number in range(1, 300_001))


async def test_a_prompt_is_seen_before_the_command_ends(launcher: ChildLauncher) -> None:
    process = await launcher.launch(shell('printf "Password: "; exec sleep 1000'))
    assert await process.stdout.receive() == b"Password: "


async def test_stdin_is_empty_in_pipe_mode(launcher: ChildLauncher) -> None:
    assert await run(launcher, "wc -c; readlink /proc/self/fd/0") == b"0\n/dev/null\n"


@pytest.mark.parametrize("user", [(), pytest.param((65_534, 65_534), marks=ROOT_ONLY)])
@pytest.mark.parametrize("terminal", [None, TerminalSize()])
async def test_a_command_reads_its_stdin_from_a_file_without_a_name(
    launcher: ChildLauncher, tmp_path: Path, terminal: TerminalSize | None, user: tuple[int, ...]
) -> None:
    stdin = tmp_path / "stdin"
    stdin.write_bytes(b"first\n\0\xff" + b"x" * 300_000)
    script = "read line; echo $line; wc -c; wc -c </dev/stdin; [ ! -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo tty >/dev/tty"
    if user:
        os.chown(stdin, *user)
    else:  # others may not be able to run our Python
        script += f"; {sys.executable} -c '{MAPPED}'"
    process = await launcher.launch(replace(shell(script, terminal=terminal), stdin=stdin, user=user))
    output = await read_all(process.stdout)
    expected = [b"first", b"300002", b"300008", *[b"tty"] * bool(terminal), *[b"300008", b"6"] * (not user)]
    assert output.split() == expected
    assert not stdin.exists()


async def test_a_command_leads_a_session_of_its_own(launcher: ChildLauncher) -> None:
    process = await launcher.launch(shell("exec sleep 1000"))
    assert os.getsid(process.pid) == process.pid == os.getpgid(process.pid)


async def test_no_descriptor_leaks_into_a_command(launcher: ChildLauncher, tmp_path: Path) -> None:
    for size in (None, TerminalSize()):
        await launcher.launch(shell("exec sleep 1000", terminal=size))
    script = "for each in /proc/$$/fd/*; do readlink $each >/dev/null && echo ${each##*/}; done"
    assert await run(launcher, script) == b"0\n1\n2\n"  # the glob's own is gone by then
    for size in (None, TerminalSize()):
        (stdin := tmp_path / "stdin").touch()
        process = await launcher.launch(replace(shell(script, terminal=size), stdin=stdin))
        assert (await read_all(process.stdout)).split() == [b"0", b"1", b"2"]


async def test_the_agents_signal_settings_do_not_leak_into_a_command() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
    ignored = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        launcher = start_launcher()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGUSR2, ignored)
    output = await run(launcher, "grep -E 'SigBlk|SigIgn' /proc/self/status; umask")
    await launcher.aclose()
    blocked, ignoring, umask = (line.split()[-1] for line in output.splitlines())
    assert int(blocked, 16) == 0
    assert not int(ignoring, 16) & sum(1 << number - 1 for number in (signal.SIGPIPE, signal.SIGUSR2))
    assert umask == b"0022"


async def test_the_environment_is_exactly_the_one_given_and_a_mark(
    launcher: ChildLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_SECRET", "never")
    process = await launcher.launch(command("/usr/bin/env", environment={"A": "1", "B": "ü=\udcff"}))
    a, marked, b = sorted((await read_all(process.stdout)).splitlines())
    assert (a, b) == (b"A=1", b"B=\xc3\xbc=\xff")
    assert re.fullmatch(rb"AIRUNNER_MARK=[0-9a-f]{32}\.[0-9a-f]{16}\.1", marked)


async def test_launcher_and_keeper_hold_none_of_the_agents_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_SECRET", "never")
    launcher = start_launcher()
    process = await launcher.launch(shell("tr '\\0' '\\n' </proc/$PPID/environ"))
    assert b"AGENT_SECRET" not in await read_all(process.stdout)
    process.close()
    await launcher.aclose()


async def test_the_launcher_is_small_and_single_threaded(launcher: ChildLauncher) -> None:
    """ZeroMQ's threads beside a fork are the very thing it exists to avoid."""
    await run(launcher, "true")
    maps = proc(launcher.pid, "maps")
    assert "Threads:\t1\n" in proc(launcher.pid, "status")
    assert "msgpack" in maps
    assert "zmq" not in maps
    assert "msgspec" not in maps


WINDOWS = ": the file has Windows line ends (CR LF); convert it, as with dos2unix"
MODE = ": not executable; run `chmod +x` on it, or name its interpreter first"
NO_SHELL = ": there is no shell in between, so write each word as an argument of its own, or use sh -c"


@pytest.mark.parametrize(
    ("name", "exit_code", "message"),
    [
        ("no-such-command", 127, "no-such-command: command not found"),
        ("./nothing", 127, "./nothing: command not found"),
        ("./plain", 126, f"./plain{MODE}"),
        ("plain", 126, f"plain{MODE}"),
        ("./folder", 126, "./folder: is a directory"),
        ("folder", 127, "folder: command not found"),
        ("./orphan", 127, "./orphan: its interpreter /no/such/interpreter was not found"),
        ("./windows", 127, f"./windows: its interpreter /bin/sh was not found{WINDOWS}"),
        ("echo hello", 127, f"echo hello: command not found{NO_SHELL}"),
        ("/bin/sh -c\ttrue", 127, f"/bin/sh -c\ttrue: command not found{NO_SHELL}"),
        ("./garbage", 126, "./garbage: Exec format error"),
        ("./plain/below", 127, "./plain/below: command not found"),
        ("", 127, ": command not found"),
        (LONG, 127, f"{LONG}: command not found"),
        (f"./{LONG}", 126, f"./{LONG}: File name too long"),
    ],
)
async def test_what_cannot_be_executed_is_said_as_a_shell_says_it(
    launcher: ChildLauncher, tmp_path: Path, name: str, exit_code: int, message: str
) -> None:
    (tmp_path / "plain").write_text("echo hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "orphan").write_text("#!/no/such/interpreter\n")
    (tmp_path / "garbage").write_bytes(b"\x01\x02")
    (tmp_path / "windows").write_bytes(b"#!/bin/sh\r\necho hello\r\n")
    for program in ("orphan", "garbage", "windows"):
        (tmp_path / program).chmod(0o755)
    environment = {"PATH": f"/usr/bin:{tmp_path}"}
    for terminal in (None, TerminalSize()):
        with pytest.raises(LaunchFailed) as failed:
            await launcher.launch(command(name, directory=tmp_path, terminal=terminal, environment=environment))
        assert (failed.value.exit_code, failed.value.message) == (exit_code, message)


async def test_a_missing_working_directory_is_named(launcher: ChildLauncher, tmp_path: Path) -> None:
    with pytest.raises(LaunchFailed, match=f"working directory {tmp_path}/gone: No such file") as failed:
        await launcher.launch(command("true", directory=tmp_path / "gone"))
    assert failed.value.exit_code == 126


async def test_a_working_directory_may_be_a_link_out_of_the_checkout(launcher: ChildLauncher, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/usr")
    process = await launcher.launch(command("pwd", "-P", directory=tmp_path / "link"))
    assert await read_all(process.stdout) == b"/usr\n"


async def test_arguments_beyond_the_kernels_bound_are_refused(launcher: ChildLauncher) -> None:
    with pytest.raises(LaunchFailed, match="Argument list too long") as failed:
        await launcher.launch(command("true", *["x" * 100_000] * 80))
    assert failed.value.exit_code == 126


async def test_a_command_is_found_by_the_jobs_path(launcher: ChildLauncher, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("#!/bin/sh\npwd\n")
    (tmp_path / "mine").chmod(0o755)
    process = await launcher.launch(command("mine", directory=tmp_path, environment={"PATH": f"/none:{tmp_path}"}))
    assert await read_all(process.stdout) == f"{tmp_path}\n".encode()


async def test_many_launches_leak_neither_descriptors_nor_zombies(launcher: ChildLauncher) -> None:
    await run(launcher, "true")
    (keeper,) = children_of(launcher.pid)
    watched = (os.getpid(), launcher.pid, keeper)
    before = [descriptors_of(pid) for pid in watched]
    for attempt in range(60):
        size = TerminalSize() if attempt % 4 == 0 else None
        await run(launcher, "sleep 1000 & true" if attempt % 10 == 0 else "true", size)
        if attempt % 10 == 0:
            with pytest.raises(LaunchFailed):
                await launcher.launch(command("no-such-command", terminal=size))
    assert [descriptors_of(pid) for pid in watched] == before
    assert children_of(launcher.pid) == [keeper]
    assert children_of(keeper) == []


async def test_jobs_at_once_have_keepers_of_their_own(launcher: ChildLauncher) -> None:
    processes = [await launcher.launch(shell(f"echo {n}; exec sleep 1000")) for n in range(8)]
    for number, process in enumerate(processes):
        assert await read_lines(process.stdout, 1) == [str(number)]
    assert len(children_of(launcher.pid)) == 8
    for process in processes:
        assert await ended(process) == Exit(None, signal.SIGTERM)
        process.close()
    await run(launcher, "true")
    assert len(children_of(launcher.pid)) == 8


async def test_a_cancelled_launch_leaves_no_process(launcher: ChildLauncher) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await launcher.launch(shell("exec sleep 1000"))
    assert scope.cancelled_caught
    await launcher.aclose()
    with pytest.raises(ProcessLookupError):
        os.kill(launcher.pid, 0)


async def test_elsewhere_than_on_linux_the_operator_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(OperatorError, match="needs Linux"):
        start_launcher()


async def test_without_an_interpreter_the_operator_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(OperatorError, match="cannot start the launcher: No such file"):
        start_launcher()


async def test_a_terminal_is_one_with_the_size_asked_for(launcher: ChildLauncher) -> None:
    look = f"exec {sys.executable} -c 'import os; print(os.isatty(0), os.isatty(2), os.get_terminal_size())'"
    spec = shell(f"stty -opost; {look}", terminal=TerminalSize(cols=101, rows=33))
    with closing(await launcher.launch(spec)) as process:
        assert process.stderr is None
        expected = b"True True os.terminal_size(columns=101, lines=33)\n"
        assert await read_all(process.stdout) == expected


async def test_a_command_may_let_go_of_its_terminal_and_come_back(launcher: ChildLauncher, tmp_path: Path) -> None:
    pipes = [tmp_path / name for name in ("gone", "go")]
    for pipe in pipes:
        os.mkfifo(pipe)
    gone, go = (os.open(pipe, os.O_RDWR | os.O_NONBLOCK) for pipe in pipes)  # so that nobody waits for the other end
    let_go = f"exec </dev/null >/dev/null 2>&1; echo >{pipes[0]}; read line <{pipes[1]}; echo back >/dev/tty; exit 3"
    read: list[bytes] = []

    async def reading(source: ByteSource) -> None:
        read.append(await read_all(source))

    try:
        with closing(await launcher.launch(shell(let_go, terminal=TerminalSize()))) as process:
            async with anyio.create_task_group() as group:
                group.start_soon(reading, process.stdout)
                await anyio.wait_readable(gone)
                await anyio.wait_all_tasks_blocked()  # an end of the terminal would have been read
                assert read == []
                os.write(go, b"\n")
            assert read == [b"back\r\n"]
            assert await process.wait() == Exit(exit_code=3, signal=None)
            assert await process.end(TIMEOUT_S) == []
    finally:
        os.close(gone)
        os.close(go)


@pytest.mark.parametrize("side", [0, TERMINAL_SIDE_MAX + 1])
async def test_a_size_that_no_terminal_has_is_not_told(launcher: ChildLauncher, side: int) -> None:
    """An event with such a size would be refused by the broker."""
    spec = shell(f"stty cols {side}; echo; exec sleep 1000", terminal=TerminalSize())
    with closing(await launcher.launch(spec)) as process:
        await read_lines(process.stdout, 1)
        assert process.terminal_size() is None


LATE_SPAWN = """
import os, sys, termios
from airunner.agent.launcher.child.terminal import spawn_in_terminal
from airunner.agent.launcher.child.wire import Start

read, resized = os.read, sys.argv[1]

def read_late(descriptor, size):
    os.read = read
    told = read(descriptor, size)  # the end of the pipe: the command runs
    os.close(os.open(resized, os.O_RDONLY))  # and has set its size
    return told

os.read = read_late
script = 'stty cols 101; : > "$0"; exec sleep 1000'
start = Start([b"sh", b"-c", script.encode(), resized.encode()], dict(os.environb), b"/", [33, 80], None, [])
pid, master, _ = spawn_in_terminal(start, b"/bin/sh", start.terminal)
print(*termios.tcgetwinsize(master))
os.kill(pid, 9)
"""


def test_a_size_that_the_command_sets_at_once_stays(tmp_path: Path) -> None:
    """However late its keeper hears that it runs."""
    resized = tmp_path / "resized"
    os.mkfifo(resized)
    done = subprocess.run([sys.executable, "-c", LATE_SPAWN, resized], capture_output=True, check=True)
    assert done.stdout.split() == [b"33", b"101"]
