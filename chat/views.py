"""The chat endpoint, `/api/chat/stream`: a raw ASGI application beside Django (docs/adr/0002).

Bytes in; who and where; then the turn, its answer, and the framing that the client asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from chat import generation, live
from chat.models import Message
from chat.request import (
    MAX_BODY_BYTES,
    ChatParameters,
    invalid,
    parse_body,
    parse_query,
    read_parameters,
    wants_mini_program,
)
from chat.streaming import Framing, Reader, Receive, Send, cors_headers, refuse, stream
from chat.threads import in_thread
from chat.turn import AlreadyAskedError, Turn, open_turn, parse_id
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.login import choose_language, token_of, user_of_token
from tenants.middleware import accept_request_id
from tenants.resolve import resolve_tenant

log = structlog.get_logger(__name__)

CHAT_PATH = "/api/chat/stream"


class ClientLeftError(Exception):
    """The client closed the connection before its request was whole."""


@dataclass(slots=True, kw_only=True)
class _Visit:
    """One request on its way in: what is known so far, for an answer or a refusal in the right form."""

    headers: Mapping[str, str] = field(repr=False)
    request_id: str
    language: str
    framing: Framing = Framing.H5

    def reader(self, offset: int = 0) -> Reader:
        """Return the reader that this request becomes."""
        return Reader(framing=self.framing, language=self.language, request_id=self.request_id, offset=offset)


async def chat_stream(asgi_scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    """Answer one request of the chat endpoint."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in asgi_scope["headers"]}
    visit = _Visit(
        headers=headers,
        request_id=accept_request_id(headers.get("x-request-id")),
        language=choose_language(headers.get("accept-language"), tenant_language=settings.LANGUAGE_CODE),
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=visit.request_id)
    if asgi_scope["method"] == "OPTIONS":
        await send({"type": "http.response.start", "status": 204, "headers": cors_headers()})
        await send({"type": "http.response.body", "body": b""})
        return
    try:
        found, offset = await _enter(visit, asgi_scope, receive)
    except ProductError as refusal:
        log.info("chat_refused", code=int(refusal.code), type=refusal.type)
        await refuse(send, visit.reader(), refusal)
    except ClientLeftError:
        log.info("client_left_before_asking")
    except Exception:
        log.exception("chat_broke")
        await refuse(send, visit.reader(), _our_fault())
    else:
        answer = generation.start(found) if isinstance(found, Turn) else live.attach(found)
        await stream(send, receive, visit.reader(offset), answer)


async def _enter(visit: _Visit, asgi_scope: Mapping[str, Any], receive: Receive) -> tuple[Turn | Message, int]:
    """Return an admitted turn, or the message whose answer is to be read, and the reader's offset in it."""
    values = parse_query(asgi_scope["query_string"])
    # The framing first: whatever else is wrong must be said in a form that the client can read.
    if wants_mini_program(values):
        visit.framing = Framing.MINI_PROGRAM
    if asgi_scope["method"] not in {"GET", "POST"}:
        raise invalid("method", _("Please use GET or POST."))
    if asgi_scope["method"] == "POST":
        values |= parse_body(await _read_body(receive), visit.headers.get("content-type", ""))
        visit.framing = Framing.MINI_PROGRAM if wants_mini_program(values) else Framing.H5
    parameters = read_parameters(values)
    found = await in_thread(lambda: _admit(visit, parameters))
    return found, parameters.offset


async def _read_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientLeftError
        body += event.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise invalid("body", _("The request is too large. Please shorten the message."))
        if not event.get("more_body", False):
            return bytes(body)


def _admit(visit: _Visit, parameters: ChatParameters) -> Turn | Message:
    """Find the tenant and the user, then open the turn or find the message. The request's one thread hop."""
    tenant = resolve_tenant(
        host=visit.headers.get("host", ""),
        app_id=parameters.app_id or None,
        referer=visit.headers.get("referer"),
    )
    accepted = visit.headers.get("accept-language")
    visit.language = choose_language(accepted, tenant_language=tenant.language)
    with scope.tenant(tenant.pk):
        user = user_of_token(tenant_id=tenant.pk, token=token_of(visit.headers, {"token": parameters.token}))
        visit.language = choose_language(accepted, tenant_language=tenant.language, user_language=user.language)
        if parameters.resume:
            return live.find_message(user_id=user.pk, message_id=parse_id(parameters.resume))
        try:
            return open_turn(tenant=tenant, user=user, ask=parameters.ask, language=visit.language)
        except AlreadyAskedError as known:
            return known.message


def _our_fault() -> ProductError:
    return ProductError(
        ErrorCode.OTHER,
        _("Something went wrong on our side. Nothing was charged; please try again."),
        type="internal",
        scope="server",
        action="retry",
    )
