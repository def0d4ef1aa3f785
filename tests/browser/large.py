"""Measures pages with large logs: `make web-large` prints what the suite shows with smaller ones.

First a log of 100 MB: when its first screen and its line 1,000,000 are there, the heap and the rows. Then a search of
1 GB, while another client asks for the list of jobs. Then `yes` in a terminal for 10 s, while keys are pressed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Final

from playwright.sync_api import Page

from airunner.sync import Client
from tests.acceptance.running import warm
from tests.browser.driving import Tab, running_chromium, until, watched
from tests.browser.sites import Site, running_site

LINE: Final = "line %9.0f " + "of a large log, with as many bytes as a line of a build has on a day"
LINE_BYTES: Final = len(LINE % 1) + 1
LINKED: Final = 1_000_000
LATER_MS: Final = 300_000  # a page comes later than the job, where it is slower
ROWS: Final = "document.querySelectorAll('#log .line').length"
SHOWN: Final = "text => document.querySelector('#log').textContent.includes(text)"
NOTICED_MS: Final = 16  # the shortest time that Chromium notes
KEYS: Final = """noticed => { window.answered = []
    const times = list => list.getEntries().filter(({ name }) => name === "keydown").map(({ duration }) => duration)
    const observer = new PerformanceObserver(list => answered.push(...times(list)))
    observer.observe({ type: "event", durationThreshold: noticed }) }"""
"""Time from a key to the frame that shows its answer, as the browser measures it in steps of 8 ms. A timer behind the
frame would measure more: browsers delay timers while keys come."""


def written(client: Client, lines: int, name: str) -> str:
    """The id of a job that has written so many lines."""
    job = client.submit(command="seq", args=["-f", LINE, "1", str(lines)], name=name)
    client.wait(job, check=True)
    return job.id


def heap_mb(page: Page) -> float:
    """JavaScript's heap of the page in MB, after garbage was collected."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    metrics = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    return metrics["JSHeapUsedSize"] / 1e6


def say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def measure_log(site: Site, tab: Tab, megabytes: int) -> None:
    """Opening, scrolling and linking of a log of so many MB."""
    lines = max(megabytes * 1_000_000 // LINE_BYTES, LINKED + 1)
    with site.sdk() as client:
        began = monotonic()
        job_id = written(client, lines, "large")
        say(f"a log of {lines * LINE_BYTES / 1e6:.0f} MB, {lines:,} lines, written in {monotonic() - began:.1f} s")
    for what, path, text in (
        ("first screen", f"/jobs/{job_id}", LINE % 1),
        ("the same again", f"/jobs/{job_id}", LINE % 1),
        (f"line {LINKED:,}", f"/jobs/{job_id}#L{LINKED}", LINE % LINKED),
    ):
        tab.page.goto("about:blank")
        began = monotonic()
        until(tab.open(path), SHOWN, text.split(" of ")[0])
        took = monotonic() - began
        say(f"  {what}: {took * 1_000:.0f} ms, heap {heap_mb(tab.page):.0f} MB, {tab.page.evaluate(ROWS)} rows")


@contextmanager
def asking(site: Site, job_id: str) -> Iterator[list[float]]:
    """The milliseconds that another client's requests for a job take, one after the other."""
    took: list[float] = []
    over = Event()

    def ask() -> None:
        with site.sdk() as client:
            while not over.wait(0.02):
                began = monotonic()
                client.get(job_id)
                took.append((monotonic() - began) * 1_000)

    asker = Thread(target=ask)
    asker.start()
    try:
        yield took
    finally:
        over.set()
        asker.join()


def measure_search(site: Site, megabytes: int) -> None:
    """A search for what is not there, and what it costs others."""
    lines = megabytes * 1_000_000 // LINE_BYTES
    with site.sdk() as client:
        job_id = written(client, lines, "searched")
        with asking(site, job_id) as before:
            Event().wait(3)
        for regex in (False, True):
            with asking(site, job_id) as meanwhile:
                began = monotonic()
                hits = sum(1 for _ in client.search(job_id, "nowhere [0-9]" if regex else "nowhere", regex=regex))
                took = monotonic() - began
            rate = lines * LINE_BYTES / 1e6 / took
            kind = "regex" if regex else "plain"
            say(
                f"{kind} search of {megabytes} MB: {took:.2f} s, {rate:.0f} MB/s, {hits} hits; another request takes "
                f"{max(meanwhile):.1f} ms at most ({statistics.median(meanwhile):.1f} ms in the middle); without the "
                f"search {max(before):.1f} ms ({statistics.median(before):.1f} ms)"
            )


def measure_flood(site: Site, tab: Tab) -> None:
    """Keys while `yes` runs in a terminal for 10 s."""
    with site.sdk() as client:
        job = client.submit(command="sh", args=["-c", "timeout 10 yes; echo over"], process_type="pty")
        page = tab.open(f"/jobs/{job.id}")
        page.locator(".xterm-rows").get_by_text("y").first.wait_for()
        page.evaluate(KEYS, NOTICED_MS)
        pressed = 0
        while not client.get(job).state.terminal:
            page.keyboard.press("?")
            page.keyboard.press("Escape")
            pressed += 2
        answered = page.evaluate("answered")
        answered += [NOTICED_MS] * (pressed - len(answered))  # within that
        say(
            f"yes for 10 s: {pressed} keys, answered within {statistics.median(answered):.0f} ms "
            f"in the middle and {max(answered):.0f} ms at most"
        )
        page.locator(".xterm-rows").get_by_text("over").wait_for(timeout=LATER_MS)
        size = sum(len(event.body.data) for event in client.replay(job) if event.kind == "OUTPUT")
        say(f"  its log has {size / 1e6:.1f} MB; the page shows its end")


def main() -> int:
    """Measure; return 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100, help="size of the log that is opened")
    parser.add_argument("--searched", type=int, default=1_000, help="size of the log that is searched, in MB")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, warm(), running_site(Path(folder) / "home") as site:
        with running_chromium() as chromium, watched(chromium, site.url, site.login()) as tab:
            measure_log(site, tab, given.megabytes)
            measure_flood(site, tab)
        measure_search(site, given.searched)
    return 0


if __name__ == "__main__":
    sys.exit(main())
