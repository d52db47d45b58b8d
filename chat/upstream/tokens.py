"""Counting tokens without a network: for holds, for the meter, and for upstreams that do not report usage.

The vocabulary is OpenAI's o200k_base. Other models cut text differently, so a count for them is an estimate.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
import toktok

from chat.upstream.base import ChatRequest

ENCODING = "o200k_base"
# OpenAI's own reckoning of its chat format: each message is wrapped, and the answer's opening is part of the prompt.
TOKENS_PER_MESSAGE = 4
TOKENS_FOR_REPLY = 3
# Parameters that become part of the prompt.
TOLD_TO_MODELS = ("tools", "functions", "response_format")


def count(text: str) -> int:
    """Return the number of tokens of `text`. The vocabulary is loaded at the first call (about 0.1 s), then kept."""
    return count_each([text])[0]


def count_each(texts: Sequence[str]) -> list[int]:
    """Return the number of tokens of each text, in order."""
    # One thread: the caller's process serves other people meanwhile.
    try:
        return toktok.batch_count(texts, ENCODING, threads=1)
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8
        return toktok.batch_count([_without_surrogates(text) for text in texts], ENCODING, threads=1)


def count_messages(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of prompt tokens of OpenAI's `messages`, roles and the format's overhead included.

    Images are not counted: see `count_images`. Calls of tools, names and the like count as the JSON that they are.
    """
    texts = [text for message in messages for text in _texts(message)]
    return sum(count_each(texts)) + TOKENS_PER_MESSAGE * len(messages) + TOKENS_FOR_REPLY


def count_images(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return how many images there are."""
    parts = [part for message in messages for part in _parts(message)]
    return sum(part.get("type") == "image_url" for part in parts)


def count_extra(extra: Mapping[str, Any]) -> int:
    """Return the number of prompt tokens of what else of a request a model reads: tools, and a form for its answer."""
    told = {name: extra[name] for name in TOLD_TO_MODELS if extra.get(name)}
    return count(orjson.dumps(told).decode()) if told else 0


def count_request(request: ChatRequest, *, image_tokens: int) -> int:
    """Return the number of prompt tokens of a request, with so many for each image."""
    images = count_images(request.messages) * image_tokens
    return count_messages(request.messages) + count_extra(request.extra) + images


def _parts(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message.get("content")
    return [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []


def _texts(message: Mapping[str, Any]) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield content
    for part in _parts(message):
        if part.get("type") != "image_url":
            text = part.get("text")
            yield text if isinstance(text, str) else orjson.dumps(part).decode()
    rest = {name: value for name, value in message.items() if name not in {"role", "content"}}
    if rest:
        yield orjson.dumps(rest).decode()


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
