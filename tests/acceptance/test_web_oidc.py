"""OpenID Connect through a real server, as a browser: login, mapped roles, refused audience, rotated keys, logout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.acceptance.running import Cluster, environment, run
from tests.acceptance.webserver import RunningWeb
from tests.client.web.oidc.localissuer import CLIENT, SECRET, LocalIssuer, local_issuer

MAP = ("--oidc-map", "developers=read,submit", "--oidc-map", "robots=submit")


@pytest.fixture(scope="module")
def serving_issuer() -> Iterator[LocalIssuer]:
    with local_issuer() as issuer:
        yield issuer


@pytest.fixture
def issuer(serving_issuer: LocalIssuer) -> LocalIssuer:
    serving_issuer.reset()
    serving_issuer.secret = SECRET
    return serving_issuer


@pytest.fixture(scope="module")
def web(standing: Cluster, serving_issuer: LocalIssuer) -> Iterator[RunningWeb]:
    options = ("--oidc-issuer", serving_issuer.url, "--oidc-client-id", CLIENT, *MAP, "--oidc-tenant", "blue")
    running = RunningWeb(standing, *options, more={"AIRUNNER_OIDC_CLIENT_SECRET": SECRET})
    yield running
    running.kill()


def browser(web: RunningWeb) -> httpx2.Client:
    headers = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin"}
    return httpx2.Client(base_url=web.url, headers=headers, follow_redirects=True, timeout=30, trust_env=False)


def test_a_user_logs_in_with_the_roles_of_their_groups_and_out_again(web: RunningWeb, issuer: LocalIssuer) -> None:
    blue = run({**web.cluster.environ, "AIRUNNER_TENANT": "blue"}, "submit", "--detach", "--", "true")
    assert web.cluster.airunner("submit", "--detach", "--", "true").returncode == 0  # of another tenant
    with browser(web) as tab:
        asked = tab.get("/queues?after=a")  # a page that needs a login leads to it, and the login back to the page
        assert asked.url.path == "/login"
        assert 'href="/oidc/login?next=%2Fqueues%3Fafter%3Da"' in asked.text
        page = tab.get("/oidc/login", params={"next": "/v1/jobs?limit=9"})
        assert (page.status_code, page.url.path, page.url.query) == (200, "/v1/jobs", b"limit=9")
        assert [each["id"] for each in page.json()["jobs"]] == [blue.stdout.decode().strip()]
        assert [cookie.name for cookie in tab.cookies.jar] == ["airunner"]  # that of the attempt is gone
        kept = tab.cookies["airunner"]
        assert tab.post("/logout").url.path == "/login"
        assert tab.get("/v1/jobs").status_code == 401
        assert tab.get("/v1/jobs", headers={"Cookie": f"airunner={kept}"}).status_code == 401
        ended = tab.get("/oidc/logout", follow_redirects=False)
        assert ended.headers["location"].startswith(f"{issuer.url}/end?client_id={CLIENT}&post_logout_redirect_uri=")
        issuer.user["groups"] = ["robots"]
        assert tab.get("/oidc/login", params={"next": "/v1/jobs"}).status_code == 403  # it may not read


def test_who_has_no_mapped_group_and_a_token_for_another_client_get_a_page_and_no_session(
    web: RunningWeb, issuer: LocalIssuer
) -> None:
    for claims, words in (
        ({"groups": ["guests"]}, "none of this user&#39;s groups has access here"),
        ({"aud": "another-client"}, "ID token of the issuer is refused: its claim aud"),
        ({"sub": "<script>alert(1)</script>", "groups": []}, "&lt;script&gt;alert(1)&lt;/script&gt; is logged in"),
    ):
        issuer.claims = claims
        with browser(web) as tab:
            page = tab.get("/oidc/login")
            assert (page.status_code, page.headers["cache-control"]) == (403, "no-store")
            assert words in page.text.replace("&#x27;", "&#39;")
            assert "airunner" not in tab.cookies
            assert tab.get("/v1/jobs").status_code == 401


def test_the_issuers_keys_rotate_without_a_restart(web: RunningWeb, issuer: LocalIssuer) -> None:
    web.kill()
    web.start()
    with browser(web) as tab:
        assert tab.get("/oidc/login", params={"next": "/v1/jobs"}).status_code == 200
        issuer.rotate("second")
        assert tab.get("/oidc/login", params={"next": "/v1/jobs"}).status_code == 200
        issuer.published = []  # withdrawn, and so is what was signed before: its key is unknown
        issuer.rotate("third")
        issuer.published = []
        assert tab.get("/oidc/login").status_code == 403
    assert issuer.asked["keys"] == 2


def test_a_login_survives_the_server_and_belongs_to_its_browser(web: RunningWeb, issuer: LocalIssuer) -> None:
    with browser(web) as tab, browser(web) as other:
        begun = tab.get("/oidc/login", params={"next": "//evil.example/"}, follow_redirects=False)
        assert "httponly; " in f"{begun.headers['set-cookie'].lower()}; "
        answered = tab.get(begun.headers["location"], follow_redirects=False).headers["location"]
        web.kill()
        web.start()
        refused = other.get(answered)
        assert refused.status_code == 400  # an attacker's answer logs in nobody else
        assert str(refused.url.params["code"]) not in refused.text
        assert "airunner" not in other.cookies
        done = tab.get(answered, follow_redirects=False)
        assert (done.status_code, done.headers["location"]) == (303, "/")
        assert tab.get(answered).status_code == 400  # the attempt is over
        assert issuer.asked["token"] == 1


def test_nothing_of_a_login_is_in_the_log(web: RunningWeb) -> None:
    with browser(web) as tab:
        tab.get("/oidc/login")
        codes = [str(answer.url.params.get("code", "")) for answer in tab.get("/oidc/login").history]
        secrets = [SECRET, tab.cookies["airunner"], *filter(None, codes)]
    process = web.process
    assert web.stop() == 0
    log = "\n".join(process.lines)
    web.start()
    assert "/oidc/callback 303" in log
    assert not [secret for secret in secrets if secret in log]


def test_without_a_signing_key_the_server_says_so_at_its_start(standing: Cluster, tmp_path: Path) -> None:
    for name in ("client.public", "client.secret", "broker.public"):
        target = tmp_path / "certs" / name
        target.parent.mkdir(mode=0o700, exist_ok=True)
        target.write_bytes((standing.home / "certs" / name).read_bytes())
        target.chmod(0o600)
    words = ("web", "--listen", "127.0.0.1:0", "--oidc-issuer", "https://id.example.org", "--oidc-client-id", "web")
    done = run(environment(tmp_path), *words, *MAP)
    assert done.returncode == 64
    (line,) = done.stderr.decode().splitlines()
    assert "the key for that is missing: copy token.secret.pem of the broker's home to" in line
