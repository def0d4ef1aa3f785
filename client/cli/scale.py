"""Commands `airunner scale kubernetes` and `airunner scale slurm`: start agents while jobs wait for them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from airunner.client.cli.clientcommand import Work, client_command
from airunner.client.cli.console import Console
from airunner.protocol.durations import seconds_between
from airunner.protocol.errors import OperatorError
from airunner.protocol.fields import DEFAULT_QUEUE
from airunner.protocol.fieldtypes import AGENT_SLOTS_MAX
from airunner.protocol.names import (
    NAME_CHARS_MAX,
    NAME_EXPECTED,
    TAGS_MAX,
    fits_name,
    fits_tag_value,
)

if TYPE_CHECKING:
    from airunner.client.client import Client
    from airunner.client.scale.cluster import Cluster
    from airunner.client.scale.scaler import Terms

AGENTS_MAX: Final = 1_000  # of one scaler: each look lists them all
INTERVAL_S_MAX: Final = 3_600
START_S_MAX: Final = 86_400

scale_app = typer.Typer(help="Start agents on a cluster while jobs wait for them.", no_args_is_help=True)

QueueOption = Annotated[str, typer.Option(help="Queue whose waiting jobs are counted.")]
MaxOption = Annotated[int, typer.Option("--max", min=1, max=AGENTS_MAX, help="Maximum agents at a time.")]
NameOption = Annotated[
    str | None,
    typer.Option(
        help="Name of this scaler: its agents are NAME-0, NAME-1 and so on. Scalers of different queues, or brokers, "
        "need different names.",
        show_default="airunner-QUEUE",
    ),
]
SlotsOption = Annotated[
    int, typer.Option(min=1, max=AGENT_SLOTS_MAX, help="Jobs that one agent runs at once, its --spawn.")
]
TagOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TAG=VALUE",
        help="Tag that the agents have, their --tag; may be repeated. Jobs that require other tags are not counted.",
        show_default="none",
    ),
]
IntervalOption = Annotated[
    float,
    typer.Option(
        parser=seconds_between("--interval", 1, INTERVAL_S_MAX),
        metavar="SECONDS",
        help="Longest time between two looks at the queue.",
    ),
]
StartOption = Annotated[
    float,
    typer.Option(
        parser=seconds_between("--start-timeout", 1, START_S_MAX),
        metavar="SECONDS",
        help="Time in which a new agent should reach the broker; after that it no longer counts as one that will.",
    ),
]


@scale_app.command("kubernetes")
@client_command("quiet", "token_file")
def kubernetes_command(
    console: Console,
    template: Annotated[
        Path, typer.Option(metavar="FILE", help="Manifest of a Job that runs one agent, YAML or JSON.")
    ],
    agents_max: MaxOption,
    queue: QueueOption = DEFAULT_QUEUE,
    name: NameOption = None,
    slots: SlotsOption = 1,
    tag: TagOption = None,
    namespace: Annotated[
        str | None, typer.Option(help="Namespace of the Jobs.", show_default="the template's, or the current one")
    ] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="KUBECONFIG",
            help="File that says how to reach the cluster.",
            show_default="this pod's service account, or ~/.kube/config",
        ),
    ] = None,
    interval: IntervalOption = 5,
    start_timeout: StartOption = 600,
) -> Work:
    """Start agents as Kubernetes Jobs while jobs of a queue wait, up to --max at a time; runs until it is stopped.

    Agents end by themselves: give them --disconnect-after-job or --disconnect-after-idle. This command may be killed
    and started again at any time. It needs the rights to create, delete, list and watch jobs in the namespace.
    """
    from airunner.client.scale.kubernetes.access import find_access
    from airunner.client.scale.kubernetes.template import LABEL, check_scaler_name, read_template

    terms = _terms(queue, name, agents_max, slots, tag, interval, start_timeout)
    check_scaler_name(terms.name, agents_max)
    job = read_template(template)
    access = find_access(kubeconfig, os.environ)
    place = namespace or job.namespace or access.namespace
    _warn_of_stayers(console, leaves=job.leaves)

    async def run(client: Client) -> None:
        try:
            from airunner.client.scale.kubernetes.api import JobsApi
        except ImportError as error:
            raise OperatorError("this needs httpx: install airunner-jobs[kubernetes]") from error
        from airunner.client.scale.kubernetes.jobs import KubernetesJobs

        async with JobsApi.open(access, place, f"{LABEL}={terms.name}") as api:
            await _scale(client, KubernetesJobs(api, job, terms.name), terms, f"Kubernetes namespace {place}", console)

    return run


@scale_app.command("slurm")
@client_command("quiet", "token_file")
def slurm_command(
    console: Console,
    script: Annotated[Path, typer.Option(metavar="FILE", help="Batch script for sbatch that runs one agent.")],
    agents_max: MaxOption,
    queue: QueueOption = DEFAULT_QUEUE,
    name: NameOption = None,
    slots: SlotsOption = 1,
    tag: TagOption = None,
    interval: IntervalOption = 5,
    start_timeout: StartOption = 600,
) -> Work:
    """Start agents as Slurm batch jobs while jobs of a queue wait, up to --max at a time; runs until it is stopped.

    Agents end by themselves: give them --disconnect-after-job or --disconnect-after-idle. This command may be killed
    and started again at any time. It calls sbatch and squeue.
    """
    from airunner.certs.ownership import own_home
    from airunner.client.scale.slurm import SlurmJobs, lock_scaler, read_script

    terms = _terms(queue, name, agents_max, slots, tag, interval, start_timeout)
    if "/" in terms.name:
        raise OperatorError(f"{terms.name!r} cannot begin the names of Slurm jobs: choose another with --name")
    _warn_of_stayers(console, leaves=read_script(script))

    async def run(client: Client) -> None:
        lock = await lock_scaler(own_home(os.environ).root, terms.name, console.must_say)
        await _scale(client, SlurmJobs(script, terms.name, os.environ, lock), terms, "Slurm", console)

    return run


async def _scale(client: Client, cluster: Cluster, terms: Terms, place: str, console: Console) -> None:
    """Check both sides, then scale for ever. Raises `OperatorError`: the cluster does not answer, or refuses."""
    from airunner.client.scale.cluster import ClusterAway
    from airunner.client.scale.scaler import Scaler

    await client.queue(terms.queue, tags=terms.tags)
    try:
        await cluster.check()
    except ClusterAway as error:
        raise OperatorError(str(error)) from error
    console.must_say(f"scaling queue {terms.queue}: up to {terms.agents_max} agents {terms.name}-N on {place}")
    await Scaler(client, cluster, terms, console.say).run()


def _terms(
    queue: str,
    name: str | None,
    agents_max: int,
    slots: int,
    tags: Sequence[str] | None,
    interval_s: float,
    start_s: float,
) -> Terms:
    """Check the options that both commands have. Raises `OperatorError`."""
    from airunner.client.scale.scaler import Terms

    scaler = f"airunner-{queue}" if name is None else name
    for option, word in (("--queue", queue), ("--name", scaler)):
        if not fits_name(word):
            raise OperatorError(f"{option} {word!r}: expected {NAME_EXPECTED}")
    if len(scaler) + len(str(agents_max)) >= NAME_CHARS_MAX:
        raise OperatorError(f"{scaler!r} is too long for a name of agents: choose another with --name")
    split = [pair.partition("=") for pair in tags or ()]
    for pair, (tag, equals, value) in zip(tags or (), split, strict=True):
        if not equals or not fits_name(tag) or not fits_tag_value(value):
            raise OperatorError(f"--tag {pair!r}: expected TAG=VALUE such as os=linux, up to {NAME_CHARS_MAX} each")
    if len(split) > TAGS_MAX:
        raise OperatorError(f"--tag: an agent has at most {TAGS_MAX} tags, not {len(split)}")
    facts = {tag: value for tag, _, value in split}
    return Terms(scaler, queue, agents_max, slots, facts, interval_s, start_s)


def _warn_of_stayers(console: Console, *, leaves: bool) -> None:
    if not leaves:
        console.must_say(
            "its agents seem to have neither --disconnect-after-job nor --disconnect-after-idle: then they never end"
        )
