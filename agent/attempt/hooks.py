"""Hooks: the operator's programs around every job of an agent, which set up, check or clean up.

```
pre-checkout → checkout → post-checkout → pre-command → COMMAND → post-command → pre-exit
```

A hook is an executable file with such a name in the agent's folder of hooks. It runs in the checkout's folder, which is
empty before the checkout, and gets the job's variable NAME as AIRUNNER_ENV_NAME (see `workspace.environment`). Its
output is logged. When a hook before the command fails, the command is not run and the job is FAILED. `post-command`
runs if the command ran; `pre-exit` runs last, also after a failed step or a cancel. When one of these two fails, a job
that would have been COMPLETED is FAILED. The hooks around the checkout run only for jobs with a repository.

What a hook writes to the file $AIRUNNER_ENV are variables for the later steps (see `hookvariables`). If they cannot be
used, the hook counts as failed.

A hook is not run, and counts as failed, if a user other than root and the agent's user could have changed it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Final

from msgspec import Struct

from airunner.agent.attempt.hookvariables import FILE_VARIABLE, BadVariables, read_variables, variables_file
from airunner.agent.attempt.supervisor import CommandEnd, Supervisor
from airunner.agent.flag import Flag
from airunner.agent.launcher.attending import attended
from airunner.agent.launcher.contract import SHORT_S, LaunchFailed, LaunchSpec, Starter
from airunner.agent.workspace.workspace import Workspace
from airunner.certs.ownership import unsafe_reason
from airunner.protocol.job import Reason, Result

HOOK_S_MAX: Final = 3_600.0  # timeout of a hook; after a cancel it is the cancel grace (see `Attempt._after`)
NOT_FOUND: Final = 127  # a shell's exit code for a command that was not found
NOT_EXECUTABLE: Final = 126  # a shell's exit code for a file that cannot be executed
STATUS_VARIABLE: Final = "AIRUNNER_COMMAND_EXIT_STATUS"


class Hook(StrEnum):
    """Hook names, each for the moment at which the hook runs."""

    PRE_CHECKOUT = "pre-checkout"
    POST_CHECKOUT = "post-checkout"
    PRE_COMMAND = "pre-command"
    POST_COMMAND = "post-command"
    PRE_EXIT = "pre-exit"


class HookFailed(Exception):
    """Failure of a hook, or a cancel before or during it; `result` is the attempt's, unless a step failed before."""

    def __init__(self, result: Result) -> None:
        super().__init__(str(result.reason))
        self.result = result


class Hooks(Struct, frozen=True):
    """Hooks of one attempt, in `folder` (None: no hooks). A cancel prevents or ends those before the command.

    Each hook gets a file for its variables, beside the workspace.
    """

    folder: Path | None
    launcher: Starter
    supervisor: Supervisor
    cancelled: Flag
    workspace: Workspace

    async def run(
        self,
        hook: Hook,
        environment_of: Callable[[], Mapping[str, str]],
        *,
        status: int | None = None,
        bound_s: float = HOOK_S_MAX,
    ) -> dict[str, str]:
        """Run a hook, if any, and return the variables that it sets; raises `HookFailed`.

        `status` is the result's exit status; None before the command.
        """
        if status is None and self.cancelled.is_set():
            raise HookFailed(Result(reason=Reason.CANCELLED))
        if self.folder is None or not os.access(program := self.folder / hook, os.F_OK):
            return {}
        if reason := unsafe_reason(self.folder) or unsafe_reason(program):
            self.supervisor.say(f"the hook {hook} is not run: {reason}")
            raise HookFailed(Result(exit_code=NOT_EXECUTABLE, reason=Reason.HOOK_FAILED))
        environment = {**environment_of(), "AIRUNNER_HOOK": hook}
        if status is not None:
            environment[STATUS_VARIABLE] = str(status)
        with ExitStack() as made:
            try:
                file = made.enter_context(variables_file(self.workspace.root.parent))
            except OSError as error:
                if status is None:
                    raise  # the machine refuses, and another agent may run the job
                raise self.failed(hook, f"is not run: no file can be made for it: {error.strerror}") from error
            environment[FILE_VARIABLE] = str(file)
            await self._run(hook, program, environment, bound_s, cancellable=status is None)
            try:
                return read_variables(file)
            except BadVariables as bad:
                raise self.failed(hook, f"has set variables in ${FILE_VARIABLE} that cannot be used: {bad}") from bad

    def failed(self, hook: Hook, why: str) -> HookFailed:
        """Say why a hook that has run counts as failed, and return the failure."""
        self.supervisor.say(f"the hook {hook} {why}")
        return HookFailed(Result(reason=Reason.HOOK_FAILED))

    async def _run(
        self, hook: Hook, program: Path, environment: Mapping[str, str], bound_s: float, *, cancellable: bool
    ) -> None:
        spec = LaunchSpec((str(program),), environment, self.workspace.checkout, short_s=SHORT_S)
        try:
            process = await self.launcher.launch(spec)
        except LaunchFailed as failed:
            self.supervisor.say(f"the hook {hook} cannot be run: {failed.message}")
            raise HookFailed(Result(exit_code=failed.exit_code, reason=Reason.HOOK_FAILED)) from failed
        async with attended(process):
            ended = await self.supervisor.supervise(process, bound_s, cancellable=cancellable, name=f"the hook {hook}")
        if ended.cut_short is Reason.CANCELLED:
            raise HookFailed(Result(reason=Reason.CANCELLED))
        if ended.cut_short or ended.exit.exit_code != 0:
            self.supervisor.say(f"the hook {hook} {_how(ended, bound_s)}")
            raise HookFailed(
                Result(exit_code=ended.exit.exit_code or None, signal=ended.exit.signal, reason=Reason.HOOK_FAILED)
            )


def _how(ended: CommandEnd, bound_s: float) -> str:
    if ended.cut_short:
        return f"was ended after {bound_s:g} s"
    if ended.exit.signal is not None:
        return f"was ended by signal {ended.exit.signal}"
    return f"exited with {ended.exit.exit_code}"
