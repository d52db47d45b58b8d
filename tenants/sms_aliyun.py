"""Alibaba Cloud's text messages: `SendSms` of dysmsapi, signed by ACS3-HMAC-SHA256. Knows neither rows nor people.

Sources: https://help.aliyun.com/zh/sdk/product-overview/v3-request-structure-and-signature (the signature) and
https://help.aliyun.com/zh/sms/developer-reference/api-dysmsapi-2017-05-25-sendsms (the call).
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx
import orjson

from tenants.sms_failure import SmsFailedError, SmsFailure

TIMEOUT_SECONDS: Final = 8.0
ALGORITHM: Final = "ACS3-HMAC-SHA256"
_ACTION: Final = "SendSms"
_VERSION: Final = "2017-05-25"

_NUMBER: Final = frozenset({"isv.MOBILE_NUMBER_ILLEGAL", "isv.BLACK_KEY_CONTROL_LIMIT", "isv.NOT_SUPPORTED_COUNTRY"})
_TOO_OFTEN: Final = frozenset({"isv.BUSINESS_LIMIT_CONTROL", "isv.DAY_LIMIT_CONTROL", "isv.MONTH_LIMIT_CONTROL"})
_AWAY: Final = ("isp.", "Throttling", "ServiceUnavailable", "InternalError")


class AliyunSms:
    """Sends codes by one account; threads may share it."""

    def __init__(
        self, *, url: str, access_key_id: str, access_key_secret: str, sign_name: str, templates: Mapping[str, str]
    ) -> None:
        """Take the account; `templates` is by language, "" for every other."""
        self._url = url
        self._key_id = access_key_id
        self._secret = access_key_secret
        self._sign_name = sign_name
        self._templates = templates

    def send(self, *, phone: str, code: str, language: str) -> None:
        """Send a code; raise SmsFailedError."""
        query = canonical_query(
            {
                # Of other countries: country code and number, without the plus.
                "PhoneNumbers": phone.removeprefix("+"),
                "SignName": self._sign_name,
                "TemplateCode": self._templates.get(language) or self._templates[""],
                "TemplateParam": orjson.dumps({"code": code}).decode(),
            }
        )
        headers = {
            "host": urlsplit(self._url).netloc,
            "x-acs-action": _ACTION,
            "x-acs-content-sha256": hashlib.sha256(b"").hexdigest(),
            "x-acs-date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "x-acs-signature-nonce": secrets.token_hex(16),
            "x-acs-version": _VERSION,
        }
        headers["authorization"] = authorization(
            key_id=self._key_id, secret=self._secret, method="POST", path="/", query=query, headers=headers
        )
        answer = _ask(f"{self._url}/?{query}", headers)
        said = str(answer.get("Code", ""))
        if said != "OK":
            raise SmsFailedError(_failure_of(said), said)


def _ask(url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Make the call; no failure carries httpx's own text, which would quote the URL with phone and code."""
    try:
        answer = orjson.loads(_client().post(url, headers=headers).content)
    except (httpx.HTTPError, orjson.JSONDecodeError) as failure:
        raise SmsFailedError(SmsFailure.AWAY, type(failure).__name__) from None
    if not isinstance(answer, dict):
        raise SmsFailedError(SmsFailure.AWAY, "no object")
    return answer


@lru_cache(maxsize=1)
def _client() -> httpx.Client:
    return httpx.Client(timeout=TIMEOUT_SECONDS)


def _failure_of(said: str) -> SmsFailure:
    if said in _NUMBER:
        return SmsFailure.NUMBER
    if said in _TOO_OFTEN:
        return SmsFailure.TOO_OFTEN
    return SmsFailure.AWAY if said.startswith(_AWAY) else SmsFailure.SETUP


def canonical_query(parameters: Mapping[str, str]) -> str:
    """Return parameters as they are signed, and sent: sorted, percent-encoded as RFC 3986 says."""
    pairs = sorted((quote(name, safe="~"), quote(value, safe="~")) for name, value in parameters.items())
    return "&".join(f"{name}={value}" for name, value in pairs)


def authorization(  # noqa: PLR0913  the parts of a request
    *, key_id: str, secret: str, method: str, path: str, query: str, headers: Mapping[str, str]
) -> str:
    """Return the header that signs a request; all of `headers` (lower-case names) are signed."""
    names = sorted(headers)
    signed = ";".join(names)
    written = "".join(f"{name}:{headers[name].strip()}\n" for name in names)
    request = "\n".join([method, path, query, written, signed, headers["x-acs-content-sha256"]])
    to_sign = f"{ALGORITHM}\n{hashlib.sha256(request.encode()).hexdigest()}"
    signature = hmac.new(secret.encode(), to_sign.encode(), hashlib.sha256).hexdigest()
    return f"{ALGORITHM} Credential={key_id},SignedHeaders={signed},Signature={signature}"
