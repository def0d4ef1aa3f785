"""Surroundings of attempts: what all attempts of an agent share, and what each asks the broker for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct

from airunner.agent.artifacts.step import ARTIFACT_BYTES_MAX
from airunner.agent.artifacts.uploading import Uplink
from airunner.agent.attempt.jobsecrets import OpenBox, no_keys
from airunner.agent.attempt.supervisor import GRACE_S
from airunner.agent.caches.shelf import Shelf
from airunner.agent.checkout.mirrors import Mirrors
from airunner.agent.checkout.repository import Rules
from airunner.agent.launcher.contract import Launcher
from airunner.agent.workspace.blobcache import BlobCache
from airunner.agent.workspace.jobuser import JobUser
from airunner.agent.workspace.workspace import Offload
from airunner.protocol.replies import JobLease
from airunner.transport.files.pieces import Source


class BrokerPort(NamedTuple):
    """Broker port: what an attempt asks the broker for, besides publishing its events."""

    read_stdin: Callable[[JobLease], Awaitable[bytes]]
    blobs: Callable[[Callable[[str], None]], Source]  # through the agent's cache; gets what writes into the log
    uplink: Uplink
    tenant: str  # to which the agent, and each of its jobs, belongs


class Surroundings(Struct, frozen=True):
    """Surroundings of an attempt: what all attempts of an agent share."""

    launcher: Launcher
    wall_ms: Callable[[], int]
    environ: Mapping[str, str]
    offload: Offload
    cancel_grace_s: float = GRACE_S
    secrets: Mapping[str, str] = MappingProxyType({})  # secrets of `--secret` by name, for jobs that name them
    open_box: OpenBox = no_keys
    hooks: Path | None = None
    rules: Rules = Rules()
    mirrors: Mirrors | None = None
    blobs: BlobCache | None = None
    shelf: Shelf | None = None  # for caches; None: jobs get none
    random: Callable[[], float] = float  # `float` returns 0.0: no jitter
    redact: tuple[str, ...] = ()  # further name patterns of variables whose values are secret
    bases: tuple[Path, ...] = ()  # folders for short paths to HOME and TMPDIR
    variables: Mapping[str, str] = MappingProxyType({})  # the operator's variables for all jobs
    users: tuple[JobUser, ...] = ()  # users as which jobs run; empty: the agent's own user
    artifact_bytes_max: int = ARTIFACT_BYTES_MAX  # limit of one attempt's artifacts
