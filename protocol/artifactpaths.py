"""Paths of artifacts: which names and links may be kept of a checkout. Pure."""

from __future__ import annotations

from airunner.protocol.events import ARTIFACT_PATH_CHARS_MAX


def path_problem(path: str) -> str | None:
    """Return why a path that leads to a file below the checkout is not kept; None: it is."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if len(path) >= ARTIFACT_PATH_CHARS_MAX:  # a folder's path gets a `/`
        return "its path is too long"
    return None


def name_problem(path: str) -> str | None:
    """Return why a text is no path of an artifact; the path of a folder may end with `/`."""
    names = path.removesuffix("/").split("/")
    if "\0" in path or any(name in ("", ".", "..") for name in names):
        return "it is no path below the checkout"
    return path_problem(path.removesuffix("/"))


def link_problem(path: str, target: str) -> str | None:
    """Return why a symbolic link is not kept; None: it leads to a place below the checkout.

    `..` may stand only at the beginning of its target: these names lead up through folders, never through other links.
    """
    names = [name for name in target.split("/") if name not in ("", ".")]
    up = 0
    while up < len(names) and names[up] == "..":
        up += 1
    if target.startswith("/") or ".." in names[up:] or up > path.count("/"):
        return "it is a link out of the checkout"
    if len(target) > ARTIFACT_PATH_CHARS_MAX:
        return "its target is too long"
    try:
        target.encode()
    except UnicodeEncodeError:
        return "its target is not UTF-8"
    return None
