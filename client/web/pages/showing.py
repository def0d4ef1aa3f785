"""Showing of jobs in pages: times, states, links and names, for the templates. Pure.

Words are those of the command line. A time is shown as people say it, with the instant where the pointer rests, and is
kept current by `live.js`, which knows the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote, urlsplit

from markupsafe import Markup

from airunner.client.cli.columns import ID_CHARS_MIN, state_text
from airunner.client.cli.wording import duration_text, instant_text, millisecond_text
from airunner.protocol.job import JobSummary
from airunner.protocol.printable import is_plain

_STEPS: Final = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))
_LINKED: Final = ("http", "https")


def ago_text(ms: int) -> str:
    """Format how long ago something was, in its largest unit: `12 s ago`, `3 min ago`, `2 h ago`, `4 d ago`."""
    unit, step = next((each for each in _STEPS if ms >= each[1]), _STEPS[-1])
    return f"{max(0, ms) // step} {unit} ago"


def ago(ms: int | None, now_ms: int) -> Markup:
    """Show an instant as the time since then; nothing for None."""
    return _time(ms, "ago", "" if ms is None else ago_text(now_ms - ms))


def since(ms: int | None, now_ms: int) -> Markup:
    """Show how long something lasts that began then, in whole seconds; nothing for None."""
    return _time(ms, "since", "" if ms is None else running_text(now_ms - ms))


def running_text(ms: int) -> str:
    """Format how long something lasts that goes on: as a duration, but in whole seconds."""
    seconds = max(0, ms) // 1_000
    return f"{seconds} s" if seconds < 60 else duration_text(seconds * 1_000)  # noqa: PLR2004 - seconds of a minute


def instant(ms: int | None) -> Markup:
    """Show an instant in UTC."""
    return _time(ms, "", "" if ms is None else instant_text(ms))


def _time(ms: int | None, form: str, words: str) -> Markup:
    if ms is None:
        return Markup()
    live = Markup(' data-form="{}" data-ms="{}"').format(form, ms) if form else Markup()
    exact = millisecond_text(ms)
    return Markup('<time datetime="{}" title="{}"{}>{}</time>').format(exact, exact, live, words)


def job_url(job_id: str) -> str:
    """Return the address of a job's page."""
    return f"/jobs/{quote(job_id, safe='')}"


def artifact_url(job_id: str, path: str) -> str:
    """Return the address of a file that a job has left; nothing if a browser would make another one of it."""
    if any(name in ("", ".", "..") for name in path.split("/")):
        return ""
    return f"/v1/jobs/{quote(job_id, safe='')}/artifacts/{quote(path)}"


def web_link(repository: str) -> str:
    """Return the address of a repository's page, if it has one that a browser may open; otherwise nothing.

    Only http and https lead anywhere from here, and an address with a user, or one that is not seen as it is, does not.
    """
    try:
        parts = urlsplit(repository)
        known = parts.scheme in _LINKED and bool(parts.hostname) and parts.username is None
    except ValueError:
        return ""
    if not known or not is_plain(repository) or not repository.isascii() or " " in repository:
        return ""
    return repository.removesuffix(".git")


def short_id(job_id: str) -> str:
    """Return the first characters of a job's id."""
    return job_id[:ID_CHARS_MIN]


def took(job: JobSummary, now_ms: int) -> Markup:
    """Show how long a job ran, or has run until now; nothing before its start."""
    if job.started_ms is None:
        return Markup()
    if job.finished_ms is None:
        return since(job.started_ms, now_ms) if not job.state.terminal else Markup()
    return Markup("{}").format(duration_text(job.finished_ms - job.started_ms))


def count_text(number: int, noun: str) -> str:
    """Count things: `1 job`, `2,000 jobs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {
        "ago": ago,
        "since": since,
        "instant": instant,
        "job_url": job_url,
        "web_link": web_link,
        "short_id": short_id,
        "state_text": state_text,
        "took": took,
        "count": count_text,
        "duration": duration_text,
    }
)
"""Functions of the templates, by name."""
