"""Topics of `airunner help TOPIC`: what several commands have in common. Pages of docs/ have the same tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

EXIT_CODES: Final = (
    (
        "*the job's own*",
        (
            "`run`, `submit`, `monitor`, `retry` and `wait` exit as the job did; `monitor` and `wait` of several jobs "
            "as the first that failed"
        ),
    ),
    ("128 + N", "signal N ended the job"),
    ("124", "the job exceeded its timeout, or `wait` its `--timeout`"),
    ("126, 127", "the command cannot be executed; was not found"),
    (
        "125",
        (
            "the job has no exit code of its own: it was cancelled or skipped, its repository could not be checked "
            "out, a hook failed, its agents were lost"
        ),
    ),
    ("64", "bad usage: a command, an option, a job file, a missing key"),
    (
        "65",
        (
            "not possible in this state: the job to `cancel` had ended, the one to `retry` has not finished, the queue "
            "is being drained; `verify`: the log was changed; `artifacts`: a path leads out of the folder; "
            "`apply`: a conflict, or uncommitted changes of the same files"
        ),
    ),
    ("66", "no such job or file of a job, no such queue to resume, or no such cluster"),
    ("69", "no broker answered, or none that speaks this revision of the protocol; a quota or a limit is reached"),
    ("70", "a bug of airunner: please report the traceback"),
    ("74", "a file or the output cannot be read or written; a store or a backup is damaged"),
    ("77", "the broker rejects this key or token, or has another key than the pinned one"),
    (
        "78",
        "`doctor` or `certs doctor` has found a problem; `verify`: a signature is missing, or its key is unknown here",
    ),
    (
        "130, 143, 129",
        (
            "Ctrl-C (or a No to its question), SIGTERM or a closed terminal ended the client; the job continues, or is "
            "cancelled with `--on-interrupt cancel` or `--cancel-on-exit`"
        ),
    ),
    (
        "141",
        "the reader of the output closed the pipe, as `head` does; the job continues, or is cancelled as above",
    ),
)
"""Exit codes and their meaning."""
VARIABLES: Final = (
    ("AIRUNNER_HOME", "folder of keys, store, spools and config.yaml", "`~/.airunner`"),
    ("AIRUNNER_CLUSTER", "cluster of config.yaml, as `--cluster`", "the one of `airunner config use`"),
    ("AIRUNNER_CONFIG_FILE", "path of config.yaml", "`$AIRUNNER_HOME/config.yaml`"),
    ("AIRUNNER_BROKER", "the broker's endpoints, tried in turn", "`tcp://127.0.0.1:7070`"),
    ("AIRUNNER_SERVER_KEY", "the broker's public key, Z85", "`certs/broker.public` of the home"),
    ("AIRUNNER_TOKEN", "the token to present", "one signed with the home's key, if it is there"),
    ("AIRUNNER_TOKEN_FILE", "file (mode 0600) with that token, read again when it changes", ""),
    ("AIRUNNER_TENANT", "tenant of the token that is signed with the home's key", "`default`"),
    ("AIRUNNER_AGENT_NAME", "`--name` of the agent", "`HOST-1`, or the next free"),
    ("JWT_SIGNING_KEY, JWT_PUBLIC_KEY", "token keys: PEM, or the path of a PEM file", "the home's"),
    ("AIRUNNER_OIDC_CLIENT_SECRET", "secret of `airunner web` at its OpenID Connect issuer", "a file, or none"),
    ("NO_COLOR", "if it is set, nothing is coloured", ""),
    ("COLUMNS", "width of help, where no terminal says it", ""),
)
"""Variables that are no option's, or not called like it, with their meaning and default."""

_ITEM: Final = "  "
TOPICS: Final[Mapping[str, tuple[str, ...]]] = {
    "formatting": (
        (
            "Lists are a table on a terminal, as wide as it: what does not fit is left out, never id and state. On "
            "a pipe each line has every column, whole; `-` is an empty cell."
        ),
        "--columns id,state,took chooses the columns of `airunner list`, in this order.",
        "-q prints ids only: `airunner list -q --state failed | xargs airunner retry`.",
        (
            "--json prints one JSON object a line, with all fields, for `jq`: "
            "`airunner list --json | jq -r 'select(.state == \"FAILED\").id'`."
        ),
        "Colours are for terminals only; NO_COLOR=1 turns them off. Messages go to stderr, results to stdout.",
    ),
    "job-names": (
        "A JOB is named by its id, by the first characters of it (4 or more), by its --name, or by @last.",
        "@last is the newest job of `airunner list`, @last~1 the one before it, and so on.",
        (
            "A name comes before the beginning of an id; of several jobs with a name the newest is meant. A "
            "beginning that several ids have is refused, and lists them."
        ),
    ),
    "times": (
        "A duration is a number of seconds, or numbers with units: 90, 90s, 15m, 1h30m, 7d, 500ms.",
        (
            "An instant is 2027-01-31T03:00:00Z, or with another offset from UTC; milliseconds since the epoch; or a "
            "duration from now: 10m means ten minutes ago where the past is meant (--since, --until), and +10m in ten "
            "minutes where the future is (--not-before, --expires)."
        ),
    ),
    "config": (
        "Settings are in $AIRUNNER_HOME/config.yaml, each by the name of its option without the dashes:",
        (
            "  queue: ci\n  connect-timeout: 20s\n  cluster: prod\n  clusters:\n    prod:\n"
            "      broker: tcp://broker.example.org:7070\n      home: prod\n      token-file: ~/.airunner/prod.token"
        ),
        "An option overrides its variable, that the chosen cluster in the file, and that the rest of the file.",
        (
            "`airunner config show` says where each setting is from, `config list` and `config use NAME` list and "
            "choose clusters, `config set NAME VALUE` changes the file; --cluster NAME is for one command."
        ),
        "A cluster may also have `home` (folder of its keys, beside the file) and `server-key` (the broker's key).",
    ),
    "environment": (
        (
            "Every option that is not about one call only has a variable: AIRUNNER_ and its name, such as "
            "AIRUNNER_CONNECT_TIMEOUT of --connect-timeout; its help shows it. true and false turn switches on "
            "and off; several values are separated by spaces, quoted as in a shell. Other variables:"
        ),
    ),
    "exit-codes": ("airunner's own codes are 64 to 78 and 125, so that 1, 2 and other small ones are the job's.",),
}
"""Paragraphs of each topic; one that begins with spaces is printed as it is."""


def topic_text(topic: str, width: int) -> str:
    """Return the text of a topic in lines of this width."""
    from airunner.commandtable import rows, wrapped

    blocks = [
        paragraph if paragraph.startswith(_ITEM) else "\n".join(wrapped("", paragraph, width))
        for paragraph in TOPICS[topic]
    ]
    tables = {"exit-codes": EXIT_CODES, "environment": [(name, _line(*rest)) for name, *rest in VARIABLES]}
    if topic in tables:
        plain = [(name.strip("*"), text.replace("`", "")) for name, text in tables[topic]]
        blocks.append("\n".join(rows(plain, width)))
    return "\n\n".join(blocks) + "\n"


def _line(meaning: str, default: str) -> str:
    return f"{meaning[0].upper()}{meaning[1:]}{f' [default: {default}]' if default else ''}."


def names() -> Iterator[str]:
    """Yield what `airunner help` can explain: the commands and the topics."""
    from airunner.commandtable import TABLE

    yield from (name for name, entry in TABLE.items() if entry.line)
    yield from TOPICS
