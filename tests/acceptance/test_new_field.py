"""A job's field is written once: an entry in `protocol/fields.py` makes its option, key, keyword, line and rows."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.running import REPOSITORY, environment, running_broker

ENTRY = '    fruit_basket: Annotated[Text, Field("Fruit to pack.", unset="no fruit")] = ""\n\n    def __post_init__'
FOLDERS = ("airunner", "agent", "bench", "broker", "certs", "client", "docs", "protocol", "scripts", "transport")
DRIVER = """
import runpy

import anyio

from airunner import Client
from airunner.__main__ import run

runpy.run_path("scripts/docs.py")["main"]()
run(["submit", "--help"])
run(["submit", "--no-monitor", "--fruit-basket", "pears", "--", "true"])
run(["submit", "--no-monitor", "--config", "job.yaml"])

async def submit():
    async with Client() as client:
        await client.submit(command="true", fruit_basket="figs")
        return (await client.list_page()).jobs

for job in anyio.run(submit):
    run(["show", job.id])
"""


@pytest.mark.usefixtures("unforked")
def test_a_new_field_is_one_entry_in_the_table(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in FOLDERS:
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, symlinks=True)
    table = tmp_path / "protocol" / "fields.py"
    text = table.read_text()
    assert text.count("\n    def __post_init__") == 1
    table.write_text(text.replace("\n    def __post_init__", ENTRY))
    (tmp_path / "job.yaml").write_text("command: 'true'\nfruitBasket: plums\n")
    monkeypatch.chdir(tmp_path)  # `python -m airunner` is the copy from here on
    with running_broker(home) as broker:
        done = subprocess.run(
            [sys.executable, "-c", DRIVER],
            env=environment(
                home, {"AIRUNNER_BROKER": broker.requests, "PYTHONPATH": f"{tmp_path}:{tmp_path / 'scripts'}"}
            ),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "--fruit-basket TEXT" in done.stdout
    for fruit in ("pears", "plums", "figs"):
        assert f"fruit basket: {fruit}\n" in done.stdout
    for page, row in (
        ("docs/reference/job-file.md", "| `fruitBasket` | `--fruit-basket` | text | no fruit | Fruit to pack. |"),
        ("docs/PROTOCOL.md", '| `fruit_basket` | text | `""` | Fruit to pack. |'),
        ("protocol/jobfields.py", "    fruit_basket: str\n"),  # in JobFields, for type checkers
    ):
        assert row in (tmp_path / page).read_text()
