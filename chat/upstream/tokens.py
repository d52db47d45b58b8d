"""Counting tokens without a network: for holds, for the meter, and for upstreams that do not report usage.

The vocabulary is OpenAI's o200k_base. Other models cut text differently, so a count for them is an estimate.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import toktok

ENCODING = "o200k_base"
# OpenAI's own reckoning of its chat format: each message is wrapped, and the answer's opening is part of the prompt.
TOKENS_PER_MESSAGE = 4
TOKENS_FOR_REPLY = 3


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
    """Return the number of prompt tokens of OpenAI's `messages`, roles and the format's overhead included."""
    texts = [_content(message) for message in messages]
    return sum(count_each(texts)) + TOKENS_PER_MESSAGE * len(messages) + TOKENS_FOR_REPLY


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else orjson.dumps(content).decode()


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
