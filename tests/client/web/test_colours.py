"""Colours of the pages: in both themes, every text of a log is readable on every ground (WCAG 1.4.3)."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from airunner.client.web.linestyle import CLASSES, MARKS

STATIC = Path(__file__).resolve().parents[3] / "client/web/static"
CONTRAST_MIN = 4.5  # of WCAG 2.2 AA, for text of this size
LOG_CSS = (STATIC / "log.css").read_text(encoding="utf-8")
PAIRS = {
    name: pair
    for name, *pair in re.findall(
        r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", LOG_CSS + (STATIC / "airunner.css").read_text(encoding="utf-8")
    )
}
TEXTS = (*CLASSES, "text", "muted")
GROUNDS = ("page", "surface", "wait-soft", *(f"{name}-ground" for name in CLASSES))
"""Grounds of a line: the log's, that under the pointer, that of a line that was gone to, and those of a terminal."""


def luminance(colour: str) -> float:
    """The relative luminance of #rrggbb, as WCAG defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_contrast_of_black_and_white_and_of_a_known_grey() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize(("theme", "name"), [(0, "light"), (1, "dark")])
def test_every_colour_of_a_log_is_readable_on_every_ground(theme: int, name: str) -> None:
    faint = {
        (text, ground): round(found, 2)
        for text, ground in product(TEXTS, GROUNDS)
        if (found := contrast(PAIRS[text][theme], PAIRS[ground][theme])) < CONTRAST_MIN
    }
    assert faint == {}, name


def test_every_class_of_a_line_has_its_rule() -> None:
    ruled = dict(re.findall(r"\.([\w-]+) \{ (?:color|background): var\(--([\w-]+)\); \}", LOG_CSS))
    for colour in CLASSES:
        expected = (colour, colour, f"{colour}-ground", f"{colour}-ground")
        assert tuple(ruled.get(f"{kind}-{colour}") for kind in ("fg", "on", "bg", "in")) == expected
    assert (ruled["in-page"], ruled["on-ink"]) == ("page", "ink")
    assert all(f".{mark} {{" in LOG_CSS for mark in (*MARKS.values(), "said-error", "said-warning"))
