"""Queues: UpdateQueue sets a mode; SetSecret and RemoveSecret store and remove sealed secrets."""

from __future__ import annotations

from airunner.broker.lifecycle.commands import TenantRequest
from airunner.broker.lifecycle.idempotency import answered, load_answer, note_answer
from airunner.broker.lifecycle.quota import require, require_record
from airunner.broker.lifecycle.world import QUEUE_BYTES, World
from airunner.broker.store.room import Room
from airunner.broker.store.rows import Keys, QueueKey, SecretRow, Wanted
from airunner.protocol.errors import NoSpace, NotFound, Quota
from airunner.protocol.replies import QueueMode, QueueUpdated, SecretRemoved, SecretSet
from airunner.protocol.requests import BOXES_BYTES_MAX, RemoveSecret, SetSecret, UpdateQueue


def load_queue(keys: Keys, command: TenantRequest, request: UpdateQueue) -> None:
    """Request the rows on which an UpdateQueue is decided."""
    load_answer(keys, command, request)
    queue = QueueKey(command.tenant, request.queue)
    keys.queues.add(queue)
    keys.updated.add(queue)
    keys.kinds.add(queue)
    keys.wanted.append(Wanted(command.tenant, request.queue, None, 1))


def load_secret(keys: Keys, command: TenantRequest, request: SetSecret | RemoveSecret) -> None:
    """Request the rows on which a change of a secret is decided; the queue's boxes are looked up when needed."""
    load_answer(keys, command, request)
    queue = QueueKey(command.tenant, request.queue)
    keys.updated.add(queue)
    keys.boxes.add(queue)


def update_queue(world: World, command: TenantRequest, request: UpdateQueue) -> QueueUpdated:
    """Set a queue's mode; its waiting jobs may be leased unless the mode is PAUSED.

    A late copy of an answered request changes nothing: a newer request may have changed the mode since.

    Raises `Conflict`; `NoSpace`, `Quota`: there is no room to store the mode.
    """
    tenant, queue, mode = command.tenant, request.queue, request.mode
    reply = QueueUpdated(queue=queue, mode=mode)
    if answered(world, command, request) is not None:
        return reply
    before = world.mode(tenant, queue)
    if before is None and mode is not QueueMode.OPEN:
        if command.room < Room.AMPLE:
            raise NoSpace
        require(world, tenant, 0, command.quotas)
    else:
        require_record(world, tenant, command.quotas)
    kept = int(mode is not QueueMode.OPEN) - int(before not in (None, QueueMode.OPEN))
    world.account(tenant, kept * QUEUE_BYTES)
    note_answer(world, command, request)
    world.set_mode(tenant, queue, mode)
    if mode is not QueueMode.PAUSED:
        world.news.ready |= {QueueKey(tenant, queue), *world.ready(tenant, queue)}
    return reply


def set_secret(world: World, command: TenantRequest, request: SetSecret) -> SecretSet:
    """Store a sealed secret. A late copy of an answered request changes nothing: the secret may have been set since.

    Raises `Quota`, `NoSpace`, `Conflict`.
    """
    tenant, queue = command.tenant, request.queue
    if answered(world, command, request) is not None:
        return SecretSet()
    if command.room < Room.AMPLE:
        raise NoSpace
    boxes = world.boxes(tenant, queue)
    before = len(boxes[request.name].box) if request.name in boxes else 0
    taken = sum(len(secret.box) for secret in boxes.values()) - before
    if taken + len(request.box) > BOXES_BYTES_MAX:
        raise Quota(
            f"the other secrets of queue {queue} take {taken} sealed bytes, and this one takes {len(request.box)}; "
            f"the limit is {BOXES_BYTES_MAX} together"
        )
    require(world, tenant, 0, command.quotas)
    world.account(tenant, len(request.box) - before)
    world.set_secret(SecretRow(tenant=tenant, queue=queue, name=request.name, box=request.box, set_ms=world.now_ms))
    note_answer(world, command, request)
    return SecretSet()


def remove_secret(world: World, command: TenantRequest, request: RemoveSecret) -> SecretRemoved:
    """Remove a sealed secret. A late copy of an answered request changes nothing: the secret may have been set since.

    Raises `NotFound`, `Conflict`, `Quota`.
    """
    if answered(world, command, request) is not None:
        return SecretRemoved()
    secret = world.boxes(command.tenant, request.queue).get(request.name)
    if secret is None:
        raise NotFound(f"queue {request.queue} has no secret {request.name}")
    require_record(world, command.tenant, command.quotas)
    world.account(command.tenant, -len(secret.box))
    world.remove_secret(secret)
    note_answer(world, command, request)
    return SecretRemoved()
