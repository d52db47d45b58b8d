"""The chat request as it arrives: query, form or JSON, from any client, turned into checked values or a refusal."""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl

import orjson
from django.conf import settings
from django.core.files.uploadhandler import MemoryFileUploadHandler
from django.http.multipartparser import MultiPartParser, MultiPartParserError
from django.utils.translation import gettext_lazy as _

from chat import refusals
from chat.findings import parse_id
from chat.turn import MAX_QUESTION_CHARACTERS, Ask
from tenants.errors import ErrorCode, ProductError

MAX_BODY_BYTES = 1 << 20
MAX_KEY_CHARACTERS = 64

_SWITCH = {"": False, "0": False, "1": True}
_PLACES = ("parent", "regenerate", "edit")
_ASKED = ("message", "conversation", "model", "role", "client_msg_id", *_PLACES)
_TEXT_PARAMETERS = (*_ASKED, "message_id", "appid", "token")
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatParameters:
    """What the request says, apart from who says it. `resume` is a message id to attach to, in place of an ask."""

    ask: Ask
    resume: str
    offset: int
    token: str = field(repr=False)
    app_id: str


def invalid(parameter: str, message: Any, *, kind: str = "invalid_parameter") -> ProductError:
    """Return the refusal of one parameter (10001)."""
    return ProductError(ErrorCode.INVALID, message, type=kind, scope=parameter, action="correct")


def parse_query(query_string: bytes) -> dict[str, Any]:
    """Return the query's parameters; of a repeated one, the last. Bytes that are no UTF-8 are refused."""
    try:
        return dict(parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict"))
    except (UnicodeDecodeError, ValueError) as fault:
        raise invalid("query", _("The address is not valid UTF-8. Please encode it again.")) from fault


def parse_body(body: bytes, content_type: str) -> dict[str, Any]:
    """Return the body's parameters, from JSON, a form, or a multipart form."""
    if not body:
        return {}
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind == "application/x-www-form-urlencoded":
            return dict(parse_qsl(body.decode("utf-8"), keep_blank_values=True, errors="strict"))
        if kind == "multipart/form-data":
            return _parse_multipart(body, content_type)
        found = orjson.loads(body)
    except (UnicodeDecodeError, ValueError, MultiPartParserError) as fault:
        raise invalid("body", _("The request's body is neither valid JSON nor a form in UTF-8.")) from fault
    if not isinstance(found, dict):
        raise invalid("body", _("The request's body must be a JSON object."))
    return found


def _parse_multipart(body: bytes, content_type: str) -> dict[str, Any]:
    meta = {"CONTENT_TYPE": content_type, "CONTENT_LENGTH": str(len(body))}
    fields, _files = MultiPartParser(meta, BytesIO(body), [MemoryFileUploadHandler()], "utf-8").parse()
    return dict(fields.items())


def wants_mini_program(values: Mapping[str, Any]) -> bool:
    """Return whether the request asks for the mini-program framing; raise ProductError for a value that is neither."""
    value = values.get("is_wxapp")
    if isinstance(value, bool):
        return value
    text = "" if value is None else str(value)
    if text not in _SWITCH:
        raise invalid("is_wxapp", _("is_wxapp must be 0 or 1."))
    return _SWITCH[text]


def read_parameters(values: Mapping[str, Any]) -> ChatParameters:
    """Check every parameter's type, form and size; raise ProductError 10001 that names the first bad one."""
    text = {name: _text(values, name) for name in _TEXT_PARAMETERS}
    attachments = _attachments(values)
    if not text["message_id"]:
        _check_question(text, has_files=bool(attachments))
        if text["regenerate"] and attachments is not None:
            raise invalid("attachments", _("A question that is asked again keeps its files. To change them, use edit."))
    if len(text["client_msg_id"]) > MAX_KEY_CHARACTERS:
        raise invalid("client_msg_id", _("client_msg_id may have at most 64 characters."))
    asked: dict[str, Any] = {name: text[name] for name in _ASKED}
    return ChatParameters(
        ask=Ask(**asked, attachments=attachments),
        resume=text["message_id"],
        offset=_number(values, "offset"),
        token=text["token"],
        app_id=text["appid"],
    )


def _check_question(text: dict[str, str], *, has_files: bool) -> None:
    given = [name for name in _PLACES if text[name]]
    if len(given) > 1:
        raise invalid(given[1], _("Only one of parent, regenerate and edit may be given."))
    if text["regenerate"]:
        if text["message"]:
            raise invalid("message", _("A question that is asked again keeps its text. To change it, use edit."))
    elif not text["message"].strip():
        if not has_files:
            raise invalid("message", _("Please write a message first."), kind="message_missing")
        text["message"] = ""  # what is attached says it all
    if len(text["message"]) > MAX_QUESTION_CHARACTERS:
        raise invalid("message", _("The message is too long. Please shorten it or split it up."))


def _text(values: Mapping[str, Any], name: str) -> str:
    """Return a text parameter, "" if absent. A JSON number or list is a client's fault that it should hear of."""
    value = values.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise invalid(name, _("This parameter must be text."))
    # The database takes neither NUL nor half a character.
    if "\x00" in value or (not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value)):
        raise invalid(name, _("The text holds characters that cannot be stored."))
    return value


def _attachments(values: Mapping[str, Any]) -> tuple[uuid.UUID, ...] | None:
    """Return the ids of what is attached, each once: from a JSON list, or from text with commas; None: not said."""
    given = values.get("attachments")
    if isinstance(given, str):
        text = _text(values, "attachments").strip()
        if not text:
            return None
        given = _listed(text) if text.startswith("[") else text.split(",")
    elif given is None:
        return None
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise invalid("attachments", _("This parameter must be a list of ids."))
    if len(given) > settings.ATTACHMENTS_PER_MESSAGE:
        raise refusals.too_many_attachments(limit=settings.ATTACHMENTS_PER_MESSAGE)
    ids = [parse_id(each.strip()) for each in given]
    if None in ids:
        raise refusals.attachment_not_found()
    return tuple(dict.fromkeys(each for each in ids if each is not None))


def _listed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return None


def _number(values: Mapping[str, Any], name: str) -> int:
    value = values.get(name)
    if value is None or value == "":
        return 0
    if isinstance(value, bool) or not _NUMBER.fullmatch(str(value)):
        raise invalid(name, _("This parameter must be a whole number from 0."))
    return int(value)
