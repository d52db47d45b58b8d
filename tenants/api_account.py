"""The JSON API of one's own account: identities, password, sessions, the archive of everything, and leaving."""

from datetime import datetime
from typing import Annotated, Any, Literal

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone, translation
from django.utils.translation import gettext_lazy as _
from ninja import Router, Schema
from pydantic import Field

from tenants import codes, identities, personal, throttle
from tenants.api import (
    DAY_SECONDS,
    Amount,
    Envelope,
    Password,
    Text,
    address_of,
    current_tenant,
    ok,
    signed_in,
    token_in,
    user_of,
)
from tenants.api_signin import Code, SentOut, To, web_session_of
from tenants.codes import Channel, Purpose
from tenants.errors import ErrorCode, ProductError
from tenants.identities import Proof
from tenants.login import digest_of, mini_program_session, revoke_tokens
from tenants.models import AccessToken, EndUser
from tenants.wechat import client_for

router = Router(tags=["account"], auth=signed_in)

ARCHIVES_PER_DAY = 5


class ProofIn(Schema):
    """What shows that it is you: the password, or a code (`confirm`); neither after a log-in of a moment ago."""

    password: Annotated[Text, Field(max_length=128)] = ""
    proof_channel: Literal["", "phone", "email"] = ""
    proof_code: Annotated[Text, Field(max_length=12)] = ""


class IdentityOut(Schema):
    """One way in which you are known; `shown` hides most of a phone or an address."""

    id: str
    kind: Literal["phone", "email", "username", "wechat"]
    shown: str
    since: datetime | None


class IdentitiesOut(Schema):
    """What you are known by; the last of the `ways_in` cannot be taken away."""

    identities: list[IdentityOut]
    ways_in: int
    has_password: bool


class AccountCodeIn(Schema):
    """`bind`: to a phone or an address that shall be yours; `confirm`: to the one that is, `to` stays empty."""

    channel: Channel
    purpose: Literal["bind", "confirm"]
    to: Annotated[Text, Field(max_length=254)] = ""


class BindIn(ProofIn):
    """A phone or an address and the code that went there; a proof besides where it takes another's place."""

    channel: Channel
    to: To
    code: Code


class BindWeChatIn(Schema):
    """What `wx.login` gave."""

    code: Annotated[Text, Field(min_length=1, max_length=128)]
    appid: Annotated[Text, Field(max_length=32)] = ""


class NewPasswordIn(ProofIn):
    """The new password; a proof besides."""

    new_password: Password


class SessionOut(Schema):
    """A log-in: how and with what it was made, and whether it is this one."""

    id: int
    label: str
    device: str
    created_at: datetime
    expires_at: datetime
    is_current: bool


class EndedOut(Schema):
    """How many log-ins ended."""

    ended: int


class StakesOut(Schema):
    """What leaving would cost, micro-yuan and names of plans, and what has to end first: answer, order, refund."""

    cash: Amount
    gift: Amount
    plans: list[str]
    waits_for: list[str]


class DeleteIn(ProofIn):
    """A proof; `forfeit` agrees to lose what is left of balance and plans."""

    forfeit: bool = False


class DepartedOut(Schema):
    """The proof of a deletion: its number, what was erased, what was given up in micro-yuan, and our seal over it."""

    number: int
    deleted_at: datetime
    erased: dict[str, int]
    cash: Amount
    gift: Amount
    seal: str


@router.get("/identities", response=Envelope[IdentitiesOut])
def list_identities(request: HttpRequest) -> Any:
    """Return what one is known by."""
    return ok(_identities(user_of(request)))


@router.post("/identities/code", response=Envelope[SentOut])
def send_account_code(request: HttpRequest, payload: AccountCodeIn) -> Any:
    """Send a code for a change of one's account; it is of use to this account alone."""
    user = user_of(request)
    to = payload.to if payload.purpose == "bind" else getattr(user, payload.channel) or ""
    sent = codes.send_code(
        tenant=current_tenant(request),
        channel=payload.channel,
        to=to,
        purpose=payload.purpose,
        address=address_of(request),
        language=translation.get_language() or settings.LANGUAGE_CODE,
        user=user,
    )
    return ok(sent._asdict())


@router.post("/identities/bind", response=Envelope[IdentitiesOut])
def bind(request: HttpRequest, payload: BindIn) -> Any:
    """Add a phone or an address by its code, or put it in the place of the one before; never another account's."""
    user, tenant = user_of(request), current_tenant(request)
    if getattr(user, payload.channel):
        _prove(request, payload)
    target = codes.check_code(
        tenant=tenant, channel=payload.channel, to=payload.to, code=payload.code, purpose=Purpose.BIND, user=user
    )
    bound = identities.bind_address(user=user, channel=payload.channel, target=target)
    _end_a_guests_others(request, user)
    return ok(_identities(bound))


@router.post("/identities/bind/wechat", response=Envelope[IdentitiesOut])
def bind_wechat(request: HttpRequest, payload: BindWeChatIn) -> Any:
    """Add WeChat by a mini-program's `wx.login` code; never another account's."""
    user = user_of(request)
    program, session = mini_program_session(
        tenant=current_tenant(request),
        app_id=payload.appid or None,
        code=payload.code,
        client=client_for(settings.WECHAT_API_URL),
    )
    bound = identities.bind_wechat(user=user, app_id=program.app_id, session=session)
    _end_a_guests_others(request, user)
    return ok(_identities(bound))


@router.post("/identities/bind/wechat-h5", response=Envelope[IdentitiesOut])
def bind_wechat_h5(request: HttpRequest, response: HttpResponse) -> Any:
    """Add WeChat by what the browser brought from it (`/api/auth/wechat/h5/start`); never another account's."""
    user = user_of(request)
    app_id, session, _nickname = web_session_of(request, response)
    bound = identities.bind_wechat(user=user, app_id=app_id, session=session)
    _end_a_guests_others(request, user)
    return ok(_identities(bound))


@router.post("/identities/{identity_id}/unbind", response=Envelope[IdentitiesOut])
def unbind(request: HttpRequest, identity_id: str, payload: ProofIn) -> Any:
    """Take an identity away, never the last."""
    _prove(request, payload)
    return ok(_identities(identities.unbind(user=user_of(request), identity_id=identity_id)))


@router.post("/password", response=Envelope[IdentitiesOut])
def set_password(request: HttpRequest, payload: NewPasswordIn) -> Any:
    """Set or change the password; every other log-in ends."""
    identities.require_password(payload.new_password, user_of(request))
    _prove(request, payload)
    identities.set_password(user=user_of(request), password=payload.new_password, keep_token=token_in(request))
    return ok(_identities(EndUser.objects.get(pk=user_of(request).pk)))


@router.get("/sessions", response=Envelope[list[SessionOut]])
def sessions(request: HttpRequest) -> Any:
    """Return one's log-ins that are good, the latest first."""
    current = digest_of(token_in(request) or "")
    rows = list(_sessions(user_of(request)).order_by("-created_at", "-pk")[:100])
    for row in rows:
        row.is_current = row.digest == current
    return ok(rows)


@router.post("/sessions/{session_id}/revoke", response=Envelope[EndedOut])
def revoke_session(request: HttpRequest, session_id: int) -> Any:
    """End one of one's log-ins."""
    ended = _sessions(user_of(request)).filter(pk=session_id).update(revoked_at=timezone.now())
    if not ended:
        raise ProductError(ErrorCode.NOT_FOUND, _("There is no such log-in."), type="session_not_found", scope="user")
    return ok({"ended": ended})


@router.post("/sessions/revoke-others", response=Envelope[EndedOut])
def revoke_others(request: HttpRequest) -> Any:
    """End all of one's log-ins but this one."""
    return ok({"ended": revoke_tokens(user=user_of(request), but=token_in(request))})


@router.get("/account/archive", openapi_extra={"responses": {200: {"description": "OK"}}})
def archive(request: HttpRequest) -> HttpResponse:
    """Return everything that is kept of oneself as one JSON file, a few times a day."""
    user, tenant = user_of(request), current_tenant(request)
    throttle.count(what="export", who=f"{tenant.slug}:archive {user.pk}", limit=ARCHIVES_PER_DAY, seconds=DAY_SECONDS)
    name = f'attachment; filename="archive-{user.pk}-{timezone.now():%Y%m%d}.json"'
    told = personal.archive(tenant=tenant, user=user)
    return JsonResponse(told, json_dumps_params={"ensure_ascii": False}, headers={"Content-Disposition": name})


@router.get("/account/deletion", response=Envelope[StakesOut])
def deletion(request: HttpRequest) -> Any:
    """Say what leaving would cost, and what stands in its way."""
    return ok(personal.stakes(user_of(request)))


@router.post("/account/delete", response=Envelope[DepartedOut])
def delete(request: HttpRequest, payload: DeleteIn) -> Any:
    """Delete one's account for good: the person is erased, the ledger's rows stay, of nobody. Gives the proof."""
    _prove(request, payload)
    return ok(personal.delete(tenant=current_tenant(request), user=user_of(request), forfeits=payload.forfeit))


def _prove(request: HttpRequest, payload: ProofIn) -> None:
    logged_in_at = AccessToken.objects.values_list("created_at", flat=True).get(
        tenant_id=current_tenant(request).pk, digest=digest_of(token_in(request) or "")
    )
    proof = Proof(password=payload.password, channel=payload.proof_channel, code=payload.proof_code)
    identities.prove(tenant=current_tenant(request), user=user_of(request), logged_in_at=logged_in_at, proof=proof)


def _end_a_guests_others(request: HttpRequest, before: EndUser) -> None:
    """Let nobody else in who held a token of the guest that is a person now."""
    if before.is_guest:
        revoke_tokens(user=before, but=token_in(request))


def _identities(user: EndUser) -> dict[str, Any]:
    return {
        "identities": identities.identities_of(user),
        "ways_in": identities.ways_in(user),
        "has_password": bool(user.password),
    }


def _sessions(user: EndUser) -> Any:
    return AccessToken.objects.filter(user=user, revoked_at=None, expires_at__gt=timezone.now())
