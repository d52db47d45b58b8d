"""What the real nginx, with the shipped configuration, does to what passes through it."""

import gzip
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.clients.raw import RawConnection
from tests.doubles.web import PATIENCE_SECONDS, Web
from tests.nginx import NOBODY, Nginx, NginxMissing, find_nginx, nginx_command, render, run_nginx
from tests.servers import free_port

CHAT = "/api/chat/stream"
TOKEN = "bny_this-must-not-be-in-any-log"
STREAM = {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
MINI_PROGRAM = [
    b'success: {"content":"","message_id":"7","conversation_id":"3"}\r\n',
    b'success: {"content":"\\u4f60\\u597d"}\r\n',
    b'success: {"content":"' + b"\\ud83c\\udf33" * 40 + b'"}\r\n',
    b'success: {"content":""}\r\n',
    b'success: {"content":"","receipt":{"charge":"12"}}\r\n',
    b"0\r\n\r\n",
]
H5 = [
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n',
    'data: {"choices":[{"index":0,"delta":{"content":"榕树"}}]}\n\n'.encode(),
    b": ping\n\n",
    b'event: receipt\ndata: {"charge":"12"}\n\n',
    b"data: [DONE]\n\n",
]


@pytest.fixture(autouse=True, scope="module")
def _nginx_is_there() -> None:
    try:
        find_nginx()
    except NginxMissing as missing:
        pytest.skip(str(missing))


@dataclass
class Pair:
    """nginx, and the web behind it."""

    nginx: Nginx
    web: Web


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Web() as web, run_nginx(web.port) as nginx:
        yield Pair(nginx, web)


def log_with(nginx: Nginx, mark: str) -> str:
    """Return the access log once `mark` is in it: nginx writes the line after the client has the last byte."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while mark not in nginx.access_log() and time.monotonic() < deadline:
        time.sleep(0.01)
    return nginx.access_log()


def headers_that_arrive(pair: Pair, sent: dict[str, str], target: str = "/api/auth/me") -> dict[str, str]:
    """Send a request with these headers; return those that the web saw."""
    with RawConnection(pair.nginx.port, "aurora.example:8080") as client:
        client.send("GET", target, headers=sent)
        request = pair.web.next_request()
        request.reply(200, {}, b"")
        client.read_head()
    return request.headers


def get(port: int, target: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of a reply that needs no web."""
    with RawConnection(port) as client:
        client.send("GET", target, headers=headers or {})
        client.read_head()
        return client.status, client.headers, b"".join(chunk.data for chunk in client.chunks())


def error_of_stream(body: bytes, *, end: bytes) -> dict[str, Any]:
    """Return the error object of a body that is one error frame and nothing else."""
    start = b"event: error\ndata: "
    assert body.startswith(start)
    assert body.endswith(end)
    text = body[len(start) : -len(end)]
    assert text.isascii()
    assert b"error" not in text
    assert b"success" not in text
    error: dict[str, Any] = json.loads(text)
    return error


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    values = {"BANYAN_LISTEN": "127.0.0.1:8080", "BANYAN_UPSTREAM": "127.0.0.1:8000", "BANYAN_TRUSTED_PROXY": NOBODY}
    (tmp_path / "nginx.conf").write_text(render(values))
    binary = find_nginx()
    run = subprocess.run(
        [*nginx_command(binary, tmp_path), "-t"],
        env=dict(binary.environment),
        capture_output=True,
        text=True,
        check=False,
    )
    # How many files this machine lets a process open says nothing about the configuration.
    complaints = [line for line in run.stderr.splitlines() if "[" in line and "open file resource limit" not in line]
    assert (run.returncode, complaints) == (0, [])


@pytest.mark.parametrize("frames", [MINI_PROGRAM, H5], ids=["mini-program", "h5"])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("headers", [STREAM, {"Content-Type": "text/event-stream"}], ids=["told", "not told"])
def test_each_frame_arrives_alone_while_the_answer_goes_on(
    pair: Pair, frames: list[bytes], method: str, headers: dict[str, str]
) -> None:
    with RawConnection(pair.nginx.port) as client:
        client.send(method, CHAT, headers={"Accept-Encoding": "gzip, br"}, body=b"{}" if method == "POST" else b"")
        request = pair.web.next_request()
        request.begin(200, headers)
        client.read_head()
        assert "content-encoding" not in client.headers
        chunks = client.chunks()
        for frame in frames:
            request.chunk(frame)
            # The next frame is not written yet: a proxy that waits for more would wait for ever.
            assert next(chunks).data == frame
        request.end()
        assert list(chunks) == []


def test_a_frame_may_be_larger_than_any_the_application_writes(pair: Pair) -> None:
    frame = b"data: " + b"x" * 12_000 + b"\n\n"
    with RawConnection(pair.nginx.port) as client:
        client.send("POST", CHAT, headers={}, body=b"{}")
        request = pair.web.next_request()
        request.begin(200, STREAM)
        client.read_head()
        request.chunk(frame)
        chunks = client.chunks()
        seen = b""
        while len(seen) < len(frame):
            seen += next(chunks).data
        assert seen == frame


@pytest.mark.parametrize("path", [CHAT, "/v1/chat/completions"])
def test_streaming_paths_are_never_compressed_whatever_they_carry(pair: Pair, path: str) -> None:
    body = json.dumps({"choices": ["banyan"] * 1000}).encode()
    with RawConnection(pair.nginx.port) as client:
        client.send("POST", path, headers={"Accept-Encoding": "gzip"}, body=b"{}")
        pair.web.next_request().reply(200, {"Content-Type": "application/json"}, body)
        client.read_head()
        received = b"".join(chunk.data for chunk in client.chunks())
    assert "content-encoding" not in client.headers
    assert received == body


def test_other_answers_are_compressed(pair: Pair) -> None:
    body = json.dumps({"code": 1, "msg": "ok", "data": ["banyan"] * 1000}).encode()
    with RawConnection(pair.nginx.port) as client:
        client.send("GET", "/api/auth/me", headers={"Accept-Encoding": "gzip"})
        pair.web.next_request().reply(200, {"Content-Type": "application/json"}, body)
        client.read_head()
        received = b"".join(chunk.data for chunk in client.chunks())
    assert client.headers["content-encoding"] == "gzip"
    assert gzip.decompress(received) == body


def test_the_stream_s_headers_pass_and_the_version_is_not_told(pair: Pair) -> None:
    sent = {**STREAM, "X-Message-Id": "7", "Cache-Control": "no-cache, no-transform", "Server": "uvicorn"}
    with RawConnection(pair.nginx.port) as client:
        client.send("GET", CHAT, headers={})
        pair.web.next_request().reply(200, sent, b"data: x\n\n")
        client.read_head()
    kept = {name: client.headers[name.lower()] for name in sent}
    assert kept == {**sent, "Server": "nginx"}


def test_a_client_that_leaves_is_gone_for_the_web_too(pair: Pair) -> None:
    with RawConnection(pair.nginx.port) as client:
        client.send("POST", CHAT, headers={}, body=b"{}")
        request = pair.web.next_request()
        request.begin(200, STREAM)
        request.chunk(H5[0])
        client.read_head()
        next(client.chunks())
    assert request.client_is_gone()


def test_connections_to_the_web_are_kept(pair: Pair) -> None:
    client = http.client.HTTPConnection("127.0.0.1", pair.nginx.port, timeout=PATIENCE_SECONDS)
    connections = []
    for _ in range(2):
        client.request("GET", "/api/auth/me")
        request = pair.web.next_request()
        connections.append(request.connection)
        request.reply(200, {"Content-Type": "application/json"}, b"{}")
        assert client.getresponse().read() == b"{}"
    client.close()
    assert connections[0] is connections[1]


def test_the_tenant_s_host_arrives(pair: Pair) -> None:
    assert headers_that_arrive(pair, {})["host"] == "aurora.example:8080"


def test_a_sane_request_id_is_kept_and_another_replaced(pair: Pair) -> None:
    assert headers_that_arrive(pair, {"X-Request-Id": "from-the-proxy-1"})["x-request-id"] == "from-the-proxy-1"
    for bad in ("", "a" * 65, 'x","forged":"', "two words"):
        made = headers_that_arrive(pair, {"X-Request-Id": bad})["x-request-id"]
        assert (len(made), set(made) - set("0123456789abcdef")) == (32, set())


FORGED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "lotus.example",
    "X-Forwarded-Port": "443",
    "X-Real-IP": "203.0.113.9",
    "Forwarded": "for=203.0.113.9;proto=https;host=lotus.example",
    "X_Forwarded_Proto": "https",
}


def about_the_client(headers: dict[str, str]) -> dict[str, str]:
    """Return the headers that say who the client is."""
    return {name: value for name, value in headers.items() if "forwarded" in name or "real" in name}


def test_what_a_client_says_of_itself_is_not_believed(pair: Pair) -> None:
    seen = about_the_client(headers_that_arrive(pair, FORGED))
    assert seen == {"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http"}
    chat = about_the_client(headers_that_arrive(pair, FORGED, CHAT))
    assert chat == seen


def test_the_trusted_proxy_is_believed_for_what_it_added_itself() -> None:
    sent = {**FORGED, "X-Forwarded-For": "198.51.100.7, 203.0.113.9"}
    with Web() as web, run_nginx(web.port, trusted_proxy="127.0.0.0/8") as nginx:
        seen = about_the_client(headers_that_arrive(Pair(nginx, web), sent))
        assert seen == {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}
        seen = about_the_client(headers_that_arrive(Pair(nginx, web), {"X-Forwarded-Proto": "gopher"}))
        assert seen == {"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http"}


def test_a_token_is_in_no_log(pair: Pair) -> None:
    sent = {"token": TOKEN, "Authorization": f"Bearer {TOKEN}", "Referer": f"https://h5.example/?token={TOKEN}"}
    seen = headers_that_arrive(pair, {**sent, "X-Request-Id": "logged-1"}, f"{CHAT}?token={TOKEN}&message=hi")
    assert seen["token"] == TOKEN
    line = json.loads(log_with(pair.nginx, "logged-1"))
    assert (line["path"], line["status"], line["host"]) == (CHAT, 200, "aurora.example")
    assert TOKEN not in pair.nginx.access_log() + pair.nginx.error_log()


HIDDEN = (
    *("/s/", "/api/chat/shared/", "/admin/join/", "/portal/sign-up/", "/portal/invitation/"),
    *("/admin/reset/", "/platform/reset/", "/portal/reset/"),
)


def test_a_redeem_code_or_a_shared_links_token_is_in_no_log(pair: Pair) -> None:
    code = "7KQM-X2VB-9RTC-4WHN"
    headers_that_arrive(pair, {"X-Request-Id": "linked-1"}, f"/r/{code}")
    assert json.loads(log_with(pair.nginx, "linked-1"))["path"] == "/r/[hidden]"
    for number, prefix in enumerate(HIDDEN, start=2):
        headers_that_arrive(pair, {"X-Request-Id": f"linked-{number}"}, f"{prefix}{code}")
        [line] = [line for line in log_with(pair.nginx, f"linked-{number}").splitlines() if f"linked-{number}" in line]
        assert json.loads(line)["path"] == f"{prefix}[hidden]"
    assert code not in pair.nginx.access_log() + pair.nginx.error_log()


def test_a_token_is_in_no_log_when_the_web_breaks_off(pair: Pair) -> None:
    with RawConnection(pair.nginx.port) as client:
        client.send("GET", f"{CHAT}?token={TOKEN}", headers={"X-Request-Id": "broken-1"})
        request = pair.web.next_request()
        request.begin(200, STREAM)
        client.read_head()
        request.connection.shutdown(socket.SHUT_RDWR)
        with pytest.raises(ConnectionError):
            list(client.chunks())
    assert '"broken-1"' in log_with(pair.nginx, "broken-1")
    assert TOKEN not in pair.nginx.access_log() + pair.nginx.error_log()


def test_a_long_question_fits_into_a_query_string(pair: Pair) -> None:
    target = f"{CHAT}?message={quote('榕' * 6000)}"
    with RawConnection(pair.nginx.port) as client:
        client.send("GET", target, headers={})
        request = pair.web.next_request()
        request.reply(200, {}, b"")
    assert request.target == target


@pytest.mark.parametrize(
    ("target", "headers", "end"),
    [
        (f"{CHAT}?token={TOKEN}", {}, b"\n\n"),
        (f"{CHAT}?token={TOKEN}&is_wxapp=0", {"Referer": "https://servicewechat.com/wx1/1/page-frame.html"}, b"\n\n"),
        (f"{CHAT}?token={TOKEN}&is_wxapp=1", {}, b"}\r\n"),
        (f"{CHAT}?token={TOKEN}", {"Referer": "https://servicewechat.com/wx1/1/page-frame.html"}, b"}\r\n"),
    ],
)
def test_a_chat_without_web_is_told_in_its_own_framing(target: str, headers: dict[str, str], end: bytes) -> None:
    with run_nginx(free_port()) as nginx:
        status, received, body = get(nginx.port, target, {**headers, "X-Request-Id": "away-1"})
        log = log_with(nginx, "away-1") + nginx.error_log()
    assert (status, received["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert (received["access-control-allow-origin"], received["x-request-id"]) == ("*", "away-1")
    assert error_of_stream(body, end=end.removeprefix(b"}")) == {
        "code": 0,
        "msg": "服务暂时不可用\uff0c请稍后再试。",
        "type": "unavailable",
        "scope": "",
        "action": "",
        "reset_at": None,
        "request_id": "away-1",
    }
    assert '"upstream_status":"502"' in log
    assert TOKEN not in log


def test_json_without_web_is_told_in_the_person_s_language() -> None:
    with run_nginx(free_port()) as nginx:
        status, headers, body = get(
            nginx.port, f"/api/auth/me?token={TOKEN}", {"Accept-Language": "en-GB,en;q=0.9", "X-Request-Id": "away-2"}
        )
        log = log_with(nginx, "away-2") + nginx.error_log()
    assert (status, headers["content-type"]) == (500, "application/json; charset=utf-8")
    error = json.loads(body)
    assert (error["code"], error["msg"], error["request_id"]) == (
        0,
        "The service is not available for the moment. Please try again soon.",
        "away-2",
    )
    assert TOKEN not in log


def test_a_body_too_large_is_a_wrong_request(pair: Pair) -> None:
    with RawConnection(pair.nginx.port) as client:
        client.send("POST", CHAT, headers={"Content-Length": str(2 << 20), "Accept-Language": "en"})
        client.read_head()
        body = b"".join(chunk.data for chunk in client.chunks())
    error = error_of_stream(body, end=b"\n\n")
    assert (client.status, error["code"], error["msg"]) == (200, 10001, "The request is too large.")
    with RawConnection(pair.nginx.port) as client:
        client.send("POST", "/api/auth/login", headers={"Content-Length": str(20 << 20)})
        client.read_head()
        error = json.loads(b"".join(chunk.data for chunk in client.chunks()))
    assert (client.status, error["code"], error["msg"]) == (400, 10001, "内容太长。")


def test_a_program_is_refused_in_openais_form(pair: Pair) -> None:
    path = "/v1/chat/completions"
    with RawConnection(pair.nginx.port) as client:
        headers = {"Content-Length": str(20 << 20), "Accept-Language": "en", "X-Request-Id": "large-1"}
        client.send("POST", path, headers=headers)
        client.read_head()
        large = json.loads(b"".join(chunk.data for chunk in client.chunks()))
    assert client.status == 400
    assert large["error"] == {
        "message": "The request is too large.",
        "type": "invalid_request_error",
        "param": "body",
        "code": 10001,
        "reason": "too_large",
        "request_id": "large-1",
    }
    with RawConnection(pair.nginx.port) as client:
        client.send("POST", path, headers={}, body=b"{}")
        pair.web.next_request().reply(502, {"Content-Type": "application/json"}, b'{"error":{"reason":"its own"}}')
        client.read_head()
        own = b"".join(chunk.data for chunk in client.chunks())
    assert (client.status, own) == (502, b'{"error":{"reason":"its own"}}')
    with run_nginx(free_port()) as nginx:
        status, _headers, body = get(nginx.port, "/v1/models", {"Accept-Language": "en", "X-Request-Id": "away-3"})
    assert (status, json.loads(body)["error"]) == (
        503,
        {
            "message": "The service is not available for the moment. Please try again soon.",
            "type": "server_error",
            "param": None,
            "code": 0,
            "reason": "unavailable",
            "request_id": "away-3",
        },
    )


def test_a_body_that_does_not_fit_into_memory_still_passes(pair: Pair) -> None:
    body = os.urandom(600_000)
    with RawConnection(pair.nginx.port) as client:
        client.send("POST", CHAT, headers={}, body=body)
        request = pair.web.next_request()
        request.reply(200, {}, b"")
    assert request.body == body


def test_a_websocket_passes_both_ways_and_only_on_its_path(pair: Pair) -> None:
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    with socket.create_connection(("127.0.0.1", pair.nginx.port), timeout=PATIENCE_SECONDS) as client:
        lines = ["GET /ws/chat HTTP/1.1", "Host: aurora.example", *(f"{k}: {v}" for k, v in upgrade.items()), "", ""]
        client.sendall("\r\n".join(lines).encode())
        request = pair.web.next_request()
        assert (request.headers["upgrade"], request.headers["connection"]) == ("websocket", "upgrade")
        behind = request.switch_protocols()
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 101 ")
        for sender, receiver in ((client, behind), (behind, client)):
            sender.sendall(b"\x81\x02hi")
            assert receiver.recv(64) == b"\x81\x02hi"
    elsewhere = headers_that_arrive(pair, {"Upgrade": "h2c"}, CHAT)
    assert ("upgrade" in elsewhere, "connection" in elsewhere) == (False, False)
