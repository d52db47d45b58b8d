"""A body that is too large is refused before it is kept, with nginx or without."""

import asyncio
import http.client
import json
from pathlib import Path
from typing import Any

import pytest

from saas.asgi import application
from saas.bodies import MAX_BODY_BYTES
from tests.factories import host_of, make_tenant

PIECE = bytes(64 * 1024)
PATH = "/api/chat/attachments"


def post(host: str, pieces: int, **headers: str) -> tuple[int, dict[str, Any], int]:
    """Send so many pieces of a body; return status, answer, and how many were read until that was sent."""
    named = {"host": host, "accept-language": "en", "content-type": "application/octet-stream", **headers}
    scope = {
        "type": "http",
        "method": "POST",
        "path": PATH,
        "query_string": b"",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in named.items()],
    }
    read, sent = 0, list[dict[str, Any]]()
    answered = asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal read
        if read == pieces:
            await answered.wait()
            return {"type": "http.disconnect"}
        read += 1
        return {"type": "http.request", "body": PIECE, "more_body": read < pieces}

    async def send(event: Any) -> None:
        sent.append(event)
        if event["type"] == "http.response.body" and not event.get("more_body"):
            answered.set()

    asyncio.run(application(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"]), read


REFUSAL = {
    "code": 10001,
    "msg": "The request is too large. Please send a smaller file, or less at once.",
    "type": "too_large",
    "scope": "body",
    "action": "",
    "reset_at": None,
}


def told(body: dict[str, Any]) -> dict[str, Any]:
    return {name: body[name] for name in REFUSAL}


@pytest.mark.usefixtures("committed_db")
def test_what_announces_too_much_is_not_read_at_all() -> None:
    status, body, read = post(host_of(make_tenant()), 1000, content_length=str(MAX_BODY_BYTES + 1))
    assert (status, told(body), read) == (400, REFUSAL, 0)


@pytest.mark.usefixtures("committed_db")
def test_what_announces_nothing_is_read_up_to_the_bound() -> None:
    most = MAX_BODY_BYTES // len(PIECE)
    status, body, read = post(host_of(make_tenant()), 10 * most)
    assert (status, told(body), read) == (400, REFUSAL, most + 1)


@pytest.mark.usefixtures("committed_db")
def test_what_is_within_the_bound_goes_on() -> None:
    status, body, read = post(host_of(make_tenant()), 100, content_length=str(100 * len(PIECE)))
    assert (status, body["code"], read) == (401, -1, 100)


@pytest.mark.usefixtures("committed_db")
def test_a_client_that_sends_it_all_is_told(chat_port: int) -> None:
    host = host_of(make_tenant())
    server = http.client.HTTPConnection("127.0.0.1", chat_port, timeout=60)
    try:
        server.request("POST", PATH, bytes(2 * MAX_BODY_BYTES), {"host": host, "accept-language": "en"})
        reply = server.getresponse()
        assert (reply.status, told(json.loads(reply.read()))) == (400, REFUSAL)
    finally:
        server.close()


def test_nginx_has_the_same_bound() -> None:
    assert "client_max_body_size 10m;" in Path("deploy/nginx.conf.template").read_text("utf-8")
    assert MAX_BODY_BYTES == 10 << 20
