"""Words that complete a command line: commands, options, values, jobs, queues, agents' tags, secrets and caches.

What is known here is answered without the broker; what only the broker knows within `WAIT_S`, or not at all. A failure
is no candidate, because a shell shows what is printed in the middle of the line that is typed.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

from airunner.commandtable import TABLE

if TYPE_CHECKING:
    from airunner.client.client import Client

WAIT_S: Final = 1.0  # for the broker; usually it answers in 10 ms
JOBS_MAX: Final = 100  # newest jobs that are looked at
ID_CHARS: Final = 8  # of an id, until more of it is typed
FILES: Final = ":files"
FOLDERS: Final = ":folders"
PATHS: Final = (FILES, FOLDERS)
SHELLS: Final = ("bash", "zsh", "fish")
_PATHS: Final = {"FILE": FILES, "PATH": FILES, "FROM": FILES, "TO": FILES, "FOLDER": FOLDERS}
_OPTIONS: Final = {
    **dict.fromkeys(("--queue",), "queues"),
    **dict.fromkeys(("--state", "--status", "-s"), "states"),
    **dict.fromkeys(("--secret", "--secret-file"), "secrets"),
    **dict.fromkeys(("--require", "--tag"), "tags"),
    "--columns": "columns",
    "--cluster": "clusters",
    "--event-filter": "kinds",
}
_OPERANDS: Final = {
    "config use": "clusters",
    "config set": "settings",
    "config unset": "settings",
    **dict.fromkeys(("cache list", "cache show", "cache rm"), "caches"),
    "secret set": "secrets",
    "secret rm": "secrets",
    "certs revoke": "machines",
    "certs export": "machines",
    "completion": "shells",
    "submit": FILES,
    "run": FILES,
}
_STATES: Final = {
    "cancel": ("BLOCKED", "SCHEDULED", "RUNNING"),
    "retry": ("FAILED", "COMPLETED", "CANCELLED", "SKIPPED"),
}


class Word(NamedTuple):
    """Candidate: a word, and what it is."""

    text: str
    meaning: str = ""


def complete(shell: str, current: str, words: Sequence[str]) -> str:
    """Return a candidate a line; `words` end with the unfinished one.

    Bash gives the line instead, replaces only the end `current` of its last word, and inserts a candidate as it is: it
    is quoted here, because a job's name is another user's text, and may have a command in it.
    """
    quote = ""
    if shell == "bash":
        (_, *words), quote = _split(words[0])
        current = current if quote else "".join(_split(current)[0])
    *before, unfinished = words or [""]
    try:
        found = [
            each for each in _candidates(before, unfinished) if each.text.startswith(unfinished) or each.text in PATHS
        ]
    except Exception:  # noqa: BLE001 - the shell shows nothing else than candidates
        return ""
    kept = len(unfinished) - len(current) if shell == "bash" and unfinished.endswith(current) else 0
    lines = dict[str, None]()
    for text, meaning in found:
        shown = text if text in PATHS else text[kept:]
        if shell == "bash" and text not in PATHS:
            shown = _quoted(shown, quote)
        if text.isprintable():
            lines[f"{shown}\t{' '.join(meaning.split())}\n" if meaning else f"{shown}\n"] = None
    return "".join(lines)


def _quoted(text: str, quote: str) -> str:
    """Quote a text for bash, behind the opening quote `quote`, or with backslashes if there is none."""
    if quote == "'":
        return text.replace("'", "'\\''")
    return re.sub(r'(["$`\\])' if quote else r"([^\w@%+=:,./-])", r"\\\1", text)


def _split(line: str) -> tuple[list[str], str]:
    """Split a line as a shell does: return its words, the last of which is unfinished or empty, and its open quote."""
    for quote in ("", "'", '"'):
        lexer = shlex.shlex(line + quote, posix=True)
        lexer.whitespace_split, lexer.commenters = True, ""
        with suppress(ValueError):  # a quote is open
            words = list(lexer)
            ended = not quote and line[-1:].isspace() and not line.endswith("\\ ")
            return [*words, ""] if ended else words, quote
    return _split(line.removesuffix("\\")) if line.endswith("\\") else ([], "")


def _candidates(before: Sequence[str], unfinished: str) -> Iterator[Word]:
    words = list(before)
    while words and words[0].startswith("-"):  # of `airunner` itself
        flag, _, value = words[0].partition("=")
        if value and flag == "--cluster":
            os.environ["AIRUNNER_CLUSTER"] = value
        taken = 2 if words[0] == "--cluster" else 1
        if len(words) < taken:
            yield from _named("clusters", "", unfinished)
            return
        if taken == 2:  # noqa: PLR2004 - the option and its value
            os.environ["AIRUNNER_CLUSTER"] = words[1]
        del words[:taken]
    if not words:
        yield from _first(unfinished)
    elif words[0] == "help":
        from airunner.topics import names

        yield from map(Word, names())
    else:
        yield from _of_command(words, unfinished)


def _first(unfinished: str) -> Iterator[Word]:
    if unfinished.startswith("-"):
        yield from map(Word, ("--help", "--version", "--cluster", "--debug"))
        return
    for name, entry in TABLE.items():
        if entry.line:
            yield Word(name, entry.line)
    yield Word("help", "Explain a command or a topic")


def _of_command(words: list[str], unfinished: str) -> Iterator[Word]:
    """Yield the words that fit behind the name of a command."""
    import typer

    from airunner.commandline import make_app
    from airunner.helptext import first_sentence

    if words[0] not in TABLE:
        return
    root: Any = typer.main.get_command(make_app(words[0]))
    name = words.pop(0)
    found: Any = root.commands[name]
    below: dict[str, Any] = getattr(found, "commands", {})
    if below and not words:
        yield from (Word(each, first_sentence(one.help or "")) for each, one in below.items())
        return
    if below:
        name = f"{name} {words[0]}"
        found = below[words.pop(0)]
    yield from _of_parameters(found.params, name, words, unfinished)


def _of_parameters(parameters: Sequence[Any], name: str, words: Sequence[str], unfinished: str) -> Iterator[Word]:
    """Yield the options and operands that fit, and their values."""
    options: dict[str, Any] = {
        flag: each for each in parameters for flag in (*each.opts, *each.secondary_opts) if flag[:1] == "-"
    }
    operands = [each for each in parameters if each.opts[0][:1] != "-"]
    place = _place(words, options)
    if place == "--":
        yield Word(FILES)
    elif isinstance(place, str):
        yield from _values(options[place], place, name, unfinished)
    elif unfinished.startswith("--") and "=" in unfinished:
        flag, _, begun = unfinished.partition("=")
        found_values = _values(options[flag], flag, name, begun)
        yield from (Word(f"{flag}={text}", meaning) for text, meaning in found_values if text not in PATHS)
    elif unfinished.startswith("-"):
        for flag, option in options.items():
            if flag[:2] == "--" and (option.multiple or flag not in words):
                yield Word(flag, (option.help or "").partition(". ")[0])
        yield Word("--help")
    elif name == "artifacts" and place[1:2] in (["get"], ["cat"]):
        yield from _asked("files", place[0], unfinished)
    elif operands:
        yield from _operand(operands[min(len(place), len(operands) - 1)], name, unfinished)


def _place(words: Sequence[str], options: dict[str, Any]) -> str | list[str]:
    """Return the option whose value comes next, `--` behind that, or else the operands so far."""
    operands: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            return word
        if word[:1] != "-" or word == "-":
            operands.append(word)
            continue
        flag, given, value = word.partition("=") if word[:2] == "--" else (f"-{word[-1]}", "", "")
        if flag not in options or options[flag].is_flag:
            continue
        if not given and not (value := next(rest, "")):
            return flag
        _note(options[flag], value)
    return operands


def _note(option: Any, value: str) -> None:  # noqa: ANN401 - of the parser's, whose classes typer hides
    """Note which broker is meant by an option."""
    if option.opts[0] in ("--broker", "--token", "--token-file", "--cluster"):
        os.environ[f"AIRUNNER_{option.opts[0][2:].upper().replace('-', '_')}"] = value


def _values(option: Any, flag: str, command: str, unfinished: str) -> Iterable[Word]:  # noqa: ANN401 - likewise
    """Return the words that an option takes."""
    if flag in _OPTIONS:
        return _named(_OPTIONS[flag], command, unfinished)
    annotation = option.type_descriptor.annotation
    kind = (get_args(annotation) or (annotation,))[0]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [Word(str(each.value).lower()) for each in kind]
    if option.metavar and option.metavar.islower() and "|" in option.metavar:
        return map(Word, option.metavar.split("|"))
    path = _PATHS.get(option.metavar or "") or (FILES if kind is Path else "")
    return [Word(path)] if path else []


def _operand(operand: Any, command: str, unfinished: str) -> Iterable[Word]:  # noqa: ANN401 - likewise
    """Return the words that an operand may be."""
    metavar = str(operand.metavar or operand.opts[0])
    name = metavar.upper().strip("[].")
    if command in _OPERANDS:
        return _named(_OPERANDS[command], command, unfinished)
    if name in ("JOB", "JOBS"):
        return _named("jobs", command, unfinished)
    if name == "QUEUE":
        return _named("queues", command, unfinished)
    if metavar.islower() and "|" in metavar:
        return map(Word, metavar.split("|"))
    return [Word(_PATHS[name])] if name in _PATHS else []


def _named(kind: str, command: str, unfinished: str) -> Iterable[Word]:
    """Return the words of a kind; those of the broker may depend on the command, and on what is typed of the word."""
    if kind in (FILES, FOLDERS):
        return [Word(kind)]
    return _LOCAL[kind]() if kind in _LOCAL else _asked(kind, command, unfinished)


def _clusters() -> Iterator[Word]:
    from airunner.client.settings import config_path, read_config
    from airunner.transport.endpoints import DEFAULT_BROKER

    for name, own in read_config(config_path(os.environ)).clusters.items():
        yield Word(name, own["broker"].value if "broker" in own else DEFAULT_BROKER)


def _settings() -> Iterator[Word]:
    from airunner.client.settings import CLIENT_NAMES, NAMES

    yield from map(Word, sorted({*NAMES, *CLIENT_NAMES} - {"token"}))
    with suppress(Exception):
        yield from (Word(f"clusters.{name}.") for name, _ in _clusters())


def _machines() -> Iterator[Word]:
    from airunner.certs.machines import machines
    from airunner.certs.ownership import own_home

    yield from (Word(each.name, ",".join(each.roles)) for each in machines(own_home(os.environ)))


def _columns() -> Iterator[Word]:
    from airunner.client.cli.columns import COLUMNS

    yield from map(Word, COLUMNS)


def _kinds() -> Iterator[Word]:
    from airunner.protocol.events import EVENT_KINDS

    yield from (Word(kind.lower().replace("_", "-")) for kind in EVENT_KINDS)


def _states() -> Iterator[Word]:
    from airunner.protocol.job import JobState

    yield from (Word(str(state).lower()) for state in JobState)


_LOCAL: Final[dict[str, Callable[[], Iterable[Word]]]] = {
    "clusters": _clusters,
    "settings": _settings,
    "machines": _machines,
    "columns": _columns,
    "kinds": _kinds,
    "states": _states,
    "shells": lambda: map(Word, SHELLS),
}


def _asked(kind: str, command: str, unfinished: str) -> list[Word]:
    """Ask the broker for the words of a kind; none if it does not answer in time."""
    import anyio

    from airunner.client.client import Client
    from airunner.transport.patience import Patience

    found: list[Word] = []

    async def ask() -> None:
        with anyio.move_on_after(WAIT_S):
            async with Client(patience=Patience(WAIT_S, WAIT_S)) as client:
                async for word in _BROKERS[kind](client, command, unfinished):
                    found.append(word)  # noqa: PERF401 - what has come in time counts

    anyio.run(ask)
    return found


async def _jobs(client: Client, command: str, unfinished: str) -> AsyncIterator[Word]:
    from airunner.client.cli.columns import state_text

    page = await client.list_page(page_size=JOBS_MAX)
    states = _STATES.get(command, ())
    chosen = [job for job in page.jobs if not states or job.state in states]
    for job in chosen:
        id_ = job.id if len(unfinished) > ID_CHARS else job.id[:ID_CHARS]
        yield Word(id_, f"{state_text(job)}  {job.name or job.command}")
        if job.name:
            yield Word(job.name, f"{state_text(job)}  {job.command}")
    yield Word("@last", "the newest job")


async def _queues(client: Client, _command: str, _unfinished: str) -> AsyncIterator[Word]:
    async for queue in client.queues():
        yield Word(queue.queue, f"{queue.waiting} waiting")


async def _secrets(client: Client, _command: str, _unfinished: str) -> AsyncIterator[Word]:
    async for secret in client.secrets():
        yield Word(secret.name, f"queue {secret.queue}")


async def _caches(client: Client, _command: str, _unfinished: str) -> AsyncIterator[Word]:
    async for cache in client.caches():
        yield Word(cache.name, f"queue {cache.queue}, label {cache.label}")


async def _tags(client: Client, _command: str, _unfinished: str) -> AsyncIterator[Word]:
    async for agent in client.agents():
        for name, value in agent.tags.items():
            yield Word(f"{name}={value}", f"agent {agent.name}")


async def _files(client: Client, job: str, _unfinished: str) -> AsyncIterator[Word]:
    from airunner.client.cli.jobname import job_id_of
    from airunner.protocol.sizes import bytes_text

    for file in await client.artifacts(await job_id_of(client, job)):
        yield Word(file.path, file.kind if file.kind != "file" else bytes_text(file.size_bytes))


_BROKERS: Final[dict[str, Callable[[Client, str, str], AsyncIterator[Word]]]] = {
    "files": _files,
    "jobs": _jobs,
    "queues": _queues,
    "secrets": _secrets,
    "caches": _caches,
    "tags": _tags,
}


def main(words: Sequence[str]) -> None:
    """Print the candidates for `airunner _complete SHELL CURRENT WORD...`."""
    shell, current, *rest = words
    sys.stdout.write(complete(shell, current, rest))
