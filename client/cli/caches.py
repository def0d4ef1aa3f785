"""Commands `airunner cache …`: list, show and remove versions of the caches that jobs have saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from airunner.client.cli.clientcommand import JsonOption, client_command
from airunner.client.cli.console import Console
from airunner.client.cli.controls import show_rows
from airunner.client.cli.wording import instant_text
from airunner.protocol.caches import CACHE_NAME_EXPECTED, KEY_EXPECTED, CacheSummary, fits_cache_name, fits_key
from airunner.protocol.errors import EXIT_NO_SUCH, OperatorError
from airunner.protocol.names import NAME_EXPECTED, fits_name
from airunner.protocol.sizes import bytes_text

if TYPE_CHECKING:
    from airunner.client.client import Client

cache_app = typer.Typer(help="List and remove caches of jobs.", no_args_is_help=True)

HEADINGS: Final = ("CACHE", "KEY", "QUEUE", "LABEL", "SIZE", "SAVED", "USED")
LEAVE: Final = ("LABEL", "USED", "QUEUE", "SAVED", "SIZE")  # columns, in the order in which they go
KEY_CHARS: Final = 12  # of a key in a list

QueueOption = Annotated[str | None, typer.Option(help="Only caches of this queue.", show_default="all")]
LabelOption = Annotated[str | None, typer.Option(help="Only caches with this label.", show_default="all")]
KeyOption = Annotated[str | None, typer.Option(help="Only versions whose key begins so.", show_default="all")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the cache.")]


@cache_app.command("list")
@client_command()
async def list_command(
    client: Client,
    console: Console,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only the cache of this name.")] = None,
    queue: QueueOption = None,
    label: LabelOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """List the versions of caches: their size, when each was saved, and in which hour it was last restored."""
    _check(name, queue, label, key)
    await show_rows(console, client.caches(queue, label, name, key), _row, HEADINGS, LEAVE, json=json)


@cache_app.command("show")
@client_command()
async def show_command(
    client: Client,
    console: Console,
    name: NameArgument,
    queue: QueueOption = None,
    label: LabelOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Show the versions of a cache in full, with the job that has saved each. Exits with 66 if there is none."""
    _check(name, queue, label, key)
    found = [cache async for cache in client.caches(queue, label, name, key)]
    if not found:
        raise OperatorError(f"there is no such cache {name}; `airunner cache list` lists them", exit_code=EXIT_NO_SUCH)
    for number, cache in enumerate(found):
        if json:
            console.out_json(cache)
            continue
        if number:
            console.out_line("")
        for fact, text in _facts(cache):
            console.out_line(f"{fact:<6} {text}")


@cache_app.command("rm")
@client_command("quiet")
async def remove_command(
    client: Client,
    console: Console,
    name: NameArgument,
    queue: QueueOption = None,
    label: LabelOption = None,
    key: KeyOption = None,
) -> None:
    """Remove a cache, or those of its versions that the options choose. Jobs that restore it go on without.

    Exits with 66 if there is none.
    """
    _check(name, queue, label, key)
    count = await client.remove_caches(queue, label, name, key)
    if not count:
        raise OperatorError(f"there is no such cache {name}; `airunner cache list` lists them", exit_code=EXIT_NO_SUCH)
    console.say(f"the cache {name} is removed: {'1 version' if count == 1 else f'{count} versions'}")


def _check(name: str | None, queue: str | None, label: str | None, key: str | None) -> None:
    for what, text in ((repr(name), name), (f"--label {label!r}", label)):
        if text is not None and not fits_cache_name(text):
            raise OperatorError(f"{what}: expected {CACHE_NAME_EXPECTED}")
    if queue is not None and not fits_name(queue):
        raise OperatorError(f"--queue {queue!r}: expected {NAME_EXPECTED}")
    if key is not None and not fits_key(key):
        raise OperatorError(f"--key {key!r}: expected {KEY_EXPECTED}")


def _row(cache: CacheSummary, _now_ms: int) -> Sequence[str]:
    return (
        cache.name,
        cache.key[:KEY_CHARS],
        cache.queue,
        cache.label,
        bytes_text(cache.size_bytes),
        instant_text(cache.saved_ms),
        instant_text(cache.used_ms),
    )


def _facts(cache: CacheSummary) -> Sequence[tuple[str, str]]:
    return (
        ("cache", cache.name),
        ("key", cache.key),
        ("queue", cache.queue),
        ("label", cache.label),
        ("size", bytes_text(cache.size_bytes)),
        ("saved", f"{instant_text(cache.saved_ms)} by job {cache.job_id}"),
        ("used", instant_text(cache.used_ms)),
    )
