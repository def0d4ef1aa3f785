"""Client command decorator: runs a command with a `Client` and a console, and adds the options that all commands have.

Rules of these commands
- The job's stdout goes to stdout and its stderr to stderr, filtered on a terminal; airunner's own messages to stderr.
- Errors are raised; `airunner/__main__.py` prints their message and exits with their code.
- Commands import modules when they run, so that `airunner --help` is quick.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from inspect import Parameter, iscoroutinefunction, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args

import typer
from typer.models import ArgumentInfo, OptionInfo

from airunner.client.cli.console import Console
from airunner.client.cli.jobname import NoJob
from airunner.client.cli.options import with_parameters
from airunner.client.cli.standardstreams import ReaderGone
from airunner.protocol.durations import duration_ms, of_flag
from airunner.protocol.errors import BadRequest, NotFound, OperatorError, PeerError
from airunner.transport.endpoints import BROKER_VARIABLE, DEFAULT_BROKER

if TYPE_CHECKING:
    from airunner.client.client import Client

TIMEOUT_S_MIN: Final = 0.1  # a handshake takes about as long

Work = Callable[["Client"], Awaitable[int | None]]
"""Work of a command in the event loop; it returns the exit code, or None for 0."""

BrokerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--broker",
        envvar=BROKER_VARIABLE,
        metavar="ENDPOINT",
        help="Broker to use, as tcp://HOST:PORT; repeat it for more brokers, which are tried in turn.",
        show_default=DEFAULT_BROKER,
    ),
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="AIRUNNER_TOKEN",
        show_envvar=True,
        help="Token to present to the broker; see `airunner token`.",
        show_default="one signed with the home's key, if that exists",
    ),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="File (mode 0600) with the token, read again when it changes.",
        show_default="none",
    ),
]
ConnectTimeoutOption = Annotated[
    str | None,
    typer.Option(
        "--connect-timeout",
        envvar="AIRUNNER_CONNECT_TIMEOUT",
        metavar="SECONDS",
        help="How long to wait for a broker that does not answer: 90, or 1m30s.",
        show_default="10 until a broker has answered, then no limit",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object a line on stdout.")]
RawOption = Annotated[
    bool,
    typer.Option(
        "--raw",
        help="Pass the job's output to the terminal unchanged, as full-screen programs need. By default the terminal "
        "gets only text and colours, which cannot harm it; a pipe or a file always gets every byte.",
    ),
]
QuietOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print no progress on stderr; warnings and the reason of a failure stay."),
]


_JOB: Final = "id, its first characters (4 or more), its name, or @last; @last~1 is the job before that."
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help=f"The job: its {_JOB}")]
JobsArgument = Annotated[list[str], typer.Argument(metavar="JOB...", help=f"The jobs: of each its {_JOB}")]


def client_command(*optional: str) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Make a command from a coroutine function, which is called with a `client`, a `console` and its own options.

    A plain function, which may read stdin before the event loop starts, is called with `console` and its options, and
    returns its `Work`. `optional` names the options that only some commands have: `quiet`, `raw`, `token_file`.
    """

    def decorated(function: Callable[..., Any]) -> Callable[..., None]:
        def command(
            *,
            quiet: QuietOption = False,
            raw: RawOption = False,
            broker: BrokerOption = None,
            token: TokenOption = None,
            token_file: TokenFileOption = None,
            connect_timeout: ConnectTimeoutOption = None,
            **options: Any,  # noqa: ANN401 - the command's own, of any kind
        ) -> None:
            timeout_s = timeout_of(connect_timeout)
            console = Console(quiet=quiet, raw=raw)
            if iscoroutinefunction(function):
                work: Work = partial(function, console=console, **options)
            else:
                work = function(console, **options)
            try:
                _run(work, console, broker, token, token_file, timeout_s)
            except BadRequest as error:
                if error.misfit is None:
                    raise
                name = error.misfit.field
                raise OperatorError(f"{labels.get(name, name)}: {error.misfit.problem}") from error

        own = signature(function, eval_str=True, locals={"Client": object}).parameters
        shared = signature(command, eval_str=True).parameters
        parameters = [own[name] for name in own if name not in ("client", "console")]
        labels = dict(map(_label, parameters))
        parameters += [shared[name] for name in (*optional, "broker", "token", "connect_timeout")]
        return with_parameters(wraps(function)(command), parameters)

    return decorated


def _label(parameter: Parameter) -> tuple[str, str]:
    """Return the field of a request that a parameter sets, and how errors call it: by its option or operand."""
    name = parameter.name
    match get_args(parameter.annotation)[-1:]:
        case (ArgumentInfo(),):
            return "job_id" if name in ("job", "jobs") else name, name.removesuffix("s").upper()
        case (OptionInfo(default=str(flag)),) if flag.startswith("--"):  # Typer's first operand is called so
            return name, flag
        case _:
            return name, f"--{name.replace('_', '-')}"


def timeout_of(text: str | None) -> float | None:
    """Parse `--connect-timeout` into seconds; None for 0, which means the default."""
    seconds = 0.0 if text is None else of_flag("--connect-timeout", duration_ms, text) / 1_000
    return max(seconds, TIMEOUT_S_MIN) if seconds else None


def _run(
    work: Work,
    console: Console,
    broker: list[str] | None,
    token: str | None,
    token_file: Path | None,
    timeout_s: float | None,
) -> None:
    """Run `work` with a client, and exit with its code; an interrupt prints `console.farewell` and ends it."""
    import anyio

    from airunner.certs.home import Home
    from airunner.client.cli.interrupts import Interrupts
    from airunner.client.client import Client
    from airunner.client.session import FIRST_PATIENCE_S
    from airunner.transport.patience import Patience

    def notice(endpoint: str, left_s: float | None) -> None:
        left = "" if left_s is None else f", for {left_s:.0f} s more"
        home = Home.from_environment(os.environ).root
        console.must_say(f"no broker answers at {endpoint} yet; trying with the keys in {home}{left}")

    async def run(interrupts: Interrupts) -> int | None:
        patience = Patience(timeout_s or FIRST_PATIENCE_S, timeout_s, notice=notice)
        async with Client(broker, token=token, token_file=token_file, patience=patience) as client:

            async def call() -> int:
                return await work(client) or 0

            return await interrupts.interruptible(call, console.decide)

    with Interrupts(lambda: console.writing) as interrupts:
        code: int | None = None
        try:
            code = anyio.run(run, interrupts)
        except KeyboardInterrupt:
            pass
        except ReaderGone:
            if console.owns:
                console.say_farewell()
            raise
        except (OperatorError, PeerError) as error:
            console.end_line()
            if not console.job_id or not isinstance(error, NotFound):
                raise
            raise NoJob(console.job_id) from error
        if code is None:
            console.say_farewell()
        raise typer.Exit(code or console.exit_code if interrupts.number is None else interrupts.exit_code)
