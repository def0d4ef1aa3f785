"""Attempt: runs the hooks, checkout and command of a job once, and leaves no process behind.

Start and end of the checkout and of the command are recorded as events. `perform` returns the result, or raises, or is
cancelled (lost lease, stopping agent, failed spool). In each case no process of the job is left.

If the job is cancelled or exceeds its timeout, the command gets SIGTERM, and SIGKILL after a grace.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from signal import Signals
from typing import Final

import anyio
import anyio.lowlevel
from msgspec import convert
from msgspec.structs import asdict, replace

from airunner.agent.artifacts.step import Put
from airunner.agent.attempt.hooks import HOOK_S_MAX, NOT_EXECUTABLE, NOT_FOUND, Hook, HookFailed, Hooks
from airunner.agent.attempt.jobsecrets import SecretMissing, secrets_of, values_to_redact, write_files
from airunner.agent.attempt.keeping import Keeping
from airunner.agent.attempt.leaving import Leaving, leaves_anything
from airunner.agent.attempt.supervisor import MESSAGE_CHARS_MAX, Supervisor, ms_since, result_of
from airunner.agent.attempt.surroundings import BrokerPort, Surroundings
from airunner.agent.caches.step import CacheStep
from airunner.agent.checkout.checkout import Terms, check_out
from airunner.agent.checkout.git import CheckoutFailed
from airunner.agent.checkout.revision import Source
from airunner.agent.checkout.treebundle import fetch_tree
from airunner.agent.flag import cancelled_by
from airunner.agent.jobsocket.door import serve
from airunner.agent.launcher.attending import attended
from airunner.agent.launcher.contract import (
    SHORT_S,
    LaunchFailed,
    LaunchSpec,
    LeaseEnded,
    Process,
    Spent,
    Starter,
)
from airunner.agent.launcher.refusal import MachineRefused, Scarce, refusal_in
from airunner.agent.leases.heldlease import HeldLease, LeasedLauncher
from airunner.agent.leases.probes import takes_writes
from airunner.agent.output.recorder import Recorder
from airunner.agent.output.redactor import Redactor, TooManySecrets
from airunner.agent.workspace.environment import AttemptFacts, hook_environment, job_environment
from airunner.agent.workspace.workspace import Workspace, restore_checkout, write_private
from airunner.protocol.errors import NotFound, PeerError, StaleToken
from airunner.protocol.events import (
    GitCloneEnd,
    GitCloneError,
    GitCloneProgress,
    GitCloneStart,
    ProcessEnd,
    ProcessStart,
    Stream,
)
from airunner.protocol.fields import ProcessType
from airunner.protocol.gitaddress import shown_address
from airunner.protocol.job import JobState, Reason, Result, Usage
from airunner.protocol.names import TEXT_CHARS_MAX
from airunner.protocol.redaction import SecretValues, secret_values

HOOK_WITHOUT_ROOM: Final = "a hook has failed, and the disk of its workspace cannot be written"


class Attempt:
    """Attempt at the job of the lease `held`, in `workspace`."""

    def __init__(
        self,
        held: HeldLease,
        workspace: Workspace,
        recorder: Recorder,
        surroundings: Surroundings,
        broker: BrokerPort,
    ) -> None:
        self._held = held
        self._lease = held.lease
        self._spec = held.lease.spec
        self._workspace = workspace
        self._broker = broker
        self._recorder = recorder
        launcher: Starter = LeasedLauncher(surroundings.launcher, held)
        self._jobs_launcher = launcher
        variables = surroundings.variables
        self._environ = {**surroundings.environ, **variables} if variables else surroundings.environ
        self._jobs_environ = self._environ
        if workspace.user is not None:
            self._jobs_launcher = LeasedLauncher(surroundings.launcher, held, workspace.user.ids)
            self._jobs_environ = workspace.user.environment(self._environ)
        self._wall_ms = surroundings.wall_ms
        self._surroundings = surroundings
        self._supervisor = Supervisor(held, recorder, surroundings.wall_ms, surroundings.cancel_grace_s)
        self._hooks = Hooks(surroundings.hooks, launcher, self._supervisor, held.cancelled, workspace)
        self._hooked: dict[str, str] = {}  # variables that hooks have set for the later steps
        self._to_redact: set[str] = set()
        self._terminal = self._spec.terminal if self._spec.process_type is ProcessType.PTY else None
        self._secrets: Mapping[str, str] = {}
        self.begun_s: float | None = None  # when the command was started (anyio's clock)
        self._commit = ""
        self._leaves = leaves_anything(self._spec)
        self._checkout_ms = 0
        self._spent = Spent()
        self._put = Put()
        self._borrowed = AsyncExitStack()
        self._caches: CacheStep | None = None
        self._keeping: Keeping | None = None

    async def perform(self) -> Result:
        """Run the attempt and return its result. The job's timeout counts from the start of the command.

        Raises `LauncherDied`, `LeaseEnded`, `MachineRefused`, `OSError`, alone or in a group.
        """
        try:
            around = self._surroundings
            secrets = secrets_of(self._spec, around.secrets, self._lease.sealed, around.open_box)
            await self._redact(values_to_redact(self._spec, secrets, around.variables, around.redact))
            self._secrets = {**secrets.values, **write_files(secrets, self._workspace.secrets, self._workspace.user)}
            await self._fetch_stdin()
        except OSError as failed:
            if refusal_in(failed) is not None:
                raise
            self._supervisor.say(f"the job's secret files or standard input cannot be written: {failed.strerror}")
            return Result(reason=Reason.PROCESS_ERROR)
        except (SecretMissing, TooManySecrets) as refused:
            self._supervisor.say(str(refused))
            missing = isinstance(refused, SecretMissing)
            return Result(reason=Reason.SECRET_MISSING if missing else Reason.PROCESS_ERROR)
        except PeerError as refused:
            self._supervisor.say(f"the broker cannot read the job's standard input: {refused.message}")
            return Result(reason=Reason.PROCESS_ERROR)
        async with self._borrowed:  # keeps the checkout's mirror and the caches until the attempt's end
            try:
                result = await self._run()
            except MachineRefused:
                with suppress(MachineRefused):  # the machine may refuse pre-exit too
                    await self._after(Hook.PRE_EXIT, Result(reason=Reason.PROCESS_ERROR))
                raise
            result = await self._after(Hook.PRE_EXIT, result)
        return replace(result, usage=self._usage())

    async def _redact(self, values: SecretValues) -> None:
        """Redact values from now on, beside those that are redacted already; raises `TooManySecrets`."""
        if values.shown:
            self._supervisor.say(f"not redacted, since too short or too common: {', '.join(values.shown)}")
        if values.hidden:
            self._to_redact.update(values.hidden)
            hidden = frozenset(self._to_redact)
            redactor = await self._surroundings.offload(lambda: Redactor(hidden))  # takes some 20 ms a key
            self._recorder.redact_with(redactor)

    async def _run_hook(self, hook: Hook, *, status: int | None = None, bound_s: float = HOOK_S_MAX) -> None:
        """Run a hook, and set its variables for the later steps; raises `HookFailed`."""
        variables = await self._hooks.run(hook, self._hooks_environment, status=status, bound_s=bound_s)
        if variables:
            try:
                await self._redact(secret_values(variables, patterns=self._surroundings.redact))
            except TooManySecrets as refused:
                raise self._hooks.failed(hook, f"has set variables that cannot be redacted: {refused}") from refused
            self._hooked |= variables

    async def _fetch_stdin(self) -> None:
        """Write the job's standard input into the workspace, unless the job is cancelled.

        Raises `OSError`; `PeerError`: the broker refuses; `LeaseEnded`: it does not know this lease any more.
        """
        if self._spec.stdin_bytes is None:
            return
        try:
            with cancelled_by(self._held.cancelled):
                stdin = await self._broker.read_stdin(self._lease)
                write_private(self._workspace.stdin, stdin, self._workspace.user)
        except (StaleToken, NotFound) as lost:
            raise LeaseEnded from lost

    async def _run(self) -> Result:
        """Run checkout, command and hooks, except pre-exit."""
        process: Process | None = None
        try:
            await self._prepare()
            with cancelled_by(self._held.cancelled):
                process = await self._jobs_launcher.launch(self._launch_spec())
        except CheckoutFailed as failed:
            if failed.scarce is not None:
                raise MachineRefused(failed.scarce, failed.message, guessed=True) from failed
            message = failed.message[:MESSAGE_CHARS_MAX]
            self._recorder.add(GitCloneError(timestamp_ms=self._wall_ms(), message=message, exit_code=failed.exit_code))
            return Result(reason=Reason.CHECKOUT_FAILED)
        except HookFailed as failed:
            if not takes_writes(self._workspace.root):  # most likely the hook failed because the disk is full
                raise MachineRefused(Scarce.DISK, HOOK_WITHOUT_ROOM, guessed=True) from failed
            return failed.result
        except LaunchFailed as failed:
            return self._not_started(failed)
        if process is None:
            return Result(reason=Reason.CANCELLED)
        async with attended(process):
            attending = self._attend(process)
            result = await (self._keeping.saving_during(attending) if self._keeping else attending)
        result = await self._after(Hook.POST_COMMAND, result)
        if self._leaves:
            result = await self._leaving.run(result, self._commit, self._held.cancelled)
        if self._caches is not None:
            await self._caches.save(result)
        return result

    def _not_started(self, failed: LaunchFailed) -> Result:
        """Record why the command could not be started, and return the attempt's result."""
        message, reason = failed.message, Reason.NOT_EXECUTABLE
        if failed.exit_code == NOT_FOUND:
            reason = Reason.COMMAND_NOT_FOUND
        elif self._spec.working_directory and not self._folder.is_dir():
            where = "checkout" if self._spec.repository else "workspace, which is empty without a repository"
            message = f"the working directory {self._spec.working_directory} is not a folder of the {where}"
            reason = Reason.NO_WORKING_DIRECTORY
        self._supervisor.say(message)
        return Result(exit_code=failed.exit_code, reason=reason)

    async def _prepare(self) -> None:
        """Run the checkout and the hooks that come before the command; raises `CheckoutFailed`, `HookFailed`."""
        if self._spec.repository:
            await self._run_hook(Hook.PRE_CHECKOUT)
            with cancelled_by(self._held.cancelled):
                self._commit = await self._check_out()
        if self._spec.keep or self._spec.continues is not None:
            uplink, around, say = self._broker.uplink, self._surroundings, self._supervisor.say
            self._keeping = Keeping(self._lease, self._workspace, self._recorder, uplink, around, say)
            with cancelled_by(self._held.cancelled):
                await self._keeping.restore()
        if self._spec.repository:
            await self._run_hook(Hook.POST_CHECKOUT)
        around, broker = self._surroundings, self._broker
        if self._spec.caches and around.shelf is not None:
            cancelled, say = self._held.cancelled, self._supervisor.say
            step = CacheStep(self._lease, self._workspace, cancelled, around.shelf, broker.uplink, broker.tenant, say)
            self._caches = await self._borrowed.enter_async_context(step)
            await step.restore()
        await self._run_hook(Hook.PRE_COMMAND)

    async def _after(self, hook: Hook, result: Result) -> Result:
        """Run `post-command` or `pre-exit`, with the grace as timeout after a cancel; return the attempt's result."""
        if self._surroundings.hooks is None:
            return result
        cancelled = self._held.cancelled.is_set()
        bound_s = self._surroundings.cancel_grace_s if cancelled else HOOK_S_MAX
        try:
            self._restore_for(hook)
            await self._run_hook(hook, status=result.exit_status, bound_s=bound_s)
        except HookFailed as failed:
            return failed.result if result.state is JobState.COMPLETED else result
        return result

    @property
    def _leaving(self) -> Leaving:
        """What stores what the job leaves."""
        return Leaving(
            self._lease,
            self._workspace,
            self._recorder,
            self._broker.uplink,
            self._surroundings,
            self._supervisor.say,
            self._jobs_launcher,
            {**self._jobs_environ, **self._hooked},
            self._keeping,
            self._put,
        )

    def _restore_for(self, hook: Hook) -> None:
        """Restore the checkout's folder, in which a hook runs; raises `HookFailed`."""
        try:
            restore_checkout(self._workspace)
        except OSError as error:
            self._supervisor.say(f"the hook {hook} cannot be run: its folder cannot be restored: {error.strerror}")
            raise HookFailed(Result(exit_code=NOT_EXECUTABLE, reason=Reason.HOOK_FAILED)) from error

    async def _check_out(self) -> str:
        """Check the commit out, and return its full hash; raises `CheckoutFailed`."""
        spec = self._spec
        started_s = anyio.current_time()
        self._recorder.add(
            GitCloneStart(
                timestamp_ms=self._wall_ms(),
                repository=shown_address(spec.repository),
                commit=spec.commit,
                branch=spec.branch,
            )
        )
        source = convert(spec, Source, from_attributes=True)
        if spec.tree is not None:
            blobs = self._broker.blobs(self._supervisor.say)
            source = replace(source, bundle=await fetch_tree(spec.tree, self._workspace, blobs))
        mirrors = self._surroundings.mirrors
        mirror = await self._borrowed.enter_async_context(mirrors.borrowed(spec.repository)) if mirrors else None
        commit = await check_out(
            self._jobs_launcher,
            source,
            Terms(self._surroundings.rules, self._surroundings.random, self._tell, self._supervisor.say),
            workspace=self._workspace,
            agent_environ={**self._jobs_environ, **self._hooked},
            mirror=mirror,
        )
        if source.bundle is not None:
            source.bundle.unlink()
        self._checkout_ms = ms_since(started_s)
        self._recorder.add(GitCloneEnd(timestamp_ms=self._wall_ms(), commit=commit, duration_ms=self._checkout_ms))
        return commit

    def _tell(self, line: str) -> None:
        """Record a line of git's progress."""
        self._recorder.add(GitCloneProgress(timestamp_ms=self._wall_ms(), message=line[:TEXT_CHARS_MAX]))

    def _launch_spec(self) -> LaunchSpec:
        """Return the specification of the job's command."""
        environment = job_environment(self._facts, self._jobs_environ, terminal=self._terminal is not None)
        stdin = self._workspace.stdin if self._spec.stdin_bytes else None
        return LaunchSpec(
            self._spec.argv,
            environment,
            self._folder,
            self._terminal,
            merged=self._spec.merge_output,
            stdin=stdin,
            short_s=SHORT_S if self._held.was_queued else 0.0,
        )

    @property
    def _folder(self) -> Path:
        """Folder that the command runs in."""
        return self._workspace.checkout / self._spec.working_directory

    def _hooks_environment(self) -> dict[str, str]:
        return hook_environment(self._facts, self._environ)

    @property
    def _facts(self) -> AttemptFacts:
        """The attempt's facts for its environment; before the checkout the commit is empty."""
        spec = self._spec
        if spec.repository:
            spec = replace(spec, repository=shown_address(spec.repository), commit=self._commit)
        return AttemptFacts(
            job_id=self._lease.job_id,
            attempt=self._lease.attempt,
            spec=spec,
            workspace=self._workspace,
            variables=self._spec.environment,
            secrets=self._secrets,
            operators=self._surroundings.variables,
            hooked=self._hooked,
        )

    async def _attend(self, process: Process) -> Result:
        """Supervise the command until it has ended, and return the result."""
        self.begun_s = anyio.current_time()
        outbox = self._recorder.outbox
        ends_soon = self._surroundings.hooks is None and not self._leaves  # the result follows at once
        outbox.held = process.ran_s is not None and ends_soon
        began_ms = self._wall_ms() - round((process.ran_s or 0.0) * 1_000)
        self._recorder.add(ProcessStart(timestamp_ms=began_ms, pid=process.pid, started_at=began_ms))
        if not outbox.held:
            await anyio.lowlevel.checkpoint()  # the publisher sends it before this task goes on
        cancel_signal = Signals[f"SIG{self._spec.cancel_signal}"]
        ended = await self._supervisor.supervise(
            process,
            self._spec.timeout_seconds,
            terminal=self._terminal,
            cancel_signal=cancel_signal,
            beside=lambda job: serve(job, self._leaving.artifacts),
        )
        self._spent = process.spent
        outbox.held = ends_soon  # the end, its signature and the result are one batch then
        self._recorder.add(
            ProcessEnd(
                timestamp_ms=self._wall_ms(),
                pid=process.pid,
                exit_code=ended.exit.exit_code,
                signal=ended.exit.signal,
                duration_ms=ended.duration_ms,
                usage=self._usage(),
            )
        )
        return result_of(ended.exit, ended.cut_short)

    def _usage(self) -> Usage | None:
        """Return the resources that the attempt has used so far; None: nothing was measured."""
        usage = Usage(
            **asdict(self._spent),
            stdout_bytes=self._supervisor.written[Stream.STDOUT],
            stderr_bytes=self._supervisor.written[Stream.STDERR],
            checkout_ms=self._checkout_ms,
        )
        return usage if usage != Usage() else None
