"""Links of the site that leave docs/: what they lead to becomes a part of the site, so that mkdocs checks all links.

mkdocs calls `on_files` and `on_page_markdown` (https://www.mkdocs.org/dev-guide/plugins/#events). A link to a folder is
left out, and its text stays.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, normpath, relpath
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[1]
LINK: Final = re.compile(r"\[([^\]]*)\]\(([^):#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add each file of the repository to which a page leads, under its path in the repository."""
    pages = list(files.documentation_pages())
    while pages:
        page = pages.pop()
        for _, link, _ in LINK.findall(page.content_string):
            path = _in_repository(page, link)
            if (ROOT / path).is_file() and not path.startswith("docs/") and not files.get_file_from_path(path):
                added = File.generated(config, path, abs_src_path=str(ROOT / path))
                files.append(added)
                pages += [added] if added.is_documentation_page() else []
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs's
    """Point each link from where its page is in the repository to where that file is in the site."""

    def pointed(link: re.Match[str]) -> str:
        path = _in_repository(page.file, link[2])
        if (ROOT / path).is_dir():
            return link[1]
        place = relpath(path.removeprefix("docs/"), dirname(page.file.src_uri) or ".")
        return f"[{link[1]}]({place}{link[3] or ''})"

    return LINK.sub(pointed, markdown)


def _in_repository(page: File, link: str) -> str:
    """Return the path in the repository of what a page's link leads to."""
    here = page.src_uri if page.generated_by else f"docs/{page.src_uri}"
    return normpath(f"{dirname(here)}/{link}").lstrip("/")
