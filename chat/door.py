"""What every door of the chat does once it has read a request: who and where, then the one way to an answer.

Visit         one request on its way in
enter()       the answer that it asks for, or comes back to; or a refusal
enter_call()  the same for a program that comes by an API key
stop()        the end of an answer, asked for at a door
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from django.conf import settings
from django.db import DatabaseError
from django.utils.translation import gettext_lazy as _

from chat import generation, keys, live, refusals, replies
from chat.call import Wanted, sign
from chat.findings import Findings, find, parse_id
from chat.generation import Answer
from chat.models import ApiKey, Message, ModelOffer
from chat.request import ChatParameters, invalid
from chat.threads import in_thread
from chat.turn import AlreadyAskedError, Ask, Turn, find_message, offers_on_sale, open_turn
from tenants import embedding, scope, throttle
from tenants.errors import ErrorCode, ProductError
from tenants.login import choose_language, token_of, user_of_token, user_query
from tenants.middleware import accept_request_id
from tenants.models import EndUser, Tenant
from tenants.resolve import resolve_tenant

log = structlog.get_logger(__name__)

MINUTE_SECONDS = 60
# What the limit on calls in a minute is counted, and refused, as.
API_CALLS = "api_calls"


class ClientLeftError(Exception):
    """The client closed the connection before its request was whole."""


@dataclass(slots=True, kw_only=True)
class Visit:
    """One request on its way in: what is known so far, for an answer or a refusal in the right form."""

    headers: Mapping[str, str] = field(repr=False)
    request_id: str
    language: str
    # How many calls its API key has left in this minute, once that is counted.
    rate: throttle.Counted | None = None
    # Whose pages may read the answer, once the tenant is known.
    allowed: str = embedding.ANYBODY


async def read_body(receive: Callable[[], Awaitable[Mapping[str, Any]]], *, most: int) -> bytes:
    """Return a request's body; raise ProductError 10001 beyond `most` bytes, and ClientLeftError."""
    body = bytearray()
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientLeftError
        body += event.get("body", b"")
        if len(body) > most:
            raise invalid("body", _("The request is too large. Please shorten the message."))
        if not event.get("more_body", False):
            return bytes(body)


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


async def enter_call(visit: Visit, *, secret: str, wanted: Wanted) -> Answer:
    """Return the answer to a program's call, by the request's one thread hop; raise ProductError.

    A call that was made before, under the same idempotency key or, as the program's library says, without one, gets the
    answer of the first, running or kept, and is not charged again.
    """
    with generation.room() as is_room:
        found = await in_thread(lambda: _admit_call(visit, secret, wanted, is_full=not is_room))
        if isinstance(found, Turn):
            return live.begin(found)
    known = await replies.attach(found)
    if known is not None:
        return known
    if wanted.idempotency_key:
        raise replies.not_kept()
    # Its first answer was read to the end: this is a new question after all.
    return await enter_call(visit, secret=secret, wanted=replace(wanted, call=replace(wanted.call, is_retry=False)))


async def models_for(visit: Visit, *, secret: str) -> tuple[Tenant, Sequence[ModelOffer]]:
    """Return the models that an API key may call, by slug, and whose they are; raise ProductError."""

    def look() -> tuple[Tenant, Sequence[ModelOffer]]:
        tenant = _tenant_of(visit)
        with scope.tenant(tenant.pk):
            key = _key_of(visit, secret, tenant)
            return tenant, [offer for offer in offers_on_sale().order_by("slug") if key.allows(offer.slug)]

    return await in_thread(look)


async def stop(visit: Visit, parameters: ChatParameters) -> bool:
    """Stop the answer that `parameters.resume` names; False where it has ended. Raises ProductError."""

    def look_and_stop() -> bool:
        tenant = _tenant_of(visit, app_id=parameters.app_id)
        with scope.tenant(tenant.pk):
            user = _user_of(visit, parameters, tenant)
            return live.stop(find_message(user_id=user.pk, message_id=parse_id(parameters.resume)))

    return await in_thread(look_and_stop)


async def allowed_origin(visit: Visit, *, app_id: str) -> str:
    """Return whose page may read the answers of the tenant that a request is for; anybody's where there is none.

    "" where nobody can say so now.
    """

    def look() -> str:
        with suppress(ProductError):
            _tenant_of(visit, app_id=app_id)
        return visit.allowed

    try:
        return await in_thread(look)
    except DatabaseError:
        log.warning("origin_unchecked", exc_info=True)
        return ""


def _admit(visit: Visit, parameters: ChatParameters, *, is_full: bool) -> Turn | Message:
    """Find the tenant and the user, then open the turn or find the message."""
    tenant, ask = _tenant_of(visit, app_id=parameters.app_id), parameters.ask
    with scope.tenant(tenant.pk):
        if parameters.resume:
            user = _user_of(visit, parameters, tenant)
            return find_message(user_id=user.pk, message_id=parse_id(parameters.resume))
        findings: Findings | None = None
        if ask.names_a_message:
            user = _user_of(visit, parameters, tenant)
        else:
            person = user_query(tenant_id=tenant.pk, token=_token_of(visit, parameters))
            findings, [user] = find(ask.place, person, tenant_id=tenant.pk)
            _speak(visit, tenant, user)
        try:
            return open_turn(
                tenant=tenant, user=user, ask=ask, language=visit.language, is_full=is_full, findings=findings
            )
        except AlreadyAskedError as known:
            return known.message


def _admit_call(visit: Visit, secret: str, wanted: Wanted, *, is_full: bool) -> Turn | Message:
    """Find the tenant and the key, then open the turn or find the call that was made before."""
    tenant = _tenant_of(visit)
    with scope.tenant(tenant.pk):
        key = _key_of(visit, secret, tenant)
        if not key.allows(wanted.model):
            raise refusals.model_not_found()
        call = replace(wanted.call, key_id=key.pk, digest=sign(wanted.call.digest, key_id=key.pk))
        idempotency_key = sign(wanted.idempotency_key, key_id=key.pk) if wanted.idempotency_key else ""
        ask = Ask(model=wanted.model, client_msg_id=idempotency_key, call=call)
        try:
            return open_turn(tenant=tenant, user=key.user, ask=ask, language=visit.language, is_full=is_full)
        except AlreadyAskedError as known:
            return known.message


def _key_of(visit: Visit, secret: str, tenant: Tenant) -> ApiKey:
    """Return the API key that came with a request, count the request, and speak the user's language from now on."""
    key = keys.key_of(tenant_id=tenant.pk, secret=secret)
    _speak(visit, tenant, key.user)
    if settings.API_CALLS_PER_MINUTE:
        visit.rate = throttle.count(
            what=API_CALLS,
            who=f"{tenant.slug}:{key.pk}",
            limit=settings.API_CALLS_PER_MINUTE,
            seconds=MINUTE_SECONDS,
        )
    return key


def _tenant_of(visit: Visit, *, app_id: str = "") -> Tenant:
    """Return the tenant that a request is for, and speak its language or the reader's from now on."""
    tenant = resolve_tenant(
        host=visit.headers.get("host", ""),
        app_id=app_id or None,
        referer=visit.headers.get("referer"),
    )
    visit.language = choose_language(visit.headers.get("accept-language"), tenant_language=tenant.language)
    visit.allowed = embedding.allowed_origin(
        tenant=tenant, origin=visit.headers.get("origin", ""), host=visit.headers.get("host", "")
    )
    return tenant


def _user_of(visit: Visit, parameters: ChatParameters, tenant: Tenant) -> EndUser:
    """Return the user whose token came with a request, and speak the user's language from now on."""
    user = user_of_token(tenant_id=tenant.pk, token=_token_of(visit, parameters))
    _speak(visit, tenant, user)
    return user


def _token_of(visit: Visit, parameters: ChatParameters) -> str | None:
    return token_of(visit.headers, {"token": parameters.token})


def _speak(visit: Visit, tenant: Tenant, user: EndUser) -> None:
    accepted = visit.headers.get("accept-language")
    visit.language = choose_language(accepted, tenant_language=tenant.language, user_language=user.language)


def our_fault() -> ProductError:
    """0: something of ours broke before the turn was admitted."""
    return ProductError(
        ErrorCode.OTHER,
        _("Something went wrong on our side. Nothing was charged; please try again."),
        type="internal",
        scope="server",
        action="retry",
    )
