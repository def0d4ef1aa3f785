"""A job in a terminal, on its page: cell by cell what pyte shows, and nothing lost of a flood."""

from __future__ import annotations

from itertools import compress
from pathlib import Path
from random import Random
from typing import Any, Final

from playwright.sync_api import Page, expect

from airunner.client.cli.emulator import Emulator
from airunner.client.cli.styled import COLOURS, Run, Style, runs_of
from airunner.protocol.fields import TerminalSize
from tests.browser.driving import Tab, until
from tests.browser.sites import Fed, Site

SIZE: Final = TerminalSize(cols=100, rows=30)
SEED: Final = 2  # of a drawing without what pyte shows unlike any terminal, such as half a wide character at the edge
PIECES: Final = 2_000
TEXTS: Final = ("build", "test 42 %", "日本", "é", "│▒▓", "\t", "\x1b[0m" + "x" * 120, "\x1b[0m\r\n", "\b\b", "\r")
LEVELS: Final = (0, 95, 135, 175, 215, 255)  # of the colour cube of xterm
CELLS: Final = """element => {
    const { active } = element.terminal.buffer, cols = element.terminal.cols, rows = element.terminal.rows
    const colour = (cell, of) => cell[`is${of}Default`]() ? "" : cell[`is${of}RGB`]()
        ? "#" + cell[`get${of}Color`]().toString(16).padStart(6, "0") : cell[`get${of}Color`]()
    const marks = cell => [cell.isBold(), cell.isItalic(), cell.isInverse(), cell.isStrikethrough(), cell.isUnderline()]
    return [...Array(rows).keys()].map(y => [...Array(cols).keys()]
        .map(x => active.getLine(active.baseY + y).getCell(x)).map(cell => [
            cell.getChars(), cell.getWidth(), colour(cell, "Fg"), colour(cell, "Bg"), marks(cell).map(Boolean)]))
}"""

HAS: Final = """text => { const buffer = document.querySelector(".terminal").terminal?.buffer.active
    return buffer && [...Array(buffer.length).keys()].some(y => buffer.getLine(y).translateToString(true) === text) }"""

WINDOW_BYTES: Final = 131_072  # as in terminal.js
COUNTING: Final = """element => { const { terminal } = element, write = terminal.write.bind(terminal)
    let handed = 0
    window.most = 0
    terminal.write = (content, ...done) => {
        window.most = Math.max(window.most, handed += content.length)
        write(content, ...done)
    }
    const frame = () => { handed = 0; requestAnimationFrame(frame) }
    frame() }"""
NUMBERS: Final = """element => { const buffer = element.terminal.buffer.active
    return [...Array(buffer.length).keys()].map(y => buffer.getLine(y).translateToString(true))
        .filter(text => text).map(text => text.replace("line ", "")) }"""


def drawn(seed: int) -> bytes:
    """What a colourful program writes: every kind of style, movements, erasures, wide characters and scrolling."""
    random = Random(seed)
    pieces = ["\x1b[2J\x1b[H"]
    for _ in range(PIECES):
        line, column, few = random.randint(1, SIZE.rows), random.randint(1, SIZE.cols), random.randint(1, 5)
        colour, (red, green, blue) = random.randrange(16, 256), random.choices(range(256), k=3)
        sgr = random.choice(
            (
                f"{random.choice((3, 4, 9, 10))}{random.randrange(8)}",
                f"38;5;{colour}",
                f"48;5;{colour}",
                f"38;2;{red};{green};{blue}",
                f"48;2;{red};{green};{blue}",
                random.choice(("1", "3", "4", "7", "9", "22", "23", "24", "27", "29", "39", "49", "0")),
            )
        )
        moves = f"{line};{column}H", f"{few}A", f"{few}B", f"{few}C", f"{few}D", f"{column}G", f"{line}d"
        erasures = "K", "1K", "J", f"{few}P", f"{few}X", f"{few}@", f"{few}L", f"{few}M"
        erased = f"0m\x1b[{line};{column}H\x1b[{random.choice(erasures)}"  # a terminal erases in colour, pyte does not
        after = random.choice((random.choice(moves), erased)) if random.random() < 0.3 else "24m"
        pieces.append(f"\x1b[{sgr}m{random.choice(TEXTS)}\x1b[{after}")
    return "".join([*pieces, f"\x1b[0m\x1b[{SIZE.rows};1H\r\n\r\nthe end"]).encode()


def shown_by_pyte(output: bytes) -> list[Any]:
    """Runs of the rows that pyte shows."""
    emulator = Emulator(SIZE.cols, SIZE.rows, 1)
    list(emulator.feed(output, 0))
    return [row.runs for row in emulator.rows()]


def shown_by_the_page(page: Page) -> list[Any]:
    """The same of the terminal on the page."""
    rows = [runs_of([run(*cell) for cell in row]) for row in page.get_by_label("Terminal of the job").evaluate(CELLS)]
    while rows and not rows[-1]:
        rows.pop()
    return rows


def run(chars: str, width: int, fg: str | int, bg: str | int, marks: list[bool]) -> Run:
    """A cell of xterm.js as the emulator has it; behind a wide character is an empty one."""
    return chars or " " * width, Style(colour(fg), colour(bg), "".join(compress("birsu", marks)))


def colour(number: str | int) -> str:
    """A colour of the palette by its name, or in red, green and blue as pyte has it."""
    if isinstance(number, str):
        return number
    if number < 16:
        return ("bright" if number > 7 else "") + COLOURS[number % 8]
    if number > 231:
        return "#" + f"{8 + (number - 232) * 10:02x}" * 3
    red, green, blue = (LEVELS[(number - 16) // power % 6] for power in (36, 6, 1))
    return f"#{red:02x}{green:02x}{blue:02x}"


def test_the_screen_of_a_page_is_the_one_that_pyte_shows(tab: Tab, site: Site, tmp_path: Path) -> None:
    drawing = tmp_path / "drawing"
    drawing.write_bytes(drawn(SEED))
    with site.sdk() as client:
        job = client.submit(command="cat", args=[str(drawing)], process_type="pty", terminal=SIZE)
        page = tab.open(f"/jobs/{job.id}")
        client.wait(job, check=True)
        output = b"".join(event.body.data for event in client.replay(job) if event.kind == "OUTPUT")
    until(page, HAS, "the end")
    assert shown_by_the_page(page) == shown_by_pyte(output)


def test_a_flood_is_shown_to_its_end_and_all_of_it_is_kept(tab: Tab, site: Site) -> None:
    script = "yes | head -c 6000000; echo; echo over"
    with site.sdk() as client:
        job = client.submit(command="sh", args=["-c", script], process_type="pty", terminal=SIZE)
        page = tab.open(f"/jobs/{job.id}")
        until(page, HAS, "y")
        page.keyboard.press("?")  # it is answered while the terminal draws
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        until(page, HAS, "over")
        client.wait(job, check=True)
        output = b"".join(event.body.data for event in client.replay(job) if event.kind == "OUTPUT")
    assert output == b"y\r\n" * 3_000_000 + b"\r\nover\r\n"


def test_a_terminal_reads_on_where_it_was_left_and_no_faster_than_the_browser_draws(
    tab: Tab, site: Site, fed: Fed
) -> None:
    with site.sdk() as client:
        job = client.submit(**fed.job, process_type="pty", terminal=SIZE)
        page = tab.open(f"/jobs/{job.id}")
        terminal, button = page.get_by_label("Terminal of the job"), page.get_by_role("button", name="Terminal")
        with fed:
            fed.lines(500)
            until(page, HAS, "line 500")
            terminal.evaluate(COUNTING)
            for last in (5_000, 300_000):  # all of them are in the scrollback, and then many more than that
                button.click()
                fed.lines(last)
                expect(page.locator(".log-rows .line").last).to_contain_text(f"line {last}")
                button.click()
                until(page, HAS, f"line {last}")
                numbers = terminal.evaluate(NUMBERS)
                assert len(numbers) >= min(last, 10_000)
                assert numbers == [str(number) for number in range(last - len(numbers) + 1, last + 1)]
    assert 0 < page.evaluate("most") <= WINDOW_BYTES
