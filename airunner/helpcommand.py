"""Command `airunner help`: topics, and pages of `man`; the help of a command is that of its `--help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from airunner.protocol.errors import EXIT_IO, OperatorError

MANUAL: Final = "--man"
FOLDER: Final = "--man-pages"


def answer(words: Sequence[str]) -> bool:
    """Print what `airunner help WORDS` asks for; return False for a command, whose own help shows it."""
    from airunner.commandtable import TABLE

    match list(words):
        case ["--man", *name]:
            sys.stdout.write(_page(" ".join(name)))
        case ["--man-pages", folder]:
            write_pages(Path(folder))
        case [name, *_] if name in TABLE:
            return False
        case [topic]:
            sys.stdout.write(_topic(topic))
        case _:
            raise OperatorError(
                "expected `airunner help COMMAND`, `airunner help TOPIC`, `airunner help --man [COMMAND]` or "
                f"`airunner help --man-pages FOLDER`, not {' '.join(words)!r}"
            )
    return True


def write_pages(folder: Path) -> None:
    """Write all pages of the manual into a folder, such as ~/.local/share/man/man1. Raises `OperatorError`."""
    from airunner import __version__
    from airunner.reference import descriptions, manual, pages

    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = descriptions()
        for name in pages():
            (folder / f"{'-'.join(('airunner', *name.split()))}.1").write_text(manual(name, __version__, found))
    except OSError as error:
        raise OperatorError(f"--man-pages {folder}: {error.strerror}", exit_code=EXIT_IO) from error
    sys.stderr.write(f"airunner: the pages are in {folder}\n")


def _page(name: str) -> str:
    from airunner import __version__
    from airunner.protocol.names import nearest
    from airunner.reference import descriptions, manual, pages

    known = list(pages())
    if name not in known:
        near = nearest(name, known)
        meant = f"did you mean `airunner help --man {near}`?" if near else "`airunner --help` lists the commands"
        raise OperatorError(f"there is no command airunner {name}; {meant}")
    return manual(name, __version__, descriptions())


def _topic(topic: str) -> str:
    from airunner.commandtable import width_shown
    from airunner.topics import TOPICS, names, topic_text

    if topic not in TOPICS:
        from airunner.usage import meant

        near = meant(topic, list(names()))
        instead = f"did you mean `airunner help {near}`?" if near else f"the topics are {', '.join(sorted(TOPICS))}"
        raise OperatorError(f"there is no command and no topic {topic}; {instead}")
    return topic_text(topic, width_shown())
