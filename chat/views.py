"""The chat endpoint, `/api/chat/stream`: a raw ASGI application beside Django (docs/adr/0002).

Bytes in; who and where, and the one way to an answer (chat.door); then the framing that the client asked for.
"""

from collections.abc import Mapping
from typing import Any

import structlog
from django.utils.translation import gettext_lazy as _

from chat.door import ClientLeftError, allowed_origin, enter, headers_of, our_fault, read_body, visit_of
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
from tenants.errors import ProductError

log = structlog.get_logger(__name__)

CHAT_PATH = "/api/chat/stream"


async def chat_stream(asgi_scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    """Answer one request of the chat endpoint."""
    headers = headers_of(asgi_scope)
    visit = visit_of(headers, request_id=headers.get("x-request-id"))
    if asgi_scope["method"] == "OPTIONS":
        allowed = await allowed_origin(visit, app_id=_app_id_in(asgi_scope))
        await send({"type": "http.response.start", "status": 204, "headers": cors_headers(allowed)})
        await send({"type": "http.response.body", "body": b""})
        return
    reader = Reader(framing=Framing.H5, language=visit.language, request_id=visit.request_id)
    try:
        parameters = await _read(reader, headers, asgi_scope, receive)
        answer = await enter(visit, parameters)
    except ProductError as refusal:
        log.info("chat_refused", code=int(refusal.code), type=refusal.type)
        reader.language, reader.allowed = visit.language, visit.allowed
        await refuse(send, reader, refusal)
    except ClientLeftError:
        log.info("client_left_before_asking")
    except Exception:
        log.exception("chat_broke")
        await refuse(send, reader, our_fault())
    else:
        reader.language, reader.allowed, reader.offset = visit.language, visit.allowed, parameters.offset
        await stream(send, receive, reader, answer)


async def _read(
    reader: Reader, headers: Mapping[str, str], asgi_scope: Mapping[str, Any], receive: Receive
) -> ChatParameters:
    """Return the request's parameters, and set the reader's framing.

    The framing first: whatever else is wrong must be said in a form that the client can read.
    """
    values = parse_query(asgi_scope["query_string"])
    reader.framing = _framing(values)
    if asgi_scope["method"] not in {"GET", "POST"}:
        raise invalid("method", _("Please use GET or POST."))
    if asgi_scope["method"] == "POST":
        values |= parse_body(await read_body(receive, most=MAX_BODY_BYTES), headers.get("content-type", ""))
        reader.framing = _framing(values)
    return read_parameters(values)


def _app_id_in(asgi_scope: Mapping[str, Any]) -> str:
    """Return the app id of a preflight's address, "" where there is none."""
    try:
        return str(parse_query(asgi_scope["query_string"]).get("appid", ""))
    except ProductError:
        return ""


def _framing(values: Mapping[str, Any]) -> Framing:
    return Framing.MINI_PROGRAM if wants_mini_program(values) else Framing.H5
