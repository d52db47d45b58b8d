"""A captcha's "siteverify" endpoint: a token is solved on a page, and good once."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from tests.doubles.serving import Asked, Said, serving


@dataclass
class CaptchaDouble:
    """One widget: its secret, and what people have solved."""

    secret: str = "captcha-secret"
    url: str = ""
    solved: set[str] = field(default_factory=set)
    asked: list[dict[str, str]] = field(default_factory=list)
    is_ill: bool = False

    def solve(self) -> str:
        """Return what the widget gives a page after a person solved it."""
        token = f"solved-{len(self.asked)}-{len(self.solved)}"
        self.solved.add(token)
        return token

    def answer(self, asked: Asked) -> Said:
        """Answer one call."""
        if self.is_ill:
            return Said(status=502, body=b"<html>")
        given = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        self.asked.append(given)
        if given.get("secret") != self.secret:
            return _said(["invalid-input-secret"])
        if given.get("response") not in self.solved:
            return _said(["timeout-or-duplicate"])
        self.solved.remove(given["response"])
        return _said([])


def _said(faults: list[str]) -> Said:
    return Said(body=json.dumps({"success": not faults, "error-codes": faults}).encode())


@contextmanager
def running_captcha() -> Iterator[CaptchaDouble]:
    """Serve a double until the block ends."""
    double = CaptchaDouble()
    with serving(double.answer) as url:
        double.url = f"{url}/turnstile/v0/siteverify"
        yield double
