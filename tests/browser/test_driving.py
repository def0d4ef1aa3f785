"""What shows that a page is quiet, each detector seen to speak on a page that is not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Final

import pytest
from playwright.sync_api import Browser

from tests.browser.driving import AXE, watched

POLICY: Final = "default-src 'self'; report-uri /csp-report"
FAULTS: Final = {
    "<script>pwned = 1</script>": "script-src-elem inline",
    "<img alt=x src=https://a.invalid/pwned/1>": "img-src https://a.invalid/pwned/1",
    "<p onclick=x>x": "script-src-attr inline",
    "<p style=color:red>x": "style-src-attr inline",
    "<script src=/fails.js></script>": "thrown",
    "<script src=/asks.js></script>": "dialog: asked",
}


class Pages(BaseHTTPRequestHandler):
    """The site of one page for each fault, by its number."""

    def do_GET(self) -> None:
        name = self.path.strip("/")
        body = {"fails.js": "throw Error('thrown')", "asks.js": "alert('asked')", "favicon.ico": ""}.get(name)
        shown = body if body is not None else f"<!doctype html>{[*FAULTS][int(name)]}<p>end"
        self.send_response(200)
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Content-Type", "text/html" if body is None else "text/javascript")
        self.end_headers()
        self.wfile.write(shown.encode())

    def do_POST(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_page_that_is_not_quiet_is_heard(chromium: Browser, origin: str) -> None:
    with watched(chromium, origin) as tab:
        for number in range(len(FAULTS)):
            tab.open(f"/{number}").get_by_text("end").wait_for()
        assert any("<p>end" in line for line in tab.accessibility()), "it is outside of any landmark"
        heard = tab.loud
        assert [fault for fault in FAULTS.values() if not any(fault in line for line in heard)] == []
        for heard_so_far in (tab.requests, tab.violations, tab.messages, tab.dialogs):
            heard_so_far.clear()


def test_axe_core_is_the_one_that_npm_has() -> None:
    for line in AXE.with_name("SHA256SUMS").read_text(encoding="ascii").splitlines():
        expected, name = line.split()
        assert hashlib.sha256(AXE.with_name(name).read_bytes()).hexdigest() == expected
