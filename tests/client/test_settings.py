"""Settings: a flag overrides the environment, that the chosen cluster, that the rest of config.yaml."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from airunner import variables
from airunner.__main__ import run
from airunner.client.configedit import changed
from airunner.client.settings import NAMES, configured
from airunner.protocol.errors import OperatorError

CONFIG = """\
# of this machine
broker: tcp://127.0.0.1:3
connect-timeout: 100ms
cluster: dev
clusters:
  # the large one
  prod:
    broker: [tcp://127.0.0.1:4, tcp://127.0.0.1:5]
    home: prod
  dev:  # no settings of its own
"""


@pytest.fixture(autouse=True)
def config(tmp_path: Path) -> Iterator[Path]:
    """A home with keys and a config.yaml; the commands of a test may change its environment."""
    before = {name: value for name, value in os.environ.items() if not name.startswith("AIRUNNER_")}
    variables.origins.clear()
    variables._taken.clear()
    os.environ["AIRUNNER_HOME"] = str(tmp_path)
    assert run(["certs", "init"]) == 0
    (tmp_path / "config.yaml").write_text(CONFIG)
    yield tmp_path / "config.yaml"
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize(
    ("words", "variables", "tried"),
    [
        ("list", {}, "127.0.0.1:3"),
        ("list --cluster prod", {}, "prod/certs/client.secret is missing"),
        ("--cluster prod list", {"AIRUNNER_BROKER": "tcp://127.0.0.1:6"}, "prod/certs/client.secret is missing"),
        ("list", {"AIRUNNER_BROKER": "tcp://127.0.0.1:6"}, "127.0.0.1:6"),
        ("list --broker tcp://127.0.0.1:7", {"AIRUNNER_BROKER": "tcp://127.0.0.1:6"}, "127.0.0.1:7"),
        ("list", {"AIRUNNER_CLUSTER": "prd"}, "there is no cluster 'prd' in {config}: it has prod, dev; `airunner"),
        ("list", {"AIRUNNER_CONNECT_TIMEOUT": "soon"}, "AIRUNNER_CONNECT_TIMEOUT 'soon': expected"),
        ("list", {"AIRUNNER_QUIET": "perhaps"}, "AIRUNNER_QUIET: expected true or false, not 'perhaps'"),
        ("list", {"AIRUNNER_CONFIG_FILE": "/none"}, "127.0.0.1:7070"),
        ("agent", {"AIRUNNER_TAG": "'a"}, "AIRUNNER_TAG: expected words, as in a shell: No closing quotation"),
    ],
)
def test_each_place_of_a_setting_overrides_those_after_it(
    words: str, variables: dict[str, str], tried: str, config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    os.environ.update({"AIRUNNER_CONNECT_TIMEOUT": "150ms", **variables})
    assert run(shlex.split(words)) in (64, 66, 69, 77)  # 77: somebody has a broker on the port
    assert tried.format(config=config) in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("qeue: x", "line 1: unknown setting 'qeue'; did you mean queue?"),
        ("q: b\n", "line 1: unknown setting 'q'; `airunner config show --all` lists all"),
        ("queue: [[x]]", "line 1: queue: expected text, a number, true or false, or a list of such"),
        ("queue: a\nqueue: b", "line 2: queue is here a second time"),
        ("token: x.y.z", "line 1: token is no setting of this file: a token is secret: write it to a file"),
        ("clusters:\n  a:\n    token: x", "line 3: token is no setting of this file"),
        ("home: /x", "line 1: home is no setting of this file: the folder of this file is the home"),
        ("cluster: a\nclusters: {b: }", "there is no cluster 'a' in {config}, line 1: it has b; `airunner config set"),
        ("clusters: 3", "line 1: expected names and values, such as `queue: ci`"),
        ("[a]: b", "line 1: a name is text, not a list or a mapping"),
        ("a: b: c", "line 1: this is not YAML: mapping values are not allowed"),
        ("\x00", "this is not YAML: unacceptable character"),
        ("é" * 40_000, "is larger than 65536 bytes"),
        ("limit: ten", "line 1: limit: expected a whole number of at least 1, not 'ten'"),
        ("connect-timeout: ten", "line 1: connect-timeout 'ten': expected"),
    ],
)
def test_a_fault_of_the_file_is_named_by_its_line(
    text: str, fault: str, config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config.write_text(text)
    assert run(["list"]) == (66 if "no cluster" in fault else 64)
    err = capfd.readouterr().err
    assert fault.format(config=config) in err
    assert str(config) in err
    config.chmod(0o666)
    assert run(["list"]) == 64
    assert f"{config} is open to others" in capfd.readouterr().err


def test_show_says_where_each_setting_is_from(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    os.environ["AIRUNNER_TOKEN"] = "a.b.c"
    os.environ["AIRUNNER_STORE"] = "postgresql://me:secret@db/jobs"
    capfd.readouterr()
    assert run(["config", "show", "--cluster", "prod", "--json"]) == 0
    rows = {row["name"]: (row["value"], row["source"]) for row in map(json.loads, capfd.readouterr().out.splitlines())}
    assert rows == {
        "home": (str(config.parent / "prod"), f"{config}:9"),
        "cluster": ("prod", "--cluster"),
        "broker": ("tcp://127.0.0.1:4 tcp://127.0.0.1:5", f"{config}:8"),
        "connect-timeout": ("100ms", f"{config}:3"),
        "store": ("postgresql:…db/jobs", "AIRUNNER_STORE"),
        "token": ("(set, not shown)", "AIRUNNER_TOKEN"),
    }
    assert run(["config", "show", "--all"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert f"{config}:4" in next(line for line in lines if line.startswith("cluster "))
    assert any(line.split() == ["visibility-timeout", "300", "default"] for line in lines)
    assert {line.split()[0] for line in lines} >= NAMES - {"token"}


def test_use_is_idempotent_and_says_what_it_did(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "use", "prod"]) == 0
    assert "the cluster is now prod: broker tcp://127.0.0.1:4 tcp://127.0.0.1:5" in capfd.readouterr().err
    assert config.read_text() == CONFIG.replace("cluster: dev", "cluster: prod")
    os.environ["AIRUNNER_CLUSTER"] = "dev"
    assert run(["config", "use", "prod"]) == 0
    err = capfd.readouterr().err
    assert "the cluster is prod: broker" in err
    assert "in this shell AIRUNNER_CLUSTER names dev, which overrides it" in err
    assert run(["config", "list"]) == 0
    assert [line.split()[:2] for line in capfd.readouterr().out.splitlines()] == [
        ["*", "dev"],
        ["prod", "tcp://127.0.0.1:4"],
    ]
    assert run(["config", "use", "nosuch"]) == 66
    config.unlink()
    assert [run(["config", *words.split()]) for words in ("list", "use prod", "set queue ci", "unset queue")] == [
        0,
        66,
        0,
        0,
    ]
    assert config.read_text() == ""


@pytest.mark.parametrize(
    ("text", "name", "value", "after"),
    [
        ("", "queue", "ci", "queue: ci\n"),
        ("", "clusters.a.b.broker", "tcp://h:1", "clusters:\n  a.b:\n    broker: tcp://h:1\n"),
        ("# x\nqueue: a  # y", "queue", "it's", "# x\nqueue: 'it''s'  # y\n"),
        ("queue: [a, b] # y\n", "queue", "null", "queue: 'null' # y\n"),
        ("clusters:\n", "clusters.a.queue", "x", "clusters:\n  a:\n    queue: x\n"),
        ("clusters:\n    a: {}\n", "clusters.a.queue", "x", "clusters:\n    a:\n      queue: x\n"),
        (
            "clusters:\n    a:\n     queue: y\n",
            "clusters.a.owner",
            "x",
            "clusters:\n    a:\n     owner: x\n     queue: y\n",
        ),
        ("queue: a\nowner: b\n", "queue", None, "owner: b\n"),
        ("queue: a\n", "owner", None, "queue: a\n"),
    ],
)
def test_an_edit_leaves_the_rest_as_it_was_typed(text: str, name: str, value: str | None, after: str) -> None:
    assert changed(text, Path("config.yaml"), name, value) == after


@pytest.mark.parametrize(
    ("text", "name", "fault"),
    [
        ("{queue: a, owner: b}", "limit", "laid out in a way that this command does not change: edit limit by hand"),
        ("queue:\n- a\n- b\nowner: c\n", "queue", "edit queue by hand"),
        ("", "clusters.queue", "names no setting of a cluster: write clusters.NAME.SETTING"),
    ],
)
def test_what_cannot_be_edited_is_left_alone(text: str, name: str, fault: str) -> None:
    with pytest.raises(OperatorError, match=fault):
        changed(text, Path("config.yaml"), name, "x")


def test_settings_of_a_file_are_applied_once_or_twice_alike(config: Path) -> None:
    once = configured(os.environ, "prod").environ
    assert once["AIRUNNER_HOME"] == str(config.parent / "prod")
    assert configured(once).environ == once
    assert configured({"AIRUNNER_HOME": str(config.parent), "AIRUNNER_TOKEN": "x"}).environ["AIRUNNER_CLUSTER"] == "dev"
