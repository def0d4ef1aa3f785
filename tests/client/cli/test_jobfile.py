"""Job files: what is read, and what is told about what is not."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from airunner.client.cli.jobfile import FILE_BYTES_MAX, KEYS, parse_job_file, read_job_file
from airunner.client.cli.sources import Sources
from airunner.protocol.errors import OperatorError
from airunner.protocol.fields import TerminalSize
from airunner.protocol.jobretry import RetryOn, RetryPolicy

WHOLE = b"""
command: make
args: [test, -j, 4]
processType: PTY
timeout: 600
workingDirectory: src
environment: {LEVEL: 3, RATIO: 0.5, NAME: x}
metadata: {ticket: A-1}
repository: https://example.org/x.git
commit: abc
ref: refs/heads/main
branch: main
name: lint
owner: ann
queue: fast
priority: -3
notBefore: 2027-01-31T03:00:00Z
expires: 2h
maxAttempts: 5
retry: {limit: 2, on: [75, SIGKILL], backoff: 0.5}
cancelSignal: SIGUSR1
secrets: [NPM_TOKEN]
secretFiles: [DEPLOY_KEY]
noRedact: [CACHE_TOKEN]
terminal: {cols: 120}
depth: 1
submodules: true
dissociate: true
mergeOutput: true
artifacts: [dist, "**/*.xml"]
artifactRequired: true
keep: [out, ~/.state]
keepEvery: 10m
cache: [go, {name: deps, paths: [~/deps], key: [deps.txt], label: release, restore: false, save: always}]
returns: true
after: [5f0f3a4e-0000-4000-8000-000000000000:any]
require: {os: linux}
"""


def test_every_key_is_read() -> None:
    fields = parse_job_file(WHOLE, "job.yaml", 0, Sources())
    assert set(fields) == {field.name for field in KEYS.values()}
    assert fields["args"] == ("test", "-j", "4")
    assert (fields["process_type"], fields["cancel_signal"]) == ("pty", "USR1")
    assert fields["timeout_seconds"] == 600
    assert fields["not_before_ms"] == 1_801_364_400_000
    assert fields["retry"] == RetryPolicy(limit=2, backoff_ms=500, on=RetryOn(exit_codes=(75,), signals=(9,)))
    assert (fields["secrets"], fields["secret_files"]) == (("NPM_TOKEN",), ("DEPLOY_KEY",))
    assert (fields["depth"], fields["submodules"]) == (1, True)
    assert (fields["terminal"], fields["require"]) == (TerminalSize(cols=120, rows=24), {"os": "linux"})
    assert fields["environment"] == {"LEVEL": "3", "RATIO": "0.5", "NAME": "x"}
    assert msgspec.msgpack.encode(fields)  # nothing in it is of the reader's own types


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        ("retry: 0", {}),
        ("retry: 3", {"retry": RetryPolicy(limit=3)}),
        ("notBefore: +10m", {"not_before_ms": 601_000}),
        ('{"command": "true", "args": ["a"]}', {"command": "true", "args": ("a",)}),
        ("environment: {A: , B: ''}\nargs: ['']", {"environment": {"A": "", "B": ""}, "args": ("",)}),
        ("terminal: {cols: 0, rows: 0}", {"terminal": TerminalSize()}),
        ("priority: 010\ndepth: 08", {"priority": 10, "depth": 8}),
        ("retry: {on: [timeout], limit: 2}", {"retry": RetryPolicy(limit=2, on=RetryOn(reasons=("timeout",)))}),
        *((f"{key}: 0", {}) for key in ("timeout", "depth", "maxAttempts")),
        *((f"processType: {word}", {"process_type": "pty"}) for word in ("PTY", "Pty", "pty")),
        *((f"timeout: {text}", {"timeout_seconds": 90}) for text in ("90", "'90'", "1m30s", "090")),
        ("timeout: 1h30m", {"timeout_seconds": 5_400}),
    ],
)
def test_a_value_is_read_as_it_is_meant(content: str, fields: dict[str, object]) -> None:
    assert parse_job_file(content.encode(), "job.yaml", 1_000, Sources()) == fields


# As JSON permits them, and the YAML parser does not.
JSON = r"""{
	"command": "\ud83d\ude80\/\u00e9", "args": ["a\tb", 3.10, 1E2, -0, true, ""],
	"environment": {"V": 3.10, "N": 12345678901234567890, "on": false}, "timeout": 90, "submodules": true,
	"branch": null
}"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_is_read_by_its_own_rules_with_each_value_as_it_is_typed(encoding: str) -> None:
    assert parse_job_file(JSON.encode(encoding), "job.json", 0, Sources()) == {
        "command": "\U0001f680/\u00e9",
        "args": ("a\tb", "3.10", "1E2", "-0", "true", ""),
        "environment": {"V": "3.10", "N": "12345678901234567890", "on": "false"},
        "timeout_seconds": 90,
        "submodules": True,
    }


@pytest.mark.parametrize(
    ("content", "environment"),
    [
        ('{"environment": {"A": NaN, # a comment\n"B": .5,}}', {"A": "NaN", "B": ".5"}),
        ("{environment: {A: 1.0, B: 'x'}}", {"A": "1.0", "B": "x"}),
        ('environment: {A: "\\ud83d\\ude80"}', {"A": "\U0001f680"}),
        ("environment:\n  1: |\n    x\n    y\n  true: >-\n    a\n    b", {"1": "x\ny\n", "true": "a b"}),
        ("environment: {A: !!str 010, B: !!int 010, C: !!float 1}", {"A": "010", "B": "010", "C": "1"}),
        ("metadata: &m {A: 010}\nenvironment: {<<: [*m, {A: 2, B: 3.0}]}", {"A": "010", "B": "3.0"}),
    ],
)
def test_what_is_not_json_is_yaml_with_each_value_as_it_is_typed(content: str, environment: dict[str, str]) -> None:
    assert parse_job_file(content.encode(), "job.yaml", 0, Sources())["environment"] == environment


AS_WRITTEN = (
    "yes", "No", "on", "OFF", "y", "true", "False", "1.10", "0777", "0x1F", "1_000", "12:30", "1e3", ".5", "+1", "-0",
    "2026-01-01", "2026-13-45", "2026-01-01T10:00:00Z", "=", "<<", ".inf", "nan", "9" * 5_000, "~/bin", "nullable",
)  # fmt: skip


@pytest.mark.parametrize("word", AS_WRITTEN)
def test_a_word_is_text_as_it_is_written_wherever_text_is_wanted(word: str) -> None:
    """The last three lines are what else takes text: words of a list, names, and keys such as `commit`."""
    content = f"""
environment: {{A: {word}, "B": "{word}", {word[:9]}: x}}
metadata:
  A: {word}
require: {{A: {word}}}
args: [-v, {word}]
commit: {word}
branch: {word}
"""
    if word == "<<":
        content = content.replace(", <<: x", "")
    fields = parse_job_file(content.encode(), "job.yaml", 0, Sources())
    assert fields["environment"] == {"A": word, "B": word} | ({word[:9]: "x"} if word != "<<" else {})
    assert fields["metadata"] == fields["require"] == {"A": word}
    assert fields["args"] == ("-v", word)
    assert fields["commit"] == fields["branch"] == word


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ["", "null", '""', "[]", "{}"])
def test_a_key_that_holds_nothing_is_not_set(key: str, value: str) -> None:
    assert parse_job_file(f"{key}: {value}".encode(), "job.yaml", 0, Sources()) == {}


def test_merged_mappings_are_what_yaml_makes_of_them() -> None:
    content = b"metadata: &usual {A: on, B: 1}\nenvironment: {<<: *usual, B: 0x2}"
    assert parse_job_file(content, "job.yaml", 0, Sources())["environment"] == {"A": "on", "B": "0x2"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("commnad: x", "line 1: unknown key 'commnad'; did you mean command?"),
        ("env: {A: 1}", "unknown key 'env'; did you mean environment?"),
        ("1: x", "unknown key '1'; the keys are command, "),
        ("command: [a]", "command: expected text, not a list"),
        ("args: test", "args: expected a list of texts such as [test, --fast], not the text 'test'"),
        ("args: [a, null]", "args: item 2: expected text, not nothing; put it in quotes"),
        (
            "timeout: soon",
            "timeout: expected whole seconds, or a duration such as 1h30m (0: none), not the text 'soon'",
        ),
        ("timeout: true", "timeout: expected whole seconds, or a duration such as 1h30m (0: none), not true"),
        ("timeout: 1.5", "timeout: expected whole seconds, or a duration such as 1h30m (0: none), not the number 1.5"),
        ("environment: {A: null}", "environment: A: expected text, not nothing; put it in quotes"),
        ("environment: {[a]: b}", "job.yaml, line 1: a key is text, not a list or a mapping"),
        ("priority: 2024-01-01", "priority: expected a whole number from -100 to 100, not the text '2024-01-01'"),
        ("processType: tty", "processType: expected pipe or pty, not the text 'tty'"),
        ("environment: [A=1]", "environment: expected names and texts such as {LEVEL: high}, not a list"),
        ("notBefore: 2027-01-31T03:00:00", "notBefore: '2027-01-31T03:00:00' does not say how far it is from UTC"),
        ("notBefore: tomorrow", "notBefore: 'tomorrow': expected an instant such as 2027-01-31T03:00:00Z"),
        ("retry: yes", "backoff: 1, maxBackoff: 300}, not true"),
        ("retry: {on: [1]}", "retry: limit is missing: how many times to run a failed job again"),
        ("retry: {limit: 1, onn: [1]}", "retry: unknown key 'onn'; did you mean on?"),
        ("retry: {limit: 1, on: [SIGNONE]}", "retry: on: 'SIGNONE' is not an exit code, a signal such as SIGKILL"),
        (
            "retry: {limit: 1, backoff: -1}",
            "expected a number of seconds up to 86400, or a duration such as 1m30s, not the number -1",
        ),
        ("retry: {limit: 1, backoff: .inf}", "retry: backoff: expected a number of seconds up to 86400"),
        ("terminal: 80 x 24", "expected a size such as 120x40 or {cols: 120, rows: 40}, not the text '80 x 24'"),
        ("terminal: {colz: 80}", "terminal: unknown key 'colz'; did you mean cols?"),
        ("terminal: {cols: 80, rows: 24,\n x: 1}", "line 2: terminal: unknown key 'x'; the keys are cols, rows"),
        ("command: x\nterminal: {cols: 10001}", "line 2: terminal: cols: expected a whole number from 1 to 10000"),
        ("submodules: all", "submodules: expected true or false, not the text 'all'"),
        ("secrets: TOKEN", "secrets: expected a list of texts"),
        ("require: [linux]", "require: expected names and texts"),
        ("timeout: 1:30", "line 1: timeout: expected whole seconds"),
        ("priority: 1_0", "line 1: priority: expected a whole number from -100 to 100, not the text '1_0'"),
        ("args:\n- a\n- ~", "line 3: args: item 2: expected text, not nothing; put it in quotes"),
        ("queue: a\n\nqueue: b", "job.yaml, line 3: the key 'queue' is here again; it is in line 1 already"),
        ("environment:\n  A: 1\n  B: 2\n  A: 1", "line 4: the key 'A' is here again; it is in line 2 already"),
        ("environment: {1: a, '1': b}", "the key '1' is here again"),
        ("retry: {limit: 1,\n limit: 2}", "line 2: the key 'limit' is here again; it is in line 1 already"),
        ('{"queue": "a",\n"queue": "a"}', "line 2: the key 'queue' is here again; it is in line 1 already"),
        ('{"environment": {"A": 1,\n"\\u0041": 2}}', "line 2: the key 'A' is here again"),
        ('{"command": "x"\n\t"args": []}', "line 2: this is not JSON: expected a comma or }, not '\"args\":'"),
        ('{"command":\n"\\ud800"}', 'line 2: "\\ud800" has half of a surrogate pair'),
        ('command: "\\ud800"', "line 1: '\\ud800' has half of a surrogate pair"),
        ('{"args":' * 40 + "1" + "}" * 40, "more than 32 lists and mappings are nested here"),
        ("terminal: {rows: 1,\n cols: 0x50}", "line 2: terminal: cols: expected a whole number from 1 to 10000, not"),
        ("retry: {limit: 1, on: {a: b}}", "retry: on: expected an exit code, a signal such as SIGKILL, or a reason: "),
        (
            "command: 'a\n",
            "line 2: this is neither YAML nor JSON: found unexpected end of stream while",
        ),
        ("a: &x [*x]", "line 1: this contains itself"),
        ("args: {<<: 1}", "line 1: `<<` takes a mapping, or a list of mappings"),
        (
            "command: x\n---\ncommand: y",
            "line 2: this is neither YAML nor JSON: expected a single document in the stream but found another",
        ),
        ("command: x\n\targs: []", "line 2: this is neither YAML nor JSON: found character '\\t'"),
        ("command: a\n# \x07", "line 2: this is neither YAML nor JSON: the character '\\x07' is not allowed"),
        ("- a", "expected keys and values such as `command: make`, not a list"),
        ("", "job.yaml is empty: expected keys and values such as `command: make`"),
        ("command: [", "is neither YAML nor JSON"),
        ("command: !!python/object:os.system x", "line 1: the tag !!python/object:os.system has no meaning here"),
        ("{" * 60_000, "job.yaml: more than 32 lists and mappings are nested here"),
        ("[" * 1_000, "job.yaml: more than 32 lists and mappings are nested here; a job file has three"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_what_was_expected(content: str, told: str) -> None:
    with pytest.raises(OperatorError) as error:
        parse_job_file(content.encode(), "job.yaml", 0, Sources())
    assert told in error.value.message
    assert error.value.message.startswith("job.yaml")
    assert "\n" not in error.value.message
    assert error.value.exit_code == 64


def test_a_byte_that_is_no_text_is_named_with_its_line() -> None:
    with pytest.raises(OperatorError, match=r"job\.yaml, line 2: byte 0xff is not text in UTF-8"):
        parse_job_file(b"command: x\nowner: a\xff", "job.yaml", 0, Sources())


def test_a_file_that_cannot_be_read_or_has_no_end_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(OperatorError, match="cannot read"):
            read_job_file(str(path))
    with pytest.raises(OperatorError, match=f"larger than {FILE_BYTES_MAX} bytes"):
        read_job_file("/dev/zero")
