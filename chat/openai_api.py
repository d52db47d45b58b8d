"""The OpenAI-compatible API, `/v1/…`: a raw ASGI application beside Django, as the chat endpoint is (docs/adr/0002).

Bytes in; who and where, and the one way to an answer (chat.door); OpenAI's own JSON and events out (chat.completions).
Its refusals have OpenAI's bodies and statuses, so that OpenAI's libraries raise what their users expect.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

import structlog
from django.conf import settings
from django.utils import translation
from django.utils.translation import gettext_lazy as _

from chat import completions, keys, refusals, replies
from chat.call import Wanted, read_call
from chat.completions import Heading, Joined, choice_of
from chat.door import (
    API_CALLS,
    ClientLeftError,
    Visit,
    enter_call,
    headers_of,
    models_for,
    our_fault,
    read_body,
    visit_of,
)
from chat.generation import Answer
from chat.request import invalid
from chat.streaming import MOST_CHUNKS, PING_AFTER, Receive, Send, attend
from chat.turn import Ending
from tenants.errors import ErrorCode, ProductError
from tenants.login import token_of

log = structlog.get_logger(__name__)

API_PREFIX: Final = "/v1/"
COMPLETIONS_PATH: Final = "/v1/chat/completions"
MODELS_PATH: Final = "/v1/models"

MAX_KEY_CHARACTERS: Final = 255
# Why an answer ended that its upstream did not end: to a program it is one that is not whole.
NOT_WHOLE: Final = "length"

_CORS: Final = {
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "x-request-id, retry-after, x-should-retry, x-ratelimit-limit-requests, "
    "x-ratelimit-remaining-requests, x-ratelimit-reset-requests",
}


async def openai_api(asgi_scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    """Answer one request below `/v1/`."""
    headers = headers_of(asgi_scope)
    visit = visit_of(headers, request_id=headers.get("x-request-id"))
    door = _Door(visit, send)
    try:
        await _route(door, asgi_scope["method"], asgi_scope["path"], receive)
    except ProductError as refusal:
        await door.refuse(refusal)
    except ClientLeftError:
        log.info("client_left_before_asking")
    except Exception:
        log.exception("api_broke")
        if not door.has_begun:
            await door.refuse(our_fault())


async def _route(door: "_Door", method: str, path: str, receive: Receive) -> None:
    if method == "OPTIONS":
        await door.allow()
    elif (method, path) == ("POST", COMPLETIONS_PATH):
        await _complete(door, receive)
    elif (method, path) == ("GET", MODELS_PATH):
        await door.answer({"object": "list", "data": await _models(door.visit)})
    elif method == "GET" and path.startswith(f"{MODELS_PATH}/"):
        slug = path.removeprefix(f"{MODELS_PATH}/")
        found = [model for model in await _models(door.visit) if model["id"] == slug]
        if not found:
            raise refusals.model_not_found()
        await door.answer(found[0])
    else:
        raise ProductError(ErrorCode.NOT_FOUND, _("There is nothing at this address."), type="no_such_path")


class _Door:
    """One request's way out: its head once, with what every answer says, then its body."""

    def __init__(self, visit: Visit, send: Send) -> None:
        self.visit = visit
        self.has_begun = False
        self.send = send

    async def begin(self, status: int, headers: Mapping[str, str], *, send: Send | None = None) -> None:
        """Send the head."""
        self.has_begun = True
        rate = self.visit.rate
        known = completions.rate_headers(**rate._asdict()) if rate else {}
        told = {"x-request-id": self.visit.request_id, "cache-control": "no-store", **_CORS, **known, **headers}
        pairs = [(name.encode(), value.encode()) for name, value in told.items()]
        await (send or self.send)({"type": "http.response.start", "status": status, "headers": pairs})

    async def answer(
        self, value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None, send: Send | None = None
    ) -> None:
        """Send a whole answer in JSON."""
        await self.begin(status, {"content-type": "application/json", **(headers or {})}, send=send)
        await (send or self.send)({"type": "http.response.body", "body": completions.dump(value)})

    async def refuse(self, failure: ProductError, *, is_charged: bool = False, send: Send | None = None) -> None:
        """Send a refusal, in OpenAI's form."""
        status, word = completions.status_of(failure)
        log.info("api_refused", code=int(failure.code), type=failure.type, status=status, word=word)
        headers = completions.patience_headers(failure, is_charged=is_charged)
        if failure.scope == API_CALLS and failure.reset_at is not None:
            facts = failure.facts
            headers |= completions.rate_headers(used=facts["used"], limit=facts["limit"], reset_at=failure.reset_at)
        await self.answer(self.error_body(failure), status=status, headers=headers, send=send)

    def error_body(self, failure: ProductError) -> dict[str, Any]:
        """Return a refusal's body, in the visitor's language."""
        with translation.override(self.visit.language):
            return completions.error_body(failure, self.visit.request_id)

    async def allow(self) -> None:
        """Answer a browser's preflight: the libraries send headers of their own, more with each version."""
        asked = self.visit.headers.get("access-control-request-headers", "authorization, content-type")
        await self.begin(
            204,
            {
                "access-control-allow-methods": "GET, POST, OPTIONS",
                "access-control-allow-headers": asked,
                "access-control-max-age": "86400",
            },
        )
        await self.send({"type": "http.response.body", "body": b""})


def _secret_of(visit: Visit) -> str:
    """Return the API key that came with a request, of the right shape at least; raise ProductError LOGIN."""
    secret = token_of(visit.headers, {}) or ""
    if not keys.looks_like_key(secret):
        raise refusals.api_key_invalid()
    return secret


async def _models(visit: Visit) -> list[dict[str, Any]]:
    tenant, offers = await models_for(visit, secret=_secret_of(visit))
    created = int(tenant.created_at.timestamp())
    return [completions.model_object(offer.slug, created=created, owner=tenant.slug) for offer in offers]


async def _complete(door: _Door, receive: Receive) -> None:
    headers = door.visit.headers
    secret = _secret_of(door.visit)
    tries = headers.get("x-stainless-retry-count", "")
    idempotency_key = headers.get("idempotency-key", "")
    if len(idempotency_key) > MAX_KEY_CHARACTERS:
        raise invalid("idempotency_key", _("An idempotency key has at most 255 characters."))
    body = await read_body(receive, most=settings.API_BODY_BYTES)
    wanted = read_call(body, idempotency_key=idempotency_key, is_retry=tries.isdigit() and int(tries) > 0)
    answer = await enter_call(door.visit, secret=secret, wanted=wanted)
    speaker = _Speaker(door, answer, wanted)
    with answer.read():
        is_done = await attend(door.send, receive, answer, speaker.stream if wanted.stream else speaker.say_whole)
    # Of a program that has asked before nobody knows whether it was still there for the last word.
    if idempotency_key or (tries and not is_done) or wanted.call.is_retry:
        replies.keep_when_done(answer)


class _Speaker:
    """An answer, said to a program: its choices one by one, or joined."""

    def __init__(self, door: _Door, answer: Answer, wanted: Wanted) -> None:
        self._door = door
        self._answer = answer
        self._heading = Heading(
            message_id=str(answer.message_id),
            model=answer.model,
            created=int(time.time()),
            include_usage=wanted.include_usage,
        )
        self._seen = 0
        self._is_finished = False

    def _take(self) -> list[dict[str, Any]]:
        """Return the choices that are new, a bounded number of them."""
        chunks = self._answer.chunks[self._seen : self._seen + MOST_CHUNKS]
        texts = self._answer.texts[self._seen : self._seen + MOST_CHUNKS]
        is_first, self._seen = self._seen == 0, self._seen + len(chunks)
        found = [choice_of(raw, text) for raw, text in zip(chunks, texts, strict=True)]
        choices = [choice for choice in found if choice is not None]
        if is_first and choices:
            choices[0]["delta"].setdefault("role", "assistant")
        self._is_finished = self._is_finished or any(choice["finish_reason"] for choice in choices)
        return choices

    async def stream(self, send: Send) -> None:
        """Send the answer as it grows.

        The head waits for the first output, for a while: what is refused until then has a status of its own.
        """
        answer = self._answer
        await answer.grown(0, within=PING_AFTER)
        if answer.ending is not None and answer.ending.failure is not None and answer.ending.receipt is None:
            await self._door.refuse(answer.ending.failure, send=send)
            return
        await self._door.begin(
            200,
            {
                "content-type": "text/event-stream; charset=utf-8",
                "cache-control": "no-cache, no-transform",
                "x-accel-buffering": "no",
            },
            send=send,
        )
        while True:
            if choices := self._take():
                await send(_body(b"".join(self._heading.chunk(choice) for choice in choices)))
            elif self._seen < len(answer.chunks):
                continue
            elif answer.ending is not None:
                break
            elif not await answer.grown(self._seen, within=PING_AFTER):
                await send(_body(completions.PING))
        await send(_body(self._tail(answer.ending)))
        await send(_body(b"", more=False))

    def _tail(self, ending: Ending) -> bytes:
        if ending.failure is not None:
            return b"data: %b\n\n" % completions.dump(self._door.error_body(ending.failure))
        tail = b""
        if not self._is_finished:
            last = {"index": 0, "delta": {}, "finish_reason": ending.finish_reason or NOT_WHOLE}
            tail += self._heading.chunk(last)
        if self._heading.include_usage and ending.receipt is not None:
            tail += self._heading.chunk(None, completions.usage_of(ending.receipt))
        return tail + completions.DONE

    async def say_whole(self, send: Send) -> None:
        """Wait for the end, then send the answer in one piece.

        One that its upstream broke off was paid for, so it is given, as one that is not whole.
        """
        answer, joined = self._answer, Joined()
        finish_reason = ""
        while answer.ending is None or self._seen < len(answer.chunks):
            for choice in self._take():
                joined.add(choice)
                finish_reason = choice["finish_reason"] or finish_reason
            if self._seen == len(answer.chunks):
                await answer.grown(self._seen, within=PING_AFTER)
        ending = answer.ending
        is_charged = ending.receipt is not None
        if ending.receipt is None or (ending.failure is not None and ending.failure.code is not ErrorCode.OTHER):
            await self._door.refuse(ending.failure or our_fault(), is_charged=is_charged, send=send)
            return
        if ending.failure is not None:
            finish_reason = NOT_WHOLE
        finish_reason = finish_reason or ending.finish_reason or NOT_WHOLE
        usage = completions.usage_of(ending.receipt)
        await self._door.answer(self._heading.whole(joined, finish_reason=finish_reason, usage=usage), send=send)


def _body(data: bytes, *, more: bool = True) -> Mapping[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}
