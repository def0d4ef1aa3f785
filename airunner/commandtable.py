"""Command table of the command line: where each command is, the group it is listed in, and its line in the help.

The table and the help it makes need no other module: `airunner --help` is printed without loading a command, and
running a command imports its own module only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

WIDTH_MIN: Final = 40  # columns of the help on a narrower terminal, which then wraps them
WIDTH_MAX: Final = 100
SUMMARY: Final = "Run any command in any Git repository, on any number of machines, and lose nothing."
EPILOG: Final = (
    "`airunner COMMAND --help` describes a command. A job is named by its id or the first characters of it.",
    "`airunner help TOPIC` explains config, environment, exit-codes, formatting, job-names, times.",
)
OPTIONS: Final = (
    ("-h, --help", "Print this help."),
    ("-V, --version", "Print the version."),
    ("--cluster NAME", "Cluster of config.yaml to use; see `airunner config list` [AIRUNNER_CLUSTER]."),
    ("--debug", "Print requests, retries and tracebacks on stderr, without secrets [AIRUNNER_DEBUG]."),
)


class Entry(NamedTuple):
    """Entry of the table: the module and name of a function, or of a group of them, and the line in the help.

    An entry without a line is not listed.
    """

    place: str
    line: str

    @property
    def is_group(self) -> bool:
        """Whether this is a group of commands, such as `certs`."""
        return self.place.endswith("_app")


_CLIENT: Final = "airunner.client.cli"
GROUPS: Final[Mapping[str, Mapping[str, Entry]]] = MappingProxyType(
    {
        "Run jobs": {
            "submit": Entry(f"{_CLIENT}.commands:submit_command", "Submit a job and follow it to its end"),
            "run": Entry("airunner.solo:run_command", "Run a job on this machine, without a cluster"),
            "retry": Entry(f"{_CLIENT}.controls:retry_command", "Submit a finished job again"),
            "continue": Entry(f"{_CLIENT}.again:continue_command", "Run a command in the saved workspace of a job"),
            "cancel": Entry(f"{_CLIENT}.controls:cancel_command", "Cancel waiting and running jobs"),
        },
        "Watch": {
            "list": Entry(f"{_CLIENT}.joblist:list_command", "List jobs, newest first"),
            "ps": Entry(f"{_CLIENT}.joblist:list_command", ""),  # the names that other programs use
            "ls": Entry(f"{_CLIENT}.joblist:list_command", ""),
            "top": Entry(f"{_CLIENT}.top:top_command", "Show queues, agents and running jobs as they change"),
            "show": Entry(f"{_CLIENT}.commands:show_command", "Show jobs in full: state, result, fields"),
            "explain": Entry(f"{_CLIENT}.explain:explain_command", "Explain why a job waits, or how it ended"),
            "wait": Entry(f"{_CLIENT}.wait:wait_command", "Wait for jobs to end, and exit as they did"),
            "monitor": Entry(f"{_CLIENT}.monitor:monitor_command", "Follow a job, and exit as it does"),
            "logs": Entry(f"{_CLIENT}.logs:logs_command", "Print the output of a job so far"),
            "artifacts": Entry(f"{_CLIENT}.artifacts:artifacts_command", "List or get the files that a job has left"),
            "apply": Entry(f"{_CLIENT}.apply:apply_command", "Bring here what a job has changed in its checkout"),
            "artifact": Entry(f"{_CLIENT}.artifactput:artifact_app", "Keep files of a job from inside of it"),
            "verify": Entry(f"{_CLIENT}.verify:verify_command", "Prove that a job's log is what its agents wrote"),
            "export": Entry(f"{_CLIENT}.export:export_command", "Write a job's log as a recording or as JSON"),
        },
        "Queues and agents": {
            "queues": Entry(f"{_CLIENT}.controls:queues_command", "List the queues and what waits in them"),
            "agents": Entry(f"{_CLIENT}.controls:agents_command", "List the agents and how busy they are"),
            "pause": Entry(f"{_CLIENT}.controls:pause_command", "Pause a queue: it starts no job"),
            "resume": Entry(f"{_CLIENT}.controls:resume_command", "Resume a paused or drained queue"),
            "drain": Entry(f"{_CLIENT}.controls:drain_command", "Drain a queue: it takes no new job"),
            "cache": Entry(f"{_CLIENT}.caches:cache_app", "List and remove the caches of jobs"),
        },
        "Operate": {
            "up": Entry("airunner.cluster:up_command", "Start a broker and an agent on this machine"),
            "down": Entry("airunner.cluster:down_command", "Stop what `airunner up` has started"),
            "broker": Entry("airunner.broker.command:broker_command", "Run the broker"),
            "orchestrator": Entry("airunner.broker.command:orchestrator_command", "Run the broker on AWS"),
            "agent": Entry("airunner.agent.command:agent_command", "Run an agent"),
            "worker": Entry("airunner.agent.command:agent_command", ""),
            "web": Entry("airunner.client.web.command:web_command", "Serve pages and an HTTP API to browsers and curl"),
            "brokers": Entry(f"{_CLIENT}.controls:brokers_command", "List the brokers that share the store"),
            "scale": Entry(f"{_CLIENT}.scale:scale_app", "Start agents on a cluster while jobs wait"),
            "store": Entry("airunner.broker.storecommand:store_app", "Make, restore, check and copy the store"),
            "backup": Entry("airunner.broker.storecommand:backup_command", "Back up the store of a broker"),
            "config": Entry("airunner.configcommand:config_app", "Show and change settings; choose a cluster"),
            "completion": Entry("airunner.completion:completion_command", "Print the completion script of a shell"),
            "doctor": Entry("airunner.doctor:doctor_command", "Check what airunner needs on this machine"),
        },
        "Identity": {
            "certs": Entry("airunner.certs.command:certs_app", "Manage keys and who may connect"),
            "token": Entry("airunner.certs.command:token_command", "Print a token for a person or a machine"),
            "login-link": Entry(
                "airunner.client.web.command:login_link_command", "Print a link that logs a browser in"
            ),
            "secret": Entry(f"{_CLIENT}.secrets:secret_app", "Manage the secrets of a queue's jobs"),
        },
    }
)
"""Commands by the heading of their group in the help, and by name."""
TABLE: Final[Mapping[str, Entry]] = MappingProxyType(
    {name: entry for entries in GROUPS.values() for name, entry in entries.items()}
)


def help_text() -> str:
    """Format the help of `airunner`, as wide as the terminal: every line of the table is there in full."""
    width = width_shown()
    lines = [*wrapped("", SUMMARY, width), "", "Usage: airunner COMMAND [ARGUMENTS]"]
    for heading, entries in GROUPS.items():
        listed = [(name, entry.line) for name, entry in entries.items() if entry.line]
        lines += ["", f"{heading}:", *rows(listed, width)]
    lines += ["", "Options:", *rows(OPTIONS, width), ""]
    return "\n".join((*lines, *(line for text in EPILOG for line in wrapped("", text, width)))) + "\n"


def width_shown() -> int:
    """Return the width of helps: the terminal's, within bounds."""
    import shutil

    return min(max(shutil.get_terminal_size().columns, WIDTH_MIN), WIDTH_MAX)


def rows(pairs: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """Yield the lines of a list of names, each with its text beside it."""
    column = max(len(name) for name, _ in pairs) + 4
    for name, line in pairs:
        yield from wrapped(f"  {name:<{column - 2}}", line, width)


def wrapped(head: str, text: str, width: int) -> list[str]:
    """Wrap a text behind a head; further lines are indented as far."""
    lines = [head]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width and len(lines[-1]) > len(head):
            lines[-1] = lines[-1].rstrip()
            lines.append(" " * len(head))
        lines[-1] += f"{word} "
    lines[-1] = lines[-1].rstrip()
    return lines
