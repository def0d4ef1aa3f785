"""What a person reads and copies from a page: the text of a job as it is."""

from __future__ import annotations

from tests.browser.driving import Tab
from tests.browser.sites import Site

BLANKS = "a   b    c"


def test_several_blanks_of_a_job_are_read_and_copied_as_they_are(tab: Tab, site: Site) -> None:
    with site.sdk() as client:
        job_id = client.submit(
            command="echo", args=[BLANKS], name=BLANKS, queue="blanks", owner=BLANKS, metadata={"note": BLANKS}
        ).id
    page = tab.open(f"/jobs/{job_id}")
    assert page.locator("h1").inner_text() == BLANKS
    assert page.locator("#summary .facts code").first.inner_text() == f"echo '{BLANKS}'"
    assert page.locator("#summary .label").inner_text() == f"note {BLANKS}"
    row = tab.open("/jobs?queue=blanks").locator("tr.job")
    assert row.locator(".title").inner_text() == f"{BLANKS} echo '{BLANKS}'"
    assert row.locator(".owner").inner_text() == BLANKS
