"""Submodules: checked out level by level. The file `.gitmodules` comes from the repository and is not trusted.

git itself refuses names with `..` and URLs that are options. In addition the agent's rules are checked for
each absolute URL, and GIT_ALLOW_PROTOCOL limits the schemes of relative URLs. A remote repository has no local
submodule, no path leads through a symbolic link, and depth and number are limited.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Final

from airunner.agent.checkout.git import Git
from airunner.agent.checkout.largefiles import fetch_large_files
from airunner.agent.checkout.repository import Rules, refusal, rules_of_content
from airunner.agent.checkout.revision import Source

LEVELS_MAX: Final = 8  # levels of submodules within submodules
SUBMODULES_MAX: Final = 256  # number of submodules in one checkout, on all levels
FILE_BYTES_MAX: Final = 1_048_576  # size of a .gitmodules file
_RELATIVE: Final = ("./", "../")
_KEY: Final = re.compile(r"submodule\.(.*)\.(path|url|update)", re.DOTALL)


class Submodules:
    """Submodules of one checkout."""

    def __init__(self, git: Git, rules: Rules, source: Source) -> None:
        self._rules = rules_of_content(source.repository, rules)
        self._environment = {**git.environment, "GIT_ALLOW_PROTOCOL": ":".join(self._rules.transports)}
        self._git = git
        self._depth = source.depth
        self._count = 0

    async def check_out(self, folder: Path, level: int = 1) -> None:
        """Check out the submodules of the repository in `folder`, recursively; raises as `Git.must_run`."""
        listed = folder / ".gitmodules"
        if not listed.is_file() and not listed.is_symlink():
            return
        if level > LEVELS_MAX:
            self._git.fail(f"submodules are nested deeper than {LEVELS_MAX}")
        git = self._git.at(folder, self._environment)
        paths = await self._checked(git, folder)
        shallow = [f"--depth={self._depth}"] if self._depth else []
        await git.must_run("submodule", "update", "--init", "--checkout", "--progress", *shallow)
        for path in paths:
            if (folder / path / ".git").exists():
                await fetch_large_files(git.at(folder / path), self._rules)
                await self.check_out(folder / path, level + 1)

    async def _checked(self, git: Git, folder: Path) -> list[str]:
        """Check the entries of `.gitmodules`, and return the paths. Raises `CheckoutFailed`: one is not allowed."""
        if (folder / ".gitmodules").is_symlink() or (folder / ".gitmodules").stat().st_size > FILE_BYTES_MAX:
            git.fail(f".gitmodules is a symbolic link, or larger than {FILE_BYTES_MAX} bytes")
        ended = await git.must_run("config", "--null", "--file", ".gitmodules", "--list")
        paths: list[str] = []
        for entry in filter(None, ended.stdout.decode(errors="replace").split("\0")):
            key, _, value = entry.partition("\n")
            found = _KEY.fullmatch(key)
            if found is None:
                continue
            match found[2]:
                case "path":
                    self._check_path(git, folder, value)
                    paths.append(value)
                case "url" if not value.startswith(_RELATIVE):
                    if why := refusal(Source(repository=value), self._rules):
                        git.fail(f"submodule {found[1]}: {why}")
                case _:
                    pass
        self._count += len(paths)
        if self._count > SUBMODULES_MAX:
            git.fail(f"there are more than {SUBMODULES_MAX} submodules")
        return paths

    def _check_path(self, git: Git, folder: Path, path: str) -> None:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or ".git" in {part.lower() for part in parts}:
            git.fail(f"submodule path {path!r} is not inside the checkout")
        for depth in range(1, len(parts) + 1):
            if folder.joinpath(*parts[:depth]).is_symlink():
                git.fail(f"submodule path {path!r} leads through a symbolic link")
