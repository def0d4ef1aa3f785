"""Query of a list of jobs: the filters in the address of the page, and addresses with other filters. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import urlencode

from msgspec import Struct
from msgspec.structs import replace

from airunner.client.filters import JobFilters
from airunner.client.web.problems import bad_field
from airunner.protocol.job import JobState

PATH: Final = "/jobs"
_TEXTS: Final = ("queue", "name", "owner", "before")
_KNOWN: Final = ("state", *_TEXTS, "label")


class JobQuery(Struct, frozen=True):
    """Query of a list: each filter, and the job `before` which the page begins; empty: not given."""

    states: tuple[JobState, ...] = ()
    queue: str = ""
    name: str = ""
    owner: str = ""
    labels: tuple[str, ...] = ()  # NAME=VALUE
    before: str = ""

    @property
    def filters(self) -> JobFilters:
        """The filters, for the SDK."""
        return {
            "state": self.states or None,
            "queue": self.queue or None,
            "name": self.name or None,
            "owner": self.owner or None,
            "metadata": dict(_pair(label) for label in self.labels),
            "details": True,
        }

    @property
    def filtered(self) -> bool:
        """Whether any filter is given."""
        return replace(self, before="") != JobQuery()

    def path(self, before: str = "") -> str:
        """Return the address of the list that begins after another job, or with the newest."""
        query = urlencode(tuple(replace(self, before=before).parameters()))
        return f"{PATH}?{query}" if query else PATH

    def parameters(self) -> Iterator[tuple[str, str]]:
        """Yield the parameters of the address."""
        yield from (("state", str(state)) for state in self.states)
        yield from ((name, getattr(self, name)) for name in ("queue", "name", "owner") if getattr(self, name))
        yield from (("label", label) for label in self.labels)
        if self.before:
            yield "before", self.before

    @property
    def live_path(self) -> str:
        """The address of the live stream of this list."""
        return f"{PATH}/live?{urlencode(tuple(self.parameters()))}"


def query_of(parameters: Iterable[tuple[str, str]]) -> JobQuery:
    """Parse the parameters of an address; an empty one is not given. Raises `BadRequest`, which names the parameter."""
    given: dict[str, list[str]] = {}
    for name, value in parameters:
        if name not in _KNOWN:
            raise bad_field(name, f"a list of jobs has no such filter; it has {', '.join(_KNOWN)}")
        if value:
            given.setdefault(name, []).append(value)
    if repeated := [name for name in _TEXTS if len(given.get(name, ())) > 1]:
        raise bad_field(repeated[0], "this is given twice")
    labels = given.get("label", [])
    if len({_pair(label)[0] for label in labels}) < len(labels):
        raise bad_field("label", "a job has one value for each name, so no job matches two values of a name")
    texts = {name: given[name][0] for name in _TEXTS if name in given}
    return JobQuery(states=_states(given.get("state", ())), labels=tuple(labels), **texts)


def _states(words: Sequence[str]) -> tuple[JobState, ...]:
    try:
        return tuple(dict.fromkeys(JobState(word.upper()) for word in words))
    except ValueError as error:
        raise bad_field("state", f"expected {' or '.join(JobState)}") from error


def _pair(label: str) -> tuple[str, str]:
    """Split NAME=VALUE. Raises `BadRequest`."""
    name, equals, value = label.partition("=")
    if not name or not equals:
        raise bad_field("label", f"expected NAME=VALUE, not {label!r}")
    return name, value
