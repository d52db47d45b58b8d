"""The built mini-program's own transport, run in node on a small `wx`, against the real server.

`make client-test`, which `make test` begins with, builds it; without Node there is none, and these are skipped.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_django.plugin import DjangoDbBlocker

from saas.local.client import CLIENT
from tests.programs import expect_right_books
from tests.recordings import recording
from tests.servers import web_server
from tests.shop import YUAN, Shop, open_shop

BUILT = CLIENT / "dist" / "build" / "mp-weixin"
PROGRAM = CLIENT / "tests" / "real" / "miniprogram.cjs"
NODE = os.environ.get("NODE") or shutil.which("node")
SECONDS = 90
# What a phone shows formatted, with the words that copied clients look for, and characters of each length.
MARKDOWN = """# 榕树 success

| error | 值 |
|---|---|
| **b** | `x = "é"` |

```py
print("\\u4e0e", 'success')  # 与rror 👨‍👩‍👧
```

$$\\frac{1}{2}$$ [链接](https://example.com?a=1&b=2)"""

pytestmark = [
    pytest.mark.usefixtures("committed_db"),
    pytest.mark.skipif(NODE is None, reason="there is no node on this machine"),
    pytest.mark.skipif(not (BUILT / "app.json").exists(), reason="the mini-program is not built: make client-test"),
]


@pytest.fixture(scope="module")
def port(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[int]:
    with django_db_blocker.unblock(), web_server("uvicorn") as port:
        yield port


@pytest.fixture
def shop(upstream_url: str) -> Iterator[Shop]:
    shop = open_shop(upstream_url)
    for model in ("zh", "emoji", "words"):
        shop.offer(model)
    shop.offer("echo", slug="markdown")
    yield shop
    expect_right_books(shop)


def asked(shop: Shop, port: int, token: str, **wanted: Any) -> dict[str, Any]:
    """Ask by the mini-program's transport; return the answer as it has it."""
    facts = {"built": str(BUILT), "port": port, "host": shop.host, "token": token}
    facts |= {"bytes": 4096, "cuts": [], "background": False}
    command = [str(NODE), str(PROGRAM), json.dumps({**facts, **wanted})]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


# Bytes of each connection: nothing, half of the first frame, all of the text, and twice a part of the receipt.
CUTS = [1, 90, 480, 200, 420]


@pytest.mark.parametrize("model", ["zh", "emoji", "words", "markdown"])
@pytest.mark.parametrize(
    ("size", "cuts", "background"),
    [(1, [], False), (4096, [], False), (0, [], False), (7, CUTS, False), (1, CUTS, False), (7, CUTS, True)],
    ids=["byte by byte", "as it comes", "joined", "cut five times", "cut, byte by byte", "five times in background"],
)
def test_the_whole_answer_once_however_it_is_delivered(
    model: str, size: int, cuts: list[int], *, background: bool, shop: Shop, port: int
) -> None:
    ask = {"message": MARKDOWN if model == "markdown" else "你好", "model": model, "client_msg_id": model}
    answer = asked(shop, port, shop.alice.token, ask=ask, bytes=size, cuts=cuts, background=background)
    text = MARKDOWN if model == "markdown" else recording(model).text
    assert (answer["phase"], answer["text"], answer["offset"]) == ("whole", text, len(text))
    assert (answer["receipt"]["model"], answer["connections"]) == (model, len(cuts) + 1)
    [hold] = shop.holds()
    assert hold.charge == 20 * YUAN - shop.balance(shop.alice).cash > 0


def test_a_refusal_is_told_with_its_code(shop: Shop, port: int) -> None:
    answer = asked(shop, port, "bny_nobody", ask={"message": "hi", "client_msg_id": "x"}, bytes=3)
    assert (answer["phase"], answer["refusal"]["code"], answer["text"]) == ("refused", -1, "")
