"""What a job finds in its environment, and what it never does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from airunner.agent.workspace.environment import AttemptFacts, hook_environment, job_environment
from airunner.agent.workspace.workspace import Workspace
from airunner.protocol.fields import JobSpec

OURS = {
    "AIRUNNER": "true",
    "AIRUNNER_JOB_ID": "0192-job",
    "AIRUNNER_ATTEMPT": "2",
    "AIRUNNER_QUEUE": "default",
    "AIRUNNER_REPOSITORY": "https://example.org/x.git",
    "AIRUNNER_COMMIT": "c0ffee",
    "AIRUNNER_BRANCH": "main",
    "AIRUNNER_REF": "",
    "AIRUNNER_WORKSPACE": "/w/checkout",
}
UNATTENDED = {
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "SYSTEMD_PAGER": "cat",
    "EDITOR": "false",
    "GIT_MERGE_AUTOEDIT": "no",
    "GIT_TERMINAL_PROMPT": "0",
    "PYTHONUNBUFFERED": "1",
}
MADE_HERE = {*OURS, *UNATTENDED, "HOME", "TMPDIR", "TERM", "CI", "PATH", "LANG", "SHELL"}
variables = st.dictionaries(st.text(min_size=1), st.text())


def facts(job: Mapping[str, str] = MappingProxyType({}), **secrets: str) -> AttemptFacts:
    """An attempt at a job with these variables."""
    return AttemptFacts(
        job_id="0192-job",
        attempt=2,
        spec=JobSpec(command="x", repository="https://example.org/x.git", commit="c0ffee", branch="main"),
        workspace=Workspace(Path("/w")),
        variables=job,
        secrets=secrets,
    )


def test_a_bare_agent_still_makes_a_usable_environment() -> None:
    assert job_environment(facts(), {}, terminal=False) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "SHELL": "/bin/sh",
        "HOME": "/w/home",
        "TMPDIR": "/w/tmp",
        "TERM": "dumb",
        "CI": "true",
        **UNATTENDED,
        **OURS,
    }


def test_language_zone_and_user_are_the_agents_and_home_and_temporary_folder_are_not() -> None:
    theirs = {
        "PATH": "/p",
        "LANG": "de_DE.UTF-8",
        "LC_TIME": "C",
        "TZ": "UTC",
        "USER": "u",
        "LOGNAME": "u",
        "SHELL": "/s",
    }
    agent = {**theirs, "HOME": "/root", "TMPDIR": "/x"}
    made = job_environment(facts(), agent, terminal=True)
    assert theirs.items() <= made.items()
    assert (made["HOME"], made["TMPDIR"], made["TERM"]) == ("/w/home", "/w/tmp", "xterm-256color")


def test_the_jobs_own_variables_beat_the_base() -> None:
    own = {"PATH": "/mine", "HOME": "/mine", "TERM": "vt100", "CI": "false", "AIRUNNER_TOKEN": "the job's"}
    own |= dict.fromkeys(UNATTENDED, "mine")
    assert own.items() <= job_environment(facts(own), {"PATH": "/p"}, terminal=True).items()


def test_each_place_of_variables_overrides_the_earlier_ones() -> None:
    places = ("operators", "variables", "secrets", "hooked")
    names = ("CI", "A", "B", "C", "AIRUNNER_ATTEMPT")
    full = replace(facts(), **{place: dict.fromkeys(names[at:], place) for at, place in enumerate(places)})
    made = job_environment(full, {"CI": "agent"}, terminal=False)
    assert [made[name] for name in names] == [*places, "2"]


@given(agent=variables, job=variables)
def test_a_job_cannot_say_that_it_is_another(agent: dict[str, str], job: dict[str, str]) -> None:
    claims = facts(job | dict.fromkeys(OURS, "x"))
    made = job_environment(claims, agent | OURS | {"AIRUNNER": "no"}, terminal=False)
    assert OURS.items() <= made.items()


@given(agent=variables)
def test_nothing_else_of_the_agents_reaches_a_job(agent: dict[str, str]) -> None:
    names = ("AWS_SECRET_ACCESS_KEY", "JWT_SIGNING_KEY", "AIRUNNER_TOKEN", "LD_PRELOAD", "PYTHONPATH")
    secrets = dict.fromkeys(names, "s")
    passed = {"LANGUAGE", "TZ", "USER", "LOGNAME"}
    made = job_environment(facts(), agent | secrets, terminal=False)
    assert {name for name in made if not name.startswith("LC_")} <= MADE_HERE | passed


@given(agent=variables, job=variables)
def test_a_hook_finds_the_jobs_variables_under_a_prefix_and_nowhere_else(
    agent: dict[str, str], job: dict[str, str]
) -> None:
    without = hook_environment(facts(), agent)
    told = hook_environment(facts({**job, "LEVEL": "3"}, LEVEL="4"), agent)
    assert without.items() <= told.items()
    assert {name[:13] for name in told.keys() - without.keys()} == {"AIRUNNER_ENV_"}
    assert told["AIRUNNER_ENV_LEVEL"] == "4"


def test_a_hook_has_the_agents_own_home_and_no_relative_path() -> None:
    agent = {"HOME": "/root", "TMPDIR": "/x", "PATH": ".:/p::q:/r:", "LD_PRELOAD": "s", "BASH_ENV": "s"}
    made = hook_environment(facts(), agent)
    assert (made["HOME"], made["TMPDIR"], made["PATH"]) == ("/root", "/x", "/p:/r")
    assert (made["AIRUNNER_JOB_HOME"], made["AIRUNNER_JOB_TMPDIR"]) == ("/w/home", "/w/tmp")
    assert not {"LD_PRELOAD", "BASH_ENV"} & made.keys()
    assert UNATTENDED.items() <= made.items()
    bare = hook_environment(facts(), {"PATH": "."})
    assert (bare["HOME"], bare["PATH"][:15]) == ("/", "/usr/local/sbin")
