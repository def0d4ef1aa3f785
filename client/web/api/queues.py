"""Operations on queues and agents: listing them; pausing, resuming and draining a queue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Annotated, Final

from msgspec import Meta, Struct
from starlette.responses import Response

from airunner.client.cli.waiting import first_of
from airunner.client.knownqueue import is_known
from airunner.client.web.api.forms import AgentsPage, QueueForm, QueuesPage
from airunner.client.web.api.operation import JSON, Answer, Call, Operation, json_answer
from airunner.protocol.errors import NotFound
from airunner.protocol.names import Name
from airunner.protocol.replies import QueueMode

ROWS_MAX: Final = 100  # queues or agents on a page


class PageQuery(Struct, frozen=True, kw_only=True):
    """Query of a list by name."""

    after: Annotated[Name, Meta(description="Only what comes after this name: the last of the page before.")] | None = (
        None
    )
    limit: Annotated[int, Meta(ge=1, le=ROWS_MAX, description="Number of rows on the page.")] = ROWS_MAX


async def list_queues(call: Call[PageQuery]) -> Response:
    """List queues by name."""
    limit = call.query.limit
    async with call.asking() as client:
        rows = await first_of(client.queues(call.query.after), limit + 1)
    following = call.next_page(after=rows[limit - 1].queue) if len(rows) > limit else None
    return json_answer(QueuesPage(queues=tuple(rows[:limit]), next=following))


async def list_agents(call: Call[PageQuery]) -> Response:
    """List agents by name."""
    limit = call.query.limit
    async with call.asking() as client:
        rows = await first_of(client.agents(call.query.after), limit + 1)
    following = call.next_page(after=rows[limit - 1].name) if len(rows) > limit else None
    return json_answer(AgentsPage(agents=tuple(rows[:limit]), next=following))


async def update_queue(mode: QueueMode, call: Call[None]) -> Response:
    """Set the mode of a queue. One that is resumed has to be known; of others, a reader learns whether they are new."""
    queue: str = call.request.path_params["queue"]
    async with call.asking() as client:
        reads = mode is QueueMode.OPEN or call.login.may("read")
        known = await is_known(client, queue) if reads else True
        if mode is QueueMode.OPEN and not known:
            raise NotFound(f"there is no queue {queue}")
        await client.update_queue(queue, mode)
    return json_answer(QueueForm(queue=queue, mode=mode, new=not known))


def _listing(
    name: str, what: str, run: Callable[[Call[PageQuery]], Awaitable[Response]], form: type[Struct]
) -> Operation:
    return Operation(
        name=name,
        method="GET",
        path=f"/v1/{what}",
        summary=f"List {what} by name, as `airunner {what} --json` prints them",
        role="read",
        query=PageQuery,
        run=run,
        answers=(Answer(f"A page of {what}.", {JSON: form}),),
    )


def _change(verb: str, mode: QueueMode, summary: str) -> Operation:
    return Operation(
        name=f"{verb}Queue",
        method="POST",
        path=f"/v1/queues/{{queue:path}}/{verb}",
        summary=summary,
        role="admin",
        run=partial(update_queue, mode),
        answers=(Answer("The queue and its new mode.", {JSON: QueueForm}),),
        problems=(HTTPStatus.NOT_FOUND,),
    )


OPERATIONS: Final = (
    _listing("listQueues", "queues", list_queues, QueuesPage),
    _change("pause", QueueMode.PAUSED, "Pause a queue: it accepts jobs and starts none"),
    _change("resume", QueueMode.OPEN, "Resume a queue that was paused or drained"),
    _change("drain", QueueMode.DRAINING, "Drain a queue: it rejects new jobs and runs those it has"),
    _listing("listAgents", "agents", list_agents, AgentsPage),
)
