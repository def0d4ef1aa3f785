"""Chromium without a window, driven by Playwright, and all that a page did in it: requests, messages, violations.

```python
with watched(chromium, site.url, cookies) as tab:   # a context of its own: its cookies and storage end with it
    tab.page.goto(site.url + "/jobs")
    tab.page.get_by_role("link", name="build").click()
# at its end the tab has to have been quiet: `Tab.loud` is empty
```

Nothing here waits for a length of time: Playwright waits until a page shows something, and fails after `SHOWN_MS`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

SHOWN_MS: Final = 30_000  # until a page shows what it is expected to; a machine under load takes its time
SIZE: Final = {"width": 1_280, "height": 800}
CHROMIUM: Final = shutil.which("chromium") or shutil.which("google-chrome")
AXE: Final = Path(__file__).parent / "vendor" / "axe.min.js"
RULES: Final = (
    "wcag2a",
    "wcag2aa",
    "wcag21a",
    "wcag21aa",
    "wcag22aa",
    "best-practice",
)  # of axe-core: all but the AAA ones
INLINE: Final = ('<a class="n"', '<button class="fold"')
"""Targets that are as high as the lines of a log beside which they stand: WCAG 2.5.8 excepts those."""
VIOLATED: Final = """addEventListener("securitypolicyviolation", event => airunnerViolated(
    `${event.effectiveDirective} ${event.blockedURI} ${event.sample}`), true)"""


class Tab:
    """A browser's context with one page, and what happened in it."""

    def __init__(self, context: BrowserContext, origin: str) -> None:
        self.context = context
        self.origin = origin
        self.requests: list[str] = []
        self.violations: list[str] = []
        self.messages: list[str] = []  # of the console, errors and warnings alone, and of errors that nothing caught
        self.dialogs: list[str] = []
        self.expected: list[str] = []  # parts of messages that the test itself brings about
        context.set_default_timeout(SHOWN_MS)
        context.expose_binding("airunnerViolated", lambda _, violated: self.violations.append(violated))
        context.add_init_script(VIOLATED)
        context.on("request", self._requested)
        context.on("console", self._said)
        context.on("weberror", lambda error: self.messages.append(str(error.error)))
        context.on("dialog", self._asked)
        self.page = context.new_page()

    def open(self, path: str) -> Page:
        """Go to a path of the site."""
        self.page.goto(self.origin + path)
        return self.page

    @property
    def loud(self) -> list[str]:
        """What no page of ours does: requests to elsewhere, violations of the policy, errors and dialogs."""
        elsewhere = [url for url in self.requests if not url.startswith((f"{self.origin}/", "data:,", "blob:"))]
        reported = [url for url in self.requests if url.endswith("/csp-report")]
        messages = [said for said in self.messages if not any(part in said for part in self.expected)]
        return [*elsewhere, *reported, *self.violations, *messages, *self.dialogs]

    def accessibility(self) -> list[str]:
        """The violations that axe-core finds on the page as it is now, a line for each element."""
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("rules => axe.run({runOnly: rules})", list(RULES))
        assert found["passes"], "axe-core has looked at nothing"
        return [
            f"{violation['id']}: {node['html']} ({violation['help']}; {' '.join(map(str, node['target']))})"
            for violation in found["violations"]
            for node in violation["nodes"]
            if not (violation["id"] == "target-size" and node["html"].startswith(INLINE))
        ]

    def _requested(self, request: Request) -> None:
        self.requests.append(request.url)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.messages.append(f"{message.type}: {message.text}")

    def _asked(self, dialog: Any) -> None:
        self.dialogs.append(f"dialog: {dialog.message}")
        dialog.dismiss()


def until(page: Page, condition: str, argument: object = None) -> Any:
    """Wait until a function of JavaScript returns what is true, and return that.

    Playwright's own way needs `eval`, which pages refuse.
    """
    return page.evaluate(
        f"""argument => new Promise(done => {{
            const look = () => {{
                const found = ({condition})(argument)
                return found ? done(found) : requestAnimationFrame(look)
            }}
            look()
        }})""",
        argument,
    )


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """The browser of this machine; as root it has no sandbox of its own."""
    assert CHROMIUM, "Chromium is not installed: Debian's package is chromium"
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def watched(browser: Browser, origin: str, cookies: Sequence[Any] = (), **options: Any) -> Iterator[Tab]:
    """A tab with these cookies; the options are those of a context. It fails where it was not quiet."""
    context = browser.new_context(**{"viewport": SIZE, **options})
    try:
        context.add_cookies(list(cookies))
        tab = Tab(context, origin)
        yield tab
        assert not tab.loud, "\n".join(tab.loud)
    finally:
        context.close()
