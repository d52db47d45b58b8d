"""OpenAI's own library for Node, unmodified, against the real server: what openai_node/program.mjs was told."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.programs import expect_right_books, make_key
from tests.recordings import recording
from tests.servers import web_server
from tests.shop import YUAN, Shop, open_shop

HERE = Path(__file__).resolve().parent / "openai_node"
NODE = os.environ.get("NODE") or shutil.which("node")
NPM = shutil.which("npm")
SECONDS = 300

pytestmark = [
    pytest.mark.usefixtures("committed_db"),
    pytest.mark.skipif(NODE is None or NPM is None, reason="there is no node, or no npm, on this machine"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the library by its lock file, outside of the source."""
    folder = tmp_path_factory.mktemp("openai_node")
    for path in HERE.iterdir():
        shutil.copy(path, folder)
    install = [str(NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode != 0:
        pytest.skip(f"npm cannot install the library here: {done.stderr[-300:]}")
    return folder


@pytest.fixture
def shop(upstream_url: str) -> Iterator[Shop]:
    shop = open_shop(upstream_url)
    for model in ("zh", "emoji", "tools", "plain", "slow:2200", "http-500", "reset:3"):
        shop.offer(model, image_tokens=1500)
    yield shop
    expect_right_books(shop)


def test_what_the_library_was_told(shop: Shop, folder: Path, upstream_requests: Callable[[], Any]) -> None:
    with web_server("uvicorn") as port:
        wanted = {
            "url": f"http://{shop.host}:{port}/v1",
            "host": shop.host,
            "key": make_key(shop.alice)[1],
            "badKey": "sk-bny-" + "x" * 43,
        }
        done = subprocess.run(
            [str(NODE), "program.mjs", json.dumps(wanted)],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    assert done.stderr == ""
    told = json.loads(done.stdout)
    said = recording("zh")
    assert told["models"] == ["emoji", "http-500", "plain", "reset-3", "slow-2200", "tools", "zh"]
    assert told["whole"]["choices"][0]["message"]["content"] == said.text
    assert told["whole"]["usage"]["completion_tokens"] == said.usage["completion_tokens"]
    assert int(told["left"]) > 0
    stream = told["stream"]
    assert (stream["text"], stream["finish"], stream["models"]) == (recording("emoji").text, "stop", ["emoji"])
    assert stream["usage"]["completion_tokens"] == recording("emoji").usage["completion_tokens"]
    assert len(stream["ids"]) == 1
    calls = told["joined"]["message"]["tool_calls"]
    assert told["tools"]["arguments"] == "".join(call["function"]["arguments"] for call in calls) != ""
    assert (told["tools"]["finish"], told["joined"]["finish_reason"]) == ("tool_calls", "tool_calls")
    assert told["image"] == recording("plain").text
    [sent] = [body for body in upstream_requests() if shop.host in str(body["messages"])]
    assert sent["messages"][0]["content"][1]["image_url"]["url"] == "data:image/png;base64,AAAA"
    assert told["patient"] == "1 2 3 "
    assert told["refusals"] == {
        name: {"name": kind, "status": status, "type": word, "code": code, "reason": reason}
        for name, kind, status, word, code, reason in (
            ("key", "AuthenticationError", 401, "invalid_api_key", -1, "api_key_invalid"),
            ("model", "NotFoundError", 404, "model_not_found", 404, "model_not_found"),
            ("request", "BadRequestError", 400, "invalid_request_error", 10001, "invalid_parameter"),
            ("upstream", "InternalServerError", 502, "server_error", 500, "upstream_failed"),
        )
    } | {
        "broken": {"name": "APIError", "type": "server_error", "code": 0, "reason": "answer_cut_short"},
    }
    # One of each, and one for the library that asked several times.
    assert len([hold for hold in shop.holds() if hold.state == "posted"]) == 7
    assert shop.balance(shop.alice).cash < 20 * YUAN
