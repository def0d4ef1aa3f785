"""Large files: replaces the pointers of Git LFS in a checkout by the files, if git-lfs is installed on the agent.

A repository may name the server of its files (`.lfsconfig`). This file is not trusted: git-lfs takes no program from
it, and the agent's rules are checked for its addresses, as for those of submodules. git-lfs gets the credentials of the
repository's host from the same helper as git. The clone keeps its filters, so that the job's git knows the files.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from airunner.agent.checkout.git import Git
from airunner.agent.checkout.peek import read_beginning
from airunner.agent.checkout.repository import Rules, refusal
from airunner.agent.checkout.revision import Source

SKIP: Final = "GIT_LFS_SKIP_SMUDGE"  # git-lfs's own variable, in the agent's environment
PROGRAM: Final = "git-lfs"
SETTINGS: Final = ".lfsconfig"
INDEX_BYTES_MAX: Final = 16_777_216  # size of an index that is searched here, which blocks the agent for some 5 ms
_ATTRIBUTES: Final = ":(glob)**/.gitattributes"
_TRUE: Final = ("1", "t", "true", "yes", "on")


async def fetch_large_files(git: Git, rules: Rules) -> None:
    """Fetch the large files of the checkout in `git.folder`, or report that they are pointers; raises as `must_run`."""
    if not _may_have_attributes(git.folder):
        return
    if not (await git.run("grep", "--quiet", "--cached", "--fixed-strings", "filter=lfs", "--", _ATTRIBUTES)).succeeded:
        return
    if git.environment.get(SKIP, "").lower() in _TRUE:
        git.warn(f"files of Git LFS are left as pointers: the agent's environment has {SKIP}")
        return
    if shutil.which(PROGRAM, path=git.environment["PATH"]) is None:
        git.warn(f"files of Git LFS are left as pointers: {PROGRAM} is not installed on this agent")
        return
    await _check_settings(git, rules)
    git = git.at(git.folder, {**git.environment, "GIT_LFS_FORCE_PROGRESS": "1"})  # silence would end it
    await git.must_run("lfs", "install", "--local", "--skip-repo")
    await git.must_run("lfs", "pull")


def _may_have_attributes(folder: Path) -> bool:
    """Return whether the index may have a .gitattributes file: looking saves most checkouts the start of a process."""
    try:
        index = read_beginning(folder / ".git" / "index", INDEX_BYTES_MAX)
    except OSError:  # in a submodule, .git is a file
        return True
    return len(index) == INDEX_BYTES_MAX or b".gitattributes" in index


async def _check_settings(git: Git, rules: Rules) -> None:
    """Check the addresses that the repository names. Raises `CheckoutFailed`: one is not allowed."""
    file = git.folder / SETTINGS
    if file.is_symlink():
        git.fail(f"{SETTINGS} is a symbolic link")
    if not file.is_file():
        return
    listed = await git.must_run("config", "--null", "--file", SETTINGS, "--list")
    for entry in filter(None, listed.stdout.decode(errors="replace").split("\0")):
        key, _, value = entry.partition("\n")
        if key.endswith("url") and (why := refusal(Source(repository=value), rules)):
            git.fail(f"{SETTINGS}: {key}: {why}")
