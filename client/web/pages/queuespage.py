"""Page of queues, which moves by itself, with buttons to pause, drain and open them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from airunner.client.cli.waiting import first_of
from airunner.client.client import Client
from airunner.client.knownqueue import is_known
from airunner.client.web.login import login_of
from airunner.client.web.pages.forms import form_of, see, value_of
from airunner.client.web.pages.jobquery import JobQuery
from airunner.client.web.pages.livetable import stream_table
from airunner.client.web.pages.rendering import render, row
from airunner.client.web.problems import bad_field
from airunner.client.web.services import services_of
from airunner.protocol.errors import NotFound
from airunner.protocol.job import JobState
from airunner.protocol.replies import QueueMode, QueueSummary
from airunner.transport.ports import SYSTEM

QUEUES_MAX: Final = 1_000  # on the page: ten pages of the list


class Button(Struct, frozen=True):
    """Button that gives a queue another mode; `says` is what it will do."""

    mode: QueueMode
    label: str
    says: str


_PAUSE: Final = Button(QueueMode.PAUSED, "Pause", "Start no more jobs of this queue; it still accepts them")
_DRAIN: Final = Button(QueueMode.DRAINING, "Drain", "Accept no more jobs in this queue, and run those that it has")
_RESUME: Final = Button(QueueMode.OPEN, "Resume", "Accept jobs in this queue, and start them")
BUTTONS: Final[Mapping[QueueMode, Sequence[Button]]] = MappingProxyType(
    {
        QueueMode.OPEN: (_PAUSE, _DRAIN),
        QueueMode.PAUSED: (_RESUME, _DRAIN),
        QueueMode.DRAINING: (_RESUME, _PAUSE),
    }
)


async def show_queues(request: Request) -> Response:
    """Show the queues."""
    login = login_of(request)
    async with services_of(request).clients.asking(login.token) as client:
        queues = await read_queues(client)
    return render(
        request,
        "queues.html",
        login,
        queues=queues,
        now_ms=SYSTEM.wall_ms(),
        buttons=BUTTONS if login.may("admin") else None,
        jobs_path=jobs_path,
    )


async def stream_queues(request: Request) -> Response:
    """Stream the queues as their modes and counts change."""
    buttons = BUTTONS if login_of(request).may("admin") else None

    def queue_row(queue: QueueSummary, now_ms: int) -> str:
        return row("queuerow.html", queue, buttons, jobs_path, now_ms)

    return await stream_table(request, read_queues, queue_row)


async def read_queues(client: Client) -> Mapping[str, QueueSummary]:
    """Read the list of queues: what each row shows, by its element's id."""
    return {f"queue-{queue.queue}": queue for queue in await first_of(client.queues(), QUEUES_MAX)}


async def change_queue(request: Request) -> Response:
    """Open, pause or drain a queue that is known: the page has a button for no other. Raises `NotFound`."""
    login = login_of(request)
    form = await form_of(request, ("queue", "mode"))
    queue, word = value_of(form, "queue"), value_of(form, "mode")
    if word not in list(QueueMode):
        raise bad_field("mode", f"expected {' or '.join(QueueMode)}")
    async with services_of(request).clients.asking(login.token) as client:
        if not await is_known(client, queue):
            raise NotFound(f"there is no queue {queue}: `airunner pause` makes one")
        await client.update_queue(queue, QueueMode(word))
    return see("/queues")


def jobs_path(queue: str, state: str = "") -> str:
    """Return the address of the jobs of a queue, perhaps in one state."""
    return JobQuery(queue=queue, states=(JobState(state),) if state else ()).path()


ROUTES: Final[Sequence[BaseRoute]] = (
    Route("/queues", show_queues, methods=["GET"]),
    Route("/queues/live", stream_queues, methods=["GET"]),
    Route("/queues", change_queue, methods=["POST"]),
)
