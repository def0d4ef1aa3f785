"""Page that submits a job: a form of all fields, each with what is wrong in it, and the same job as a command."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from airunner.client.web.clients import BrokerAway
from airunner.client.web.login import Login, login_of
from airunner.client.web.pages.formfields import NAMES, OPEN, Texts, controls, draft_of, submit_line
from airunner.client.web.pages.forms import form_of, see, value_of
from airunner.client.web.pages.rendering import render
from airunner.client.web.pages.showing import job_url
from airunner.client.web.problems import problem_of
from airunner.client.web.services import services_of
from airunner.protocol.errors import BadRequest, Conflict, Forbidden, PeerError, Unauthenticated
from airunner.protocol.names import JobId
from airunner.transport.ports import SYSTEM

_FORM_ID: Final = "form_id"  # of the form: what is sent twice is one job
_THEN: Final = "then"  # the button: submit, or only show the command
SUBMIT: Final = "submit"
_JOB_ID: Final = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")  # in a refusal: the job of the first form


async def show_form(request: Request) -> Response:
    """Show the empty form. Raises `Forbidden`: this login may not submit."""
    return _form(request, _login(request), {}, {}, str(uuid4()))


async def submit_job(request: Request) -> Response:
    """Submit the job of the form and show it; or show the form again, with what is wrong."""
    login = _login(request)
    form = await form_of(request, (*NAMES, _FORM_ID, _THEN))
    form_id = value_of(form, _FORM_ID)
    texts = {name: value_of(form, name) for name in NAMES if name in form}
    draft = draft_of(texts, SYSTEM.wall_ms())
    if draft.spec is None:
        return _form(request, login, texts, draft.problems, form_id, HTTPStatus.UNPROCESSABLE_ENTITY)
    if form.get(_THEN) != [SUBMIT]:
        return _form(request, login, texts, {}, form_id, command=submit_line(texts))
    try:
        async with services_of(request).clients.asking(login.token) as client:
            # A form that was changed after it was sent, by going back, is another job.
            submitted = await client.submit(draft.spec, request_id=f"{form_id} {sorted(texts.items())}")
    except Unauthenticated:
        raise
    except Conflict as conflict:  # the same form, sent again: a time that counts from now is another one now
        if (sent := _JOB_ID.search(conflict.message)) is None:
            raise
        return see(job_url(JobId(sent[0])))
    except BrokerAway as away:
        problems = {"": f"{away.message}: submit this form again, which makes one job, also if this one was submitted"}
        return _form(request, login, texts, problems, form_id, problem_of(away).status)
    except PeerError as error:
        misfit = error.misfit if isinstance(error, BadRequest) else None
        problems = {misfit.field: misfit.problem} if misfit and misfit.field in NAMES else {"": error.message}
        return _form(request, login, texts, problems, form_id, problem_of(error).status)
    return see(job_url(submitted.id))


def _login(request: Request) -> Login:
    login = login_of(request)
    if not login.may("submit"):
        raise Forbidden("this login may read jobs, and not submit them: its token lacks the role `submit`")
    return login


def _form(
    request: Request,
    login: Login,
    texts: Texts,
    problems: Mapping[str, str],
    form_id: str,
    status: int = HTTPStatus.OK,
    *,
    command: str = "",
) -> Response:
    return render(
        request,
        "submit.html",
        login,
        status,
        groups=controls(),
        texts=texts,
        problems=problems,
        form_id=form_id,
        command=command,
        opened=OPEN,
    )


ROUTES: Final[Sequence[BaseRoute]] = (
    Route("/submit", show_form, methods=["GET"]),
    Route("/submit", submit_job, methods=["POST"]),
)
