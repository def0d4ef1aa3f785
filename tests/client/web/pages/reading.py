"""Reading of pages: as a browser parses them, and strictly, so that a page with a mistake in its HTML is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

import html5lib
import httpx

XHTML = "{http://www.w3.org/1999/xhtml}"


class Page:
    """Page of an answer."""

    def __init__(self, answer: httpx.Response, status: int = 200) -> None:
        assert answer.status_code == status, f"{answer.status_code} {answer.text[:400]}"
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        self.source = answer.text
        parser = html5lib.HTMLParser(strict=True)
        whole = answer.text.startswith("<!doctype html>")  # otherwise a part of a page
        self.root: Element = parser.parse(answer.text) if whole else parser.parseFragment(answer.text)

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Elements by tag and attributes; `class_` is one of the classes."""
        return [
            element
            for element in self.root.iter(f"{XHTML}{tag}")
            if all(
                value in element.get("class", "").split() if name == "class_" else element.get(name) == value
                for name, value in attributes.items()
            )
        ]

    def one(self, tag: str, **attributes: str) -> Element:
        found = self.all(tag, **attributes)
        assert len(found) == 1, f"{len(found)} elements <{tag}> {attributes}"
        return found[0]

    def text(self, tag: str = "main", **attributes: str) -> str:
        return text_of(self.one(tag, **attributes))

    def rows(self) -> list[str]:
        """Names of the jobs in a list, from above."""
        return [text_of(cell).split("\n")[0] for cell in self.all("td", class_="title")]

    @property
    def elements(self) -> Counter[tuple[str, tuple[str, ...]]]:
        """How many elements there are of each tag with its attributes' names: what no text of a job may change."""
        return Counter((str(element.tag), tuple(sorted(element.keys()))) for element in self.root.iter())


def differences(one: Page, other: Page) -> Counter[tuple[str, tuple[str, ...]]]:
    """The elements that only one of two pages has."""
    return (one.elements - other.elements) + (other.elements - one.elements)


def text_of(element: Element) -> str:
    """The text of an element as a person reads it."""
    return " ".join("".join(element.itertext()).split())


async def events_of(answer: httpx.Response) -> Iterator[Any]:
    """Events of a stream: their kind and data."""
    kind = ""
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, value
