"""Artifacts and hooks: real processes of an agent whose broker is in memory."""

from __future__ import annotations

from pathlib import Path

from airunner.agent.launcher.local import ChildLauncher
from airunner.broker.blobs.address import MEMORY, open_blobs
from airunner.broker.blobs.keeper import Blobs
from airunner.broker.searcher import run_here
from tests.agent.artifacts.test_step import artifacts, content
from tests.agent.attempt.test_hooks import write
from tests.agent.playing import staged


async def test_files_that_a_hook_leaves_after_the_command_are_artifacts_too(
    tmp_path: Path, launcher: ChildLauncher
) -> None:
    store = open_blobs(MEMORY)
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    write(hooks, "post-command", "echo report > report")
    write(hooks, "pre-exit", "echo late > late")
    async with staged(tmp_path, hooks=hooks, real=launcher, blobs=Blobs(store, [run_here])) as stage:
        job = await stage.client.submit(command="true", artifacts=("*",))
        left = artifacts([event.body async for event in stage.client.follow(job.id)])
    assert {path: content(store, left[path].slices) for path in left} == {"report": b"report\n"}
