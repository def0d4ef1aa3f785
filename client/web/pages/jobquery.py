"""Query of a list of jobs: the filters in the address of the page, and addresses with other filters. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import urlencode

from msgspec import Struct
from msgspec.structs import replace

from airunner.client.filters import JobFilters
from airunner.client.web.problems import bad_field
from airunner.protocol.job import JobState

PATH: Final = "/jobs"
_TEXTS: Final = ("queue", "name", "owner", "before")
FILTERS: Final = ("state", "queue", "name", "owner", "label")  # each has a control in the page
_KNOWN: Final = ("state", *_TEXTS, "label")
_TWICE: Final = "this is given twice"


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


Problems = Mapping[str, str]
"""What does not fit, by filter."""


def query_of(parameters: Iterable[tuple[str, str]]) -> JobQuery:
    """Parse the parameters of an address; an empty one is not given. Raises `BadRequest`, which names the parameter."""
    query, problems = read_query(parameters)
    for name, problem in problems.items():
        raise bad_field(name, problem)
    return query


def read_query(parameters: Iterable[tuple[str, str]]) -> tuple[JobQuery, Problems]:
    """Parse the parameters as far as they fit, with the problem of each that does not.

    Raises `BadRequest`: a parameter is no filter, or the page has no control for it.
    """
    given: dict[str, list[str]] = {}
    for name, value in parameters:
        if name not in _KNOWN:
            raise bad_field(name, f"a list of jobs has no such filter; it has {', '.join(_KNOWN)}")
        if value:
            given.setdefault(name, []).append(value)
    labels, words = given.get("label", []), [word.upper() for word in given.get("state", ())]
    if len(given.get("before", ())) > 1:
        raise bad_field("before", _TWICE)
    problems = {name: _TWICE for name in _TEXTS if len(given.get(name, ())) > 1}
    if any(word not in list(JobState) for word in words):
        problems["state"] = f"expected {' or '.join(JobState)}"
    if unfit := [label for label in labels if not all(label.partition("=")[:2])]:
        problems["label"] = f"expected NAME=VALUE, not {unfit[0]!r}"
    elif len({_pair(label)[0] for label in labels}) < len(labels):
        problems["label"] = "a job has one value for each name, so no job matches two values of a name"
    states = dict.fromkeys(JobState(word) for word in words if word in list(JobState))
    texts = {name: given[name][0] for name in _TEXTS if name in given}
    return JobQuery(states=tuple(states), labels=tuple(labels), **texts), problems


def _pair(label: str) -> tuple[str, str]:
    name, _, value = label.partition("=")
    return name, value
