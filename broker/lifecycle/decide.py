"""Decisions: calls the function that decides a command; for a request, the table `broker.requests` has it."""

from __future__ import annotations

from typing import assert_never

from airunner.broker.lifecycle.commands import (
    Adopt,
    Attach,
    Beat,
    Command,
    Done,
    Expire,
    FindGone,
    FollowEnd,
    News,
    RenewAll,
    Retain,
    StoreReply,
    TenantRequest,
)
from airunner.broker.lifecycle.ending import attach, expire, follow_end
from airunner.broker.lifecycle.retention import retain
from airunner.broker.lifecycle.world import POINTS_PER_UNIT, World
from airunner.broker.requests import kind_of
from airunner.broker.store.contract import Engine
from airunner.protocol.coding import refusal
from airunner.protocol.errors import CorruptLog, NotFound, PeerError
from airunner.protocol.requests import CancelJob, RetryJob, SendInput


def decide(world: World, engine: Engine, command: Command) -> Done:
    """Decide a command; retention also reads and removes rows in the `engine` directly."""
    world.begin()
    worked = 0
    reply: StoreReply | None = None
    match command:
        case TenantRequest():
            try:
                if command.queues is not None:
                    _require_in(world, command, command.queues)
                reply = kind_of(command.request).decider(world, command, command.request)
            except PeerError as error:
                reply = refusal(error)
        case Expire():
            expire(world)
        case FollowEnd():
            follow_end(world, command)
        case Attach():
            attach(world, command)
        case RenewAll():
            pass  # the Store called `Engine.renew_all` before it loaded the rows
        case Retain():
            before = engine.work()
            retain(world, engine, command)
            worked = engine.work() - before
        case FindGone(tenant=tenant, job_ids=job_ids):
            world.news.gone = tuple(job_id for job_id in job_ids if not _exists(world, tenant, job_id))
        case Beat():
            world.news.brokers = world.brokers
        case Adopt(seen=seen):
            world.news.adopted = world.adopted & {seen.broker}
        case _:
            assert_never(command)
    return world.done(reply, worked)


def read(engine: Engine, command: TenantRequest) -> Done:
    """Answer a request that only reads."""
    before = engine.work()
    try:
        reply = kind_of(command.request).reader(engine, command, command.request)
    except PeerError as error:
        reply = refusal(error)
    return Done(reply, News(), 1 + (engine.work() - before) // POINTS_PER_UNIT)


def _exists(world: World, tenant: str, job_id: str) -> bool:
    """Check whether a job exists, also one that is damaged."""
    try:
        world.job(tenant, job_id)
    except CorruptLog:
        return True
    except NotFound:
        return False
    return True


def _require_in(world: World, command: TenantRequest, queues: frozenset[str]) -> None:
    """Require that the job of a CancelJob, SendInput or RetryJob is in these queues. Raises `NotFound`."""
    if isinstance(command.request, CancelJob | SendInput | RetryJob) and (
        world.job(command.tenant, command.request.job_id).queue not in queues
    ):
        raise NotFound
