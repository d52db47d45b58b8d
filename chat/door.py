"""What every door of the chat does once it has read a request: who and where, then the one way to an answer.

Visit       one request on its way in
enter()     the answer that it asks for, or comes back to; or a refusal
stop()      the end of an answer, asked for at a door
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from chat import generation, live
from chat.generation import Answer
from chat.models import Message
from chat.request import ChatParameters
from chat.threads import in_thread
from chat.turn import AlreadyAskedError, Turn, find_message, open_turn, parse_id
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.login import choose_language, token_of, user_of_token
from tenants.middleware import accept_request_id
from tenants.models import EndUser, Tenant
from tenants.resolve import resolve_tenant


@dataclass(slots=True, kw_only=True)
class Visit:
    """One request on its way in: what is known so far, for an answer or a refusal in the right form."""

    headers: Mapping[str, str] = field(repr=False)
    request_id: str
    language: str


def headers_of(asgi_scope: Mapping[str, object]) -> dict[str, str]:
    """Return a connection's headers by lower-case name; of a repeated one, the last."""
    pairs: list[tuple[bytes, bytes]] = asgi_scope["headers"]  # type: ignore[assignment]  # as ASGI has it
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}


def visit_of(headers: Mapping[str, str], *, request_id: str | None = None) -> Visit:
    """Return the visit of a request that came with `headers`, and bind its id to the log's lines."""
    visit = Visit(
        headers=headers,
        request_id=accept_request_id(request_id),
        language=choose_language(headers.get("accept-language"), tenant_language=settings.LANGUAGE_CODE),
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=visit.request_id)
    return visit


async def enter(visit: Visit, parameters: ChatParameters) -> Answer:
    """Return the answer that a request asks for, by the request's one thread hop; raise ProductError.

    It grows, or is whole, and is generated whether or not somebody reads it.
    """
    with generation.room() as is_room:
        found = await in_thread(lambda: _admit(visit, parameters, is_full=not is_room))
        return live.begin(found) if isinstance(found, Turn) else live.attach(found)


async def stop(visit: Visit, parameters: ChatParameters) -> bool:
    """Stop the answer that `parameters.resume` names; False where it has ended. Raises ProductError."""

    def look_and_stop() -> bool:
        tenant = _tenant_of(visit, parameters)
        with scope.tenant(tenant.pk):
            user = _user_of(visit, parameters, tenant)
            return live.stop(find_message(user_id=user.pk, message_id=parse_id(parameters.resume)))

    return await in_thread(look_and_stop)


def _admit(visit: Visit, parameters: ChatParameters, *, is_full: bool) -> Turn | Message:
    """Find the tenant and the user, then open the turn or find the message."""
    tenant = _tenant_of(visit, parameters)
    with scope.tenant(tenant.pk):
        user = _user_of(visit, parameters, tenant)
        if parameters.resume:
            return find_message(user_id=user.pk, message_id=parse_id(parameters.resume))
        try:
            return open_turn(tenant=tenant, user=user, ask=parameters.ask, language=visit.language, is_full=is_full)
        except AlreadyAskedError as known:
            return known.message


def _tenant_of(visit: Visit, parameters: ChatParameters) -> Tenant:
    """Return the tenant that a request is for, and speak its language or the reader's from now on."""
    tenant = resolve_tenant(
        host=visit.headers.get("host", ""),
        app_id=parameters.app_id or None,
        referer=visit.headers.get("referer"),
    )
    visit.language = choose_language(visit.headers.get("accept-language"), tenant_language=tenant.language)
    return tenant


def _user_of(visit: Visit, parameters: ChatParameters, tenant: Tenant) -> EndUser:
    """Return the user whose token came with a request, and speak the user's language from now on."""
    user = user_of_token(tenant_id=tenant.pk, token=token_of(visit.headers, {"token": parameters.token}))
    accepted = visit.headers.get("accept-language")
    visit.language = choose_language(accepted, tenant_language=tenant.language, user_language=user.language)
    return user


def our_fault() -> ProductError:
    """0: something of ours broke before the turn was admitted."""
    return ProductError(
        ErrorCode.OTHER,
        _("Something went wrong on our side. Nothing was charged; please try again."),
        type="internal",
        scope="server",
        action="retry",
    )
