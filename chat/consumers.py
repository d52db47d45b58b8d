"""The WebSocket door, `/ws/chat`: the same answers as events, for clients that see no chunks (docs/protocol.md).

One socket carries any number of requests, one after the other, and a few answers at once. A request is read only
when the one before it was admitted, and an event is sent only when the connection has taken the one before it: so
neither side can fill the other's memory.
"""

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from contextvars import Context
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
import structlog
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from chat.door import Visit, allowed_origin, enter, headers_of, our_fault, stop, visit_of
from chat.frames import Events
from chat.generation import Answer
from chat.request import MAX_BODY_BYTES, invalid, parse_query, read_parameters
from chat.streaming import READ_GAP, Reader, failure_event, tell
from chat.turn import too_many
from tenants.embedding import ANYBODY
from tenants.errors import ProductError
from tenants.resolve import host_name

log = structlog.get_logger(__name__)

SOCKET_PATH: Final = "/ws/chat"
# WeChat's own page frame, the origin of every mini-program.
WECHAT_ORIGIN: Final = "servicewechat.com"
# Answers that one socket carries at once: as many as WeChat allows requests.
MOST_ANSWERS: Final = 10
MOST_REF_CHARACTERS: Final = 64
# What a connection may say once, for all of its requests: a browser can set no header on a WebSocket.
_KEPT: Final[tuple[str, ...]] = ("token", "appid")

_TOKEN_HEADERS: Final = frozenset({"authorization", "token"})


class ChatConsumer(AsyncWebsocketConsumer):
    """One connection."""

    # No channel layer: answers come by the relay, and a socket costs Redis nothing.
    channel_layer_alias = None  # type: ignore[assignment]  # none is the alias of no layer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve the connection until it ends; the answers go on without it."""
        self._telling: set[asyncio.Task[None]] = set()
        try:
            await super().__call__(scope, receive, send)
        finally:
            for task in self._telling:
                task.cancel()

    async def connect(self) -> None:
        """Agree, unless the page is nobody's that we know: then the handshake is refused with 403."""
        self._headers = headers_of(self.scope)
        try:
            query = parse_query(self.scope["query_string"])
        except ProductError:
            query = {}
        if not _is_known_origin(self._headers) and not await self._is_welcome(str(query.get("appid", ""))):
            log.info("socket_refused", origin=self._headers.get("origin", "")[:100])
            await self.close()
            return
        self._kept = {name: query[name] for name in _KEPT if name in query}
        await self.accept()

    async def _is_welcome(self, app_id: str) -> bool:
        """Whether the tenant names the page's origin among those that may embed it."""
        allowed = await allowed_origin(visit_of(self._headers), app_id=app_id)
        return allowed not in {"", ANYBODY}

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Take one request. Whatever is wrong with it is said in an event, and the connection goes on."""
        visit = visit_of(self._headers)
        ref = ""
        try:
            values = _parse(text_data if text_data is not None else bytes_data)
            ref = _ref_of(values)
            await self._serve(visit, values, ref)
        except ProductError as refusal:
            log.info("chat_refused", code=int(refusal.code), type=refusal.type)
            await self._refuse(visit, refusal, ref)
        except OSError:
            log.info("client_left_before_answer")  # the connection broke while we wrote
        except Exception:
            log.exception("chat_broke")
            await self._refuse(visit, our_fault(), ref)

    async def _serve(self, visit: Visit, values: dict[str, Any], ref: str) -> None:
        operation = values.pop("op", "send")
        self._keep(values)
        visit.headers = self._headers
        values = {**self._kept, **values}
        match operation:
            case "ping":
                await self.send(Events(ref=ref).pong())
            case "send":
                await self._open(visit, {**values, "message_id": "", "offset": ""}, ref)
            case "resume":
                await self._open(visit, _with_message_id(values), ref)
            case "stop":
                parameters = read_parameters(_with_message_id(values))
                is_running = await stop(visit, parameters)
                await self.send(Events(message_id=parameters.resume, ref=ref).stopping(is_running=is_running))
            case _:
                raise invalid("op", _("op must be send, resume, stop or ping."))

    def _keep(self, values: Mapping[str, Any]) -> None:
        """Remember what a request says once for those after it; a newer token is the one that counts."""
        self._kept |= {name: values[name] for name in _KEPT if isinstance(values.get(name), str)}
        if isinstance(values.get("token"), str):
            self._headers = {name: value for name, value in self._headers.items() if name not in _TOKEN_HEADERS}

    async def _open(self, visit: Visit, values: Mapping[str, Any], ref: str) -> None:
        """Begin to tell an answer, in a task of its own."""
        if len(self._telling) >= MOST_ANSWERS:
            raise too_many("socket", MOST_ANSWERS)
        parameters = read_parameters(values)
        answer = await enter(visit, parameters)
        # A reader from now on, not from when the task begins: what nobody reads may be given up meanwhile.
        reading = ExitStack()
        reading.enter_context(answer.read(gap=READ_GAP))
        reader = _reader(visit, offset=parameters.offset)
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._tell(reader, answer, ref), name=f"socket-{answer.message_id}", context=Context())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
        task.add_done_callback(lambda _task: reading.close())

    async def _tell(self, reader: Reader, answer: Answer, ref: str) -> None:
        try:
            await tell(self.send, reader, answer, ref=ref)
        except OSError:
            pass  # the connection broke while we wrote: it has left, like one that said so
        except Exception:
            log.exception("socket_broke", message_id=str(answer.message_id))
            await self.close(code=1011)

    async def _refuse(self, visit: Visit, refusal: ProductError, ref: str) -> None:
        with suppress(OSError):  # it has left
            await self.send(failure_event(_reader(visit), refusal, Events(ref=ref)))


def _reader(visit: Visit, *, offset: int = 0) -> Reader:
    return Reader(language=visit.language, request_id=visit.request_id, offset=offset)


def _is_known_origin(headers: Mapping[str, str]) -> bool:
    """Whether a page of this origin may connect anywhere: our own host's, a mini-program, one that the operator names.

    Clients that are no browsers send none. Tokens are no cookies, so a foreign page could do nothing in a user's
    name; it is refused because nobody but a fraud has one.
    """
    origin = headers.get("origin", "")
    if origin in {"", "null"}:
        return origin == ""
    if "*" in settings.WEBSOCKET_ORIGINS or origin in settings.WEBSOCKET_ORIGINS:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.hostname in {host_name(headers.get("host", "")), WECHAT_ORIGIN}


def _parse(data: str | bytes | None) -> dict[str, Any]:
    """Return a request's values; raise ProductError 10001 where it is none."""
    if not data or len(data) > MAX_BODY_BYTES:
        raise invalid("body", _("The request is too large. Please shorten the message."))
    try:
        found = orjson.loads(data)
    except ValueError as fault:
        raise invalid("body", _("The request must be a JSON object.")) from fault
    if not isinstance(found, dict):
        raise invalid("body", _("The request must be a JSON object."))
    return found


def _ref_of(values: dict[str, Any]) -> str:
    """Take the client's own word for its request out of the values: it comes back with every event about it."""
    ref = values.pop("ref", "")
    if not isinstance(ref, str) or len(ref) > MOST_REF_CHARACTERS:
        raise invalid("ref", _("ref must be text of at most 64 characters."))
    return ref


def _with_message_id(values: Mapping[str, Any]) -> Mapping[str, Any]:
    if not values.get("message_id"):
        raise invalid("message_id", _("Please name the message."))
    return values
