"""Alibaba Cloud's SendSms as its documentation describes it: each signature is computed anew from the request.

What is signed, and how, is written here from the documentation's steps, not taken from the product.
"""

import hashlib
import hmac
import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.doubles.serving import Asked, Said, serving

CLOCK_SECONDS = 900


@dataclass
class AliyunDouble:
    """One account: its key, what it has approved, what it sent, and what goes wrong next."""

    key_id: str = "LTAI5tTestKeyOfThisDouble"
    secret: str = "a-secret-of-thirty-characters-"
    sign_name: str = "极光"
    templates: set[str] = field(default_factory=lambda: {"SMS_100001", "SMS_100002"})
    url: str = ""
    sent: list[dict[str, str]] = field(default_factory=list)  # phone, template, code
    failures: deque[str] = field(default_factory=deque)  # codes of the next answers
    raw: deque[Said] = field(default_factory=deque)  # the next answers as they are, before those
    nonces: set[str] = field(default_factory=set)

    def code_to(self, phone: str) -> str:
        """Return the last code that a phone got."""
        return next(message["code"] for message in reversed(self.sent) if message["phone"] == phone)

    def answer(self, asked: Asked) -> Said:
        """Answer one call."""
        if self.raw:
            return self.raw.popleft()
        if fault := self._unsigned(asked):
            return _said(400, {"Code": fault, "Message": fault, "RequestId": "r"})
        if self.failures:
            fault = self.failures.popleft()
            return _said(200, {"Code": fault, "Message": fault, "RequestId": "r"})
        given = dict(parse_qsl(urlsplit(asked.target).query, strict_parsing=True))
        if given["SignName"] != self.sign_name:
            return _said(200, {"Code": "isv.SMS_SIGNATURE_ILLEGAL", "Message": "x", "RequestId": "r"})
        if given["TemplateCode"] not in self.templates:
            return _said(200, {"Code": "isv.SMS_TEMPLATE_ILLEGAL", "Message": "x", "RequestId": "r"})
        code = json.loads(given["TemplateParam"])["code"]
        self.sent.append({"phone": given["PhoneNumbers"], "template": given["TemplateCode"], "code": code})
        return _said(200, {"Code": "OK", "Message": "OK", "BizId": "1^0", "RequestId": "r"})

    def _unsigned(self, asked: Asked) -> str:  # noqa: PLR0911  as many faults
        """Return what is wrong with a request's signature, in the gateway's words; empty if nothing is."""
        scheme, _, rest = asked.headers.get("authorization", "").partition(" ")
        parts = dict(part.split("=", 1) for part in rest.split(",") if "=" in part)
        if scheme != "ACS3-HMAC-SHA256" or set(parts) != {"Credential", "SignedHeaders", "Signature"}:
            return "IncompleteSignature"
        if parts["Credential"] != self.key_id:
            return "InvalidAccessKeyId.NotFound"
        if (asked.headers["x-acs-action"], asked.headers["x-acs-version"]) != ("SendSms", "2017-05-25"):
            return "InvalidAction.NotFound"
        at = datetime.strptime(asked.headers["x-acs-date"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        if abs((datetime.now(UTC) - at).total_seconds()) > CLOCK_SECONDS:
            return "InvalidTimeStamp.Expired"
        if asked.headers["x-acs-signature-nonce"] in self.nonces:
            return "SignatureNonceUsed"
        self.nonces.add(asked.headers["x-acs-signature-nonce"])
        must = {name for name in asked.headers if name.startswith("x-acs-")} | {"host"}
        names = parts["SignedHeaders"].split(";")
        if not must <= set(names) or names != sorted(names):
            return "IncompleteSignature"
        body = hashlib.sha256(asked.body).hexdigest()
        if asked.headers["x-acs-content-sha256"] != body:
            return "SignatureDoesNotMatch"
        url = urlsplit(asked.target)
        query = "&".join(sorted(url.query.split("&")))
        written = "".join(f"{name}:{asked.headers[name].strip()}\n" for name in names)
        canonical = "\n".join([asked.method, url.path, query, written, ";".join(names), body])
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        expected = hmac.new(self.secret.encode(), f"ACS3-HMAC-SHA256\n{hashed}".encode(), hashlib.sha256)
        return "" if hmac.compare_digest(expected.hexdigest(), parts["Signature"]) else "SignatureDoesNotMatch"


def _said(status: int, body: dict[str, Any]) -> Said:
    return Said(status=status, body=json.dumps(body).encode(), headers={"Content-Type": "application/json"})


@contextmanager
def running_aliyun() -> Iterator[AliyunDouble]:
    """Serve a double until the block ends."""
    double = AliyunDouble()
    with serving(double.answer) as url:
        double.url = url
        yield double
