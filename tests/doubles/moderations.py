"""An endpoint that speaks OpenAI's /moderations, over real HTTP on the loopback interface.

It flags what holds one of `bad`; every call needs the key. What goes wrong next is in `trouble`.
"""

import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.doubles.serving import Asked, Said, serving

CATEGORIES = ("harassment", "hate", "illicit", "self-harm", "sexual", "violence")


@dataclass
class ModerationsDouble:
    """The endpoint, what it was asked, and what it says."""

    url: str = ""
    key: str = "sk-moderation"
    bad: dict[str, str] = field(default_factory=dict)  # category, by a part of the text
    trouble: deque[str] = field(
        default_factory=deque
    )  # of the next answers: "down", "slow", "page", "redirect", "empty"
    asked: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, asked: Asked) -> Said:
        """Answer one request."""
        if asked.headers.get("authorization") != f"Bearer {self.key}":
            return self._said(401, {"error": {"message": f"Incorrect API key provided: {self.key}"}})
        if asked.target != "/v1/moderations":
            return self._said(404, {"error": {"message": "Not found"}})
        said = json.loads(asked.body)
        self.asked.append(said)
        trouble = self.trouble.popleft() if self.trouble else ""
        if trouble == "slow":
            time.sleep(1)
        return self._troubles().get(trouble) or self._judged(said)

    def _troubles(self) -> dict[str, Said]:
        return {
            "down": self._said(503, {"error": {"message": "overloaded"}}),
            "page": Said(body=b"<html>", headers={"Content-Type": "text/html"}),
            "redirect": Said(status=307, headers={"Location": f"{self.url}/v1/moderations"}),
            "empty": self._said(200, {"id": "modr-0", "model": "m", "results": []}),
        }

    def _judged(self, said: dict[str, Any]) -> Said:
        flags = dict.fromkeys(CATEGORIES, False)
        flags |= {category: True for part, category in self.bad.items() if part in said["input"]}
        result = {
            "flagged": any(flags.values()),
            "categories": flags,
            "category_scores": {category: 0.99 if flag else 0.01 for category, flag in flags.items()},
        }
        model = said.get("model", "omni-moderation-latest")
        return self._said(200, {"id": "modr-970d409ef3bef3b70c73d8232df86e7d", "model": model, "results": [result]})

    def _said(self, status: int, body: dict[str, Any]) -> Said:
        return Said(status=status, body=json.dumps(body).encode(), headers={"Content-Type": "application/json"})


@contextmanager
def running_moderations() -> Iterator[ModerationsDouble]:
    """Serve a double until the block ends."""
    double = ModerationsDouble()
    with serving(double.answer) as url:
        double.url = url
        yield double
