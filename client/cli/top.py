"""Command `airunner top`: queues, agents and running jobs on the whole screen, as they change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airunner.client.cli.clientcommand import Work, client_command
from airunner.client.cli.console import Console

if TYPE_CHECKING:
    from airunner.client.changes import TenantChanges
    from airunner.client.cli.topboard import TopBoard
    from airunner.client.client import Client

REDRAW_S: Final = 1.0  # seconds until ages and rates are drawn again
AGAIN_S: Final = 1.0  # seconds between two readings of the lists, when changes were lost
AGENTS_S: Final = 10.0  # seconds until the lists are read without a reason: agents that come and go are not published
QUEUES_MAX: Final = 500  # queues that are listed: five pages
AGENTS_MAX: Final = 500


@client_command()
def top_command(console: Console) -> Work:
    """Show queues, agents, running jobs and rates on the whole screen, as they change; q ends it.

    Rates are those of the last 10 s. In a pipe it prints all of this once, without rates.
    """
    import os

    from airunner.client.cli.console import DUMB

    async def run(client: Client) -> None:
        import anyio

        from airunner.client.changes import TenantChanges
        from airunner.client.cli.topboard import TopBoard
        from airunner.client.cli.topscreen import top_lines
        from airunner.protocol.events import Stream
        from airunner.transport.ports import SYSTEM

        board = TopBoard(anyio.current_time())
        await read_lists(client, board)
        if console.is_terminal(Stream.STDOUT) and os.environ.get("TERM", DUMB) != DUMB:
            async with TenantChanges(client) as changes:
                await show(client, console, board, changes)
            return
        for line in top_lines(board, SYSTEM.wall_ms(), None):
            console.out_line(line)
        console.say("on a terminal, `airunner top` goes on and shows changes as they come")

    return run


async def read_lists(client: Client, board: TopBoard) -> None:
    """Read the lists that the board shows. Raises the errors of `Client`."""
    from airunner.client.cli.topboard import RUNNING_MAX
    from airunner.client.cli.waiting import first_of
    from airunner.protocol.job import JobState

    queues = await first_of(client.queues(), QUEUES_MAX)
    agents = await first_of(client.agents(), AGENTS_MAX)
    board.replace(queues, agents, (await client.list_page(state=JobState.RUNNING, page_size=RUNNING_MAX)).jobs)


async def show(client: Client, console: Console, board: TopBoard, changes: TenantChanges) -> None:
    """Show the board on the whole screen until `q` is pressed."""
    import os
    import shutil
    import signal

    import anyio

    from airunner.client.cli.fullscreen import draw, full_screen
    from airunner.client.cli.standardstreams import STDIN
    from airunner.client.cli.topscreen import top_lines
    from airunner.client.taskgroups import first_error
    from airunner.transport.ports import SYSTEM

    def draw_now() -> None:
        size = shutil.get_terminal_size()
        draw(console, top_lines(board, SYSTEM.wall_ms(), board.rates(anyio.current_time()), size.columns, size.lines))

    async def redraw_when_resized() -> None:
        with anyio.open_signal_receiver(signal.SIGWINCH) as resized:
            async for _ in resized:
                draw_now()

    async def end_at_q(scope: anyio.CancelScope) -> None:
        while os.isatty(STDIN):
            await anyio.wait_readable(STDIN)
            if (keys := os.read(STDIN, 64)) == b"" or b"q" in keys.lower():
                scope.cancel()
                return

    with full_screen(console), first_error():
        async with anyio.create_task_group() as group:
            group.start_soon(redraw_when_resized)
            group.start_soon(end_at_q, group.cancel_scope)
            read_s, moved = anyio.current_time(), False
            while True:
                news = await changes.next(REDRAW_S)
                now_s = anyio.current_time()
                board.unsure |= news.again
                for message in news.messages:
                    board.apply(message, now_s)
                # What came while the lists were read may be counted twice: when nothing moves any more, count again.
                at_rest = moved and not news.messages
                moved |= bool(news.messages)
                if now_s >= read_s + (AGAIN_S if board.unsure or at_rest else AGENTS_S):
                    await read_lists(client, board)
                    read_s, moved = anyio.current_time(), False
                draw_now()
