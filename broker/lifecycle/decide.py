"""Decisions: one `match` from a command to the function that decides it."""

from __future__ import annotations

from typing import assert_never

from airunner.broker.lifecycle.commands import Command, Done, Expire, Resume, Retain, StoreReply, TenantRequest
from airunner.broker.lifecycle.ending import cancel, complete, expire, release
from airunner.broker.lifecycle.leasing import dequeue, update
from airunner.broker.lifecycle.publishing import publish
from airunner.broker.lifecycle.queues import remove_secret, set_secret, update_queue
from airunner.broker.lifecycle.retention import retain
from airunner.broker.lifecycle.submitting import enqueue, retry
from airunner.broker.lifecycle.world import World
from airunner.broker.store.contract import Engine
from airunner.protocol.coding import refusal
from airunner.protocol.errors import NotFound, PeerError
from airunner.protocol.messages import (
    CancelJob,
    CompleteJob,
    DequeueJob,
    EnqueueJob,
    PublishJobEvents,
    ReleaseJob,
    RemoveSecret,
    RetryJob,
    SetSecret,
    UpdateJob,
    UpdateQueue,
)


def decide(world: World, engine: Engine, command: Command) -> Done:
    """Decide one command; retention looks up and removes what it needs in the `engine` itself."""
    world.begin()
    worked = 0
    reply: StoreReply | None = None
    match command:
        case TenantRequest():
            try:
                reply = _answer(world, command)
            except PeerError as error:
                reply = refusal(error)
        case Expire():
            expire(world)
        case Resume():
            pass  # the engine has done it before the rows were loaded
        case Retain():
            before = engine.work()
            retain(world, engine, command)
            worked = engine.work() - before
        case _:
            assert_never(command)
    return world.done(reply, worked)


def _answer(world: World, command: TenantRequest) -> StoreReply:
    if command.queues is not None:
        _require_in(world, command, command.queues)
    match command.request:
        case PublishJobEvents() as request:
            return publish(world, command, request)
        case CompleteJob() as request:
            return complete(world, command.tenant, request)
        case EnqueueJob() as request:
            return enqueue(world, command, request)
        case DequeueJob() as request:
            return dequeue(world, command, request)
        case UpdateJob() as request:
            return update(world, command, request)
        case ReleaseJob() as request:
            return release(world, command, request)
        case CancelJob() as request:
            return cancel(world, command.tenant, request)
        case RetryJob() as request:
            return retry(world, command, request)
        case _:
            return _answer_admin(world, command)


def _answer_admin(world: World, command: TenantRequest) -> StoreReply:
    match command.request:
        case UpdateQueue() as request:
            return update_queue(world, command, request)
        case SetSecret() as request:
            return set_secret(world, command, request)
        case RemoveSecret() as request:
            return remove_secret(world, command, request)
        case _:
            raise AssertionError("what only reads is not decided")


def _require_in(world: World, command: TenantRequest, queues: frozenset[str]) -> None:
    """Raises `NotFound` where a job outside of the queues is named; what names an attempt proves its right."""
    if isinstance(command.request, CancelJob | RetryJob) and (
        world.job(command.tenant, command.request.job_id).queue not in queues
    ):
        raise NotFound
