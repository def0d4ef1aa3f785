"""Remote: finds out what a remote has, from one listing of its references, before any history is transferred.

So a mistyped name or commit costs a listing, and the error shows the nearest names. A full hash that no reference has
may be that of an older commit: then this commit alone is fetched, without its files where the remote can leave them
out. The start of a hash is looked up in the whole history, for a checkout of a few commits in one without files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from msgspec import Struct

from airunner.agent.checkout.git import CheckoutFailed, Git, message_lines
from airunner.agent.checkout.revision import BRANCHES, FULL_HASH_CHARS, TAGS, Kind, Wanted
from airunner.agent.workspace.workspace import remove_workspace
from airunner.protocol.gitaddress import shown_address
from airunner.protocol.printable import is_plain

REFS_BYTES_MAX: Final = 16_777_216  # size of a listing: about 200 000 references; of a longer one the end is known
NEAREST_MAX: Final = 3  # names in an error
COMPARED_MAX: Final = 2_000  # names compared with a mistyped one, which blocks the agent: 5 µs each
_COMMITS_ONLY: Final = ("--filter=tree:0", "--no-tags", "--no-write-fetch-head")
_PEELED: Final = "^{}"  # ends the name of the line that has the commit of an annotated tag
_LACKING: Final = re.compile(r"not our ref|couldn't find remote ref|not found in upstream")


class Listing(Struct, frozen=True):
    """Listing of a remote's references: the hash of each by its full name; `whole`: it was not cut."""

    refs: Mapping[str, str]
    whole: bool

    def named(self, text: str) -> str | None:
        """Return the full name of the branch, or else tag, `text`; None: there is none."""
        return next((full for full in (BRANCHES + text, TAGS + text) if full in self.refs), None)

    def may_have(self, wanted: Wanted) -> bool:
        """Return whether the remote has what is wanted, as far as a listing can tell."""
        match wanted.kind:
            case Kind.NAME:
                return self.named(wanted.text) is not None
            case Kind.REF:
                return wanted.text in self.refs
            case Kind.HASH:
                return wanted.text.lower() in self.refs.values()
            case Kind.HEAD | Kind.HASH_OR_NAME:
                return True

    @property
    def hash_chars(self) -> int:
        """Length of a full hash in this repository."""
        return max(map(len, self.refs.values()), default=FULL_HASH_CHARS[0])


class Remote:
    """Remote of one checkout; `scratch` is a folder for what is fetched only to look something up."""

    def __init__(self, git: Git, scratch: Path) -> None:
        self._git = git
        self._scratch = scratch
        self._listing: Listing | None = None

    async def listing(self) -> Listing:
        """List the references, once. Raises as `Git.must_run`."""
        if self._listing is None:
            ended = await self._git.must_run("ls-remote", "--", self._git.address, keep=REFS_BYTES_MAX)
            lines = [line.partition("\t") for line in ended.stdout.decode(errors="replace").splitlines()]
            self._listing = Listing({name: found for found, _, name in lines}, len(ended.stdout) < REFS_BYTES_MAX)
        return self._listing

    async def require(self, wanted: Wanted) -> None:
        """Raise `CheckoutFailed` if the remote certainly lacks what is wanted; and as `Git.must_run`."""
        if wanted.kind in (Kind.HEAD, Kind.HASH_OR_NAME):
            return
        listing = await self.listing()
        if listing.may_have(wanted) or not listing.whole:
            return
        if wanted.kind is not Kind.HASH:
            raise await self.failure_for_missing(wanted)
        try:
            scratch = await self._new_scratch(len(wanted.text))
            ended = await scratch.run("fetch", "--depth=1", *_COMMITS_ONLY, "--", self._git.address, wanted.text)
        finally:
            remove_workspace(self._scratch)
        if not ended.succeeded and _LACKING.search("\n".join(message_lines(ended.stderr))):
            raise await self.failure_for_missing(wanted)

    async def unabbreviated(self, text: str) -> str:
        """Return the full name of the branch or tag `text`, or the full hash that starts with it.

        Commits that no reference has are looked up only if none of the references is meant: all of them would have to
        be fetched first. Raises `CheckoutFailed`: there is not exactly one; and as `Git.must_run`.
        """
        listing = await self.listing()
        named = listing.named(text)
        commits = {commit for commit in listing.refs.values() if commit.startswith(text.lower())}
        if named is not None:
            if commits - {listing.refs[named], listing.refs.get(named + _PEELED)}:
                self._git.fail(ambiguity_message(text))
            return named
        if len(commits) == 1:
            return commits.pop()
        try:
            scratch = await self._new_scratch(listing.hash_chars)
            every = (f"+{BRANCHES}*:{BRANCHES}*", f"+{TAGS}*:{TAGS}*")
            await scratch.must_run("fetch", "--progress", *_COMMITS_ONLY, "--", self._git.address, *every)
            if commit := await scratch.resolve(text):
                return commit
        finally:
            remove_workspace(self._scratch)
        raise await self.failure_for_missing(Wanted(Kind.HASH_OR_NAME, text))

    async def failure_for_missing(self, wanted: Wanted, failed: CheckoutFailed | None = None) -> CheckoutFailed:
        """Return the failure of a checkout whose remote lacks what is wanted, after git's words in `failed`."""
        refs = [name for name in (await self.listing()).refs if not name.endswith(_PEELED) and is_plain(name)]
        short = [name.removeprefix(kind) for kind in (BRANCHES, TAGS) for name in refs if name.startswith(kind)]
        what = {
            Kind.NAME: f"branch or tag {wanted.text}{_nearest(wanted.text, short)}",
            Kind.REF: f"ref {wanted.text}{_nearest(wanted.text, refs)}",
            Kind.HASH: f"commit {wanted.text}: give the hash of a commit that was pushed there",
            Kind.HASH_OR_NAME: f"branch or tag {wanted.text}, and none contains a commit whose hash starts with it, "
            f"or there are several such commits: give the full hash{_nearest(wanted.text, short)}",
            Kind.HEAD: f"commit to check out: its HEAD names no branch{_nearest('main', short, cutoff=0.0)}",
        }[wanted.kind]
        words = f"{shown_address(self._git.repository)} has no {what}"
        if failed is None:
            return CheckoutFailed(words, missing=True)
        return CheckoutFailed(f"{failed.message}\n{words}", failed.exit_code, missing=True)

    async def _new_scratch(self, hash_chars: int) -> Git:
        """Make the scratch repository, and return a git in it."""
        options = ("--quiet", "--bare", "--template=", f"--object-format={object_format(hash_chars)}")
        await self._git.must_run("init", *options, "--", str(self._scratch))
        return self._git.at(self._scratch)


def object_format(hash_chars: int) -> str:
    """Return git's name of the hash function whose hashes have this length."""
    return "sha1" if hash_chars == FULL_HASH_CHARS[0] else "sha256"


def lacks(failed: CheckoutFailed) -> bool:
    """Return whether git failed because the remote lacks what is wanted."""
    return not failed.missing and _LACKING.search(failed.message) is not None


def ambiguity_message(text: str) -> str:
    """Format the refusal of a `text` that means two commits."""
    return f"{text} is a branch or tag, and also the start of another commit's hash: give the full hash"


def _nearest(text: str, names: Sequence[str], *, cutoff: float = 0.6) -> str:
    """Format the names that are most like `text`, of the first and the last `names`: branches, and the newest tags."""
    half = COMPARED_MAX // 2
    ends = [*names[:half], *names[-half:]]
    found = get_close_matches(text, [*dict.fromkeys(ends)], NEAREST_MAX, cutoff)
    return f"; the nearest names are {', '.join(found)}" if found else ""
