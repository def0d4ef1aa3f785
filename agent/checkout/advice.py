"""Advice on git's errors: what to do about those that git's own words do not explain to a job's author. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_ADVICE: Final[Mapping[str, str]] = {
    r"fsck error in packed object": (
        "git refused an object that is malformed and may harm its reader; `airunner agent --fsck` sets what is refused"
    ),
    r"dubious ownership": (
        "the repository belongs to another user than the agent: the agent's operator can allow it "
        "with `airunner agent --safe-directory PATH`"
    ),
    r"lazy fetching disabled|from promisor remote": (
        "the repository is a partial clone, which lacks objects: submit the repository that it was cloned from, "
        "or fetch them with `git fetch --refetch --no-filter`"
    ),
}


def advice_on(words: str) -> str | None:
    """Return what to do about an error of which git's messages are `words`; None: they say it themselves."""
    return next((advice for pattern, advice in _ADVICE.items() if re.search(pattern, words)), None)
