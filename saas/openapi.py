"""The OpenAPI document: served at /api/openapi.json, and kept as docs/openapi.json (`make openapi`).

django-ninja describes the JSON API; added here is what it cannot know: the chat endpoint, which does not pass through
Django, the three places that a token may stand in, and the one object that every refusal is.
"""

import json
from typing import Any, Final

from django.http import HttpRequest, JsonResponse

from chat.views import CHAT_PATH
from tenants.api import api
from tenants.errors import HTTP_STATUS, ErrorCode

_SCHEMES: Final[dict[str, Any]] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "token"},
    "parameter": {"type": "apiKey", "in": "query", "name": "token"},
}
_SIGNED_IN: Final[list[dict[str, list[str]]]] = [{name: []} for name in _SCHEMES]

_REFUSAL: Final[dict[str, Any]] = {
    "title": "Refusal",
    "type": "object",
    "description": "What every refusal looks like, in JSON, in frames and in events: docs/errors.md lists the types.",
    "required": ["code", "msg", "type", "scope", "action", "reset_at", "request_id"],
    "properties": {
        "code": {"type": "integer", "enum": sorted(int(code) for code in ErrorCode)},
        "msg": {"type": "string", "description": "For the person, in the person's language."},
        "type": {"type": "string"},
        "scope": {"type": "string"},
        "action": {"type": "string"},
        "reset_at": {"type": ["string", "null"], "format": "date-time"},
        "request_id": {"type": "string"},
    },
    "additionalProperties": True,
}

_TEXT: Final = {"type": "string"}
_CHAT_PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "message": {**_TEXT, "description": "The user's text; may be empty where something is attached."},
    "conversation": {**_TEXT, "description": "Its id; absent: a new one."},
    "model": {**_TEXT, "description": "Slug of a model offer; absent: the tenant's default."},
    "role": {**_TEXT, "description": "Slug of an assistant role; absent: the tenant's default."},
    "client_msg_id": {**_TEXT, "maxLength": 64, "description": "Idempotency key, unique for the user."},
    "message_id": {**_TEXT, "format": "uuid", "description": "Attach to this answer, running or ended."},
    "offset": {"type": "integer", "minimum": 0, "description": "Characters of it that are known."},
    "is_wxapp": {"type": "string", "enum": ["0", "1"], "description": "1: the mini-program's framing."},
    "appid": {**_TEXT, "description": "The mini-program's app id, where the host does not name the tenant."},
}


def document() -> dict[str, Any]:
    """Return the whole document, as JSON's types."""
    made: dict[str, Any] = json.loads(json.dumps(api.get_openapi_schema(path_prefix="/api/")))
    made["info"]["description"] = "A tenant's API, on each of the tenant's hosts. docs/api.md says more of each path."
    components = made.setdefault("components", {})
    components["securitySchemes"] = _SCHEMES
    components.setdefault("schemas", {})["Refusal"] = _REFUSAL
    signed_in = _signed_in()
    for operations in made["paths"].values():
        for operation in operations.values():
            operation["responses"] |= _refusals()
            if operation["operationId"] in signed_in:
                operation["security"] = _SIGNED_IN
    made["paths"][CHAT_PATH] = _chat()
    made["paths"] = dict(sorted(made["paths"].items()))
    return made


def as_text() -> str:
    """Return the document as docs/openapi.json holds it."""
    return json.dumps(document(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def openapi(_request: HttpRequest) -> JsonResponse:
    """Serve the document, to anybody: it holds nothing of a tenant."""
    return JsonResponse(document())


def _signed_in() -> set[str]:
    """Return the operations that ask for a token."""
    return {
        str(operation.operation_id or api.get_openapi_operation_id(operation))
        for router in api._get_bound_routers()  # noqa: SLF001  # ninja has no public way to them
        for view in router.path_operations.values()
        for operation in view.operations
        if operation.auth_callbacks
    }


def _refusals() -> dict[str, Any]:
    told = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
    statuses = sorted(set(HTTP_STATUS.values()))
    return {"default": {"description": f"A refusal; its status is one of {statuses}.", "content": told}}


def _chat() -> dict[str, Any]:
    stream = {"text/event-stream": {"schema": {"type": "string"}}}
    description = "Ask, or attach to an answer. The status is 200 for refusals too: docs/protocol.md."
    answers = {"200": {"description": "Frames or events, as `is_wxapp` says.", "content": stream}}
    shared = {"summary": "Chat", "description": description, "tags": ["chat"], "security": _SIGNED_IN}
    parameters = [{"in": "query", "name": name, "schema": schema} for name, schema in _CHAT_PARAMETERS.items()]
    body = {"schema": {"type": "object", "properties": _CHAT_PARAMETERS}}
    content = {"application/json": body, "application/x-www-form-urlencoded": body}
    return {
        "get": {**shared, "operationId": "chat_stream_get", "parameters": parameters, "responses": answers},
        "post": {
            **shared,
            "operationId": "chat_stream_post",
            "requestBody": {"content": content},
            "responses": answers,
        },
    }
