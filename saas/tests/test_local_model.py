"""The built-in model, really served: whoever asks beside, the same question gets the same text."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from saas.local.model import CONTEXT_WINDOW, NAME, Model
from saas.local.ports import free_port
from saas.local.processes import start, stop, wait_until

QUESTIONS = [
    "What is a banyan tree?",
    "Write a poem about the sea.",
    "Explain how the internet works to a child, with examples. " * 6,
    "给我讲一个关于大海的长故事。",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    model = Model(log=tmp_path_factory.mktemp("model") / "model.log", port=free_port(), key="a-key")
    service = model.service()
    process = start(service)
    try:
        assert wait_until(model.is_ready, seconds=120), model.log.read_text()
        yield model
    finally:
        stop(process, service)


def ask(server: Model, question: str, *, key: str = "a-key", tokens: int = 300) -> httpx.Response:
    return httpx.post(
        f"{server.base_url}/chat/completions",
        headers={"Authorization": f"Bearer {key}"},
        json={"model": NAME, "messages": [{"role": "user", "content": question}], "max_tokens": tokens},
        timeout=300,
    )


def text(response: httpx.Response) -> str:
    return str(response.json()["choices"][0]["message"]["content"])


def test_an_answer_does_not_depend_on_what_is_asked_beside(server: Model) -> None:
    alone = [text(ask(server, question)) for question in QUESTIONS]
    with ThreadPoolExecutor(len(QUESTIONS)) as people:
        together = [text(answer) for answer in people.map(lambda question: ask(server, question), QUESTIONS)]

    assert together == alone
    assert len(set(alone)) == len(QUESTIONS)


def test_only_who_knows_the_key_may_ask(server: Model) -> None:
    assert [ask(server, "Hi", key=key, tokens=1).status_code for key in ("a-key", "wrong")] == [200, 401]


def test_a_prompt_longer_than_the_window_is_refused(server: Model) -> None:
    refused = ask(server, "word " * (CONTEXT_WINDOW + 10))

    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "exceed_context_size_error")


def test_it_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    model = Model(log=tmp_path / "model.log", port=free_port(), key="")
    service = model.service()
    process = start(service)
    assert wait_until(model.is_ready, seconds=120), model.log.read_text()
    stop(process, service)

    assert process.returncode == 0
