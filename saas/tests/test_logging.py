"""No token, key or password reaches a log, by whatever way it comes."""

import logging
from pathlib import Path
from typing import Any

import pytest
import structlog

from saas.logging import HIDDEN, hide_in_text, hide_secrets
from tests.clients.raw import ask
from tests.servers import web_server
from tests.shop import open_shop

TOKEN = "bny_abcdefghijklmnopqrstuvwxyz0123456789"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (f"GET /api/chat/stream?token={TOKEN}&message=hi", f"GET /api/chat/stream?token={HIDDEN}&message=hi"),
        (f"Authorization: Bearer {TOKEN}", f"Authorization: {HIDDEN}"),
        (f"bearer {TOKEN}", f"bearer {HIDDEN}"),
        (f"found {TOKEN} there", f"found {HIDDEN} there"),
        ("key sk-1234567890abcdef refused", f"key {HIDDEN} refused"),
        ('{"password": "p4ss word", "a": 1}', f'{{"password": "{HIDDEN} word", "a": 1}}'),
        ("Not Found: /r/7KQM-X2VB-9RTC-4WHN", f"Not Found: /r/{HIDDEN}"),
        ("/api/chat/shared/aB-_3/report", f"/api/chat/shared/{HIDDEN}/report"),
        ("path: '/s/aB-_3'", f"path: '/s/{HIDDEN}'"),
        ("/api/r and /r/ and /var/log", "/api/r and /r/ and /var/log"),
        ("js_code=abc&secret=def", f"js_code={HIDDEN}&secret={HIDDEN}"),
        ("completion_tokens: 12, tokens are counted", "completion_tokens: 12, tokens are counted"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_what_looks_like_a_credential_is_hidden(text: str, hidden: str) -> None:
    assert hide_in_text(text) == hidden


def test_an_event_is_searched_to_its_depth() -> None:
    event: dict[str, Any] = {
        "event": f"saw {TOKEN}",
        "api_key": "plain",
        "tokens": 12,
        "headers": {"Authorization": "Bearer x", "Accept": "text/plain"},
        "items": [f"?token={TOKEN}"],
    }
    assert hide_secrets(None, "info", event) == {
        "event": f"saw {HIDDEN}",
        "api_key": HIDDEN,
        "tokens": 12,
        "headers": {"Authorization": HIDDEN, "Accept": "text/plain"},
        "items": [f"?token={HIDDEN}"],
    }


def test_a_librarys_record_and_a_traceback_pass_through_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.getLogger().handlers[0].formatter)
    logger = logging.getLogger("some.library")
    logger.addHandler(handler)
    logger.warning("calling https://x.example/?token=%s", TOKEN)
    logger.error("broke", exc_info=ValueError(TOKEN))
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        logger.warning("said")
    logger.removeHandler(handler)
    lines = capsys.readouterr().err
    assert TOKEN not in lines
    assert "ValueError" in lines
    assert "r1" in lines


@pytest.mark.parametrize("kind", ["uvicorn", "daphne"])
def test_no_server_logs_a_token(committed_db: None, upstream_url: str, tmp_path: Path, kind: str) -> None:
    shop = open_shop(upstream_url)
    shop.offer("plain")
    shop.offer("http-401")
    log = tmp_path / "log"
    with web_server(kind, log=log) as port:
        for params in ({"message": "a secret question"}, {"message": "x", "model": "http-401"}):
            query = params | {"token": shop.alice.token}
            assert ask(port, shop.host, query, method="GET", as_json=False).status == 200
        ask(port, shop.host, {"message": "x"}, token=shop.alice.token, headers={"X-Request-Id": "seen-in-the-log"})
        ask(port, shop.host, {"message": "x", "token": "bny_wrong-and-secret"}, headers={"X-Request-Id": "refused-1"})
    written = log.read_text()
    assert "refused-1" in written
    for secret in (shop.alice.token, "bny_wrong-and-secret", shop.account.api_key, "a secret question"):
        assert secret not in written
