"""The JSON API of rewards: signing in, inviting, advertisements."""

from datetime import datetime
from typing import Annotated, Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from ninja import Router, Schema
from pydantic import Field

from billing import bonuses, rewards
from billing.origins import Origin, origin_of
from tenants import mini_codes, throttle
from tenants.api import Amount, Envelope, Text, address_of, current_tenant, ok, signed_in, user_of
from tenants.login import find_program
from tenants.models import EndUser
from tenants.wechat import client_for

router = Router(tags=["rewards"], auth=signed_in)

# Codes tried by a user in an hour, ten times that from an address; looks at one's invitations, and pictures of one's
# code; tickets and claims.
INVITATIONS_PER_HOUR = 10
LOOKS_PER_HOUR = 240
PICTURES_PER_HOUR = 60
TICKETS_PER_HOUR = 60
HOUR = 60 * 60

DeviceId = Annotated[Text, Field(max_length=128)]
AppId = Annotated[Text, Field(max_length=32)]
_PICTURE: dict[str, Any] = {
    "responses": {
        200: {
            "description": "OK",
            "content": {
                kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/jpeg", "image/png")
            },
        }
    }
}


class SignInIn(Schema):
    """The device's id as the client keeps it, if it does."""

    device_id: DeviceId = ""


class SignInOut(Schema):
    """How one's sign-ins stand; amounts in micro-yuan. `amount` is today's, `coming` the days' after it."""

    done: bool
    streak: int
    amount: Amount
    coming: list[Amount]
    reset_at: datetime


class InvitedOut(Schema):
    """Someone whom one has brought, by nickname only."""

    nickname: str
    standing: rewards.Standing
    invited_at: datetime


class InvitationOut(Schema):
    """One's own code and link, what an invitation brings, and whom one has brought; amounts in micro-yuan."""

    code: str
    link: str
    inviter_amount: Amount
    invitee_amount: Amount
    invited: int
    waiting: int
    rewarded: int
    earned: Amount
    owed: Amount
    people: list[InvitedOut]


class AcceptIn(Schema):
    """An invitation code or link, and the device's id."""

    code: Annotated[Text, Field(min_length=1, max_length=300)]
    device_id: DeviceId = ""


class AcceptedOut(Schema):
    """Who has invited one."""

    inviter: str


class TicketOut(Schema):
    """A ticket, and when it can be redeemed; micro-yuan."""

    ticket: str
    amount: Amount
    ready_at: datetime
    expires_at: datetime


class TicketIn(Schema):
    """A ticket as it was issued."""

    ticket: Annotated[Text, Field(min_length=1, max_length=200)]


class RewardOut(Schema):
    """What a ticket brought, micro-yuan."""

    credited: Amount


def _count(request: HttpRequest, what: str, limit: int) -> None:
    who = f"{current_tenant(request).slug}:{user_of(request).pk}"
    throttle.count(what=what, who=who, limit=limit, seconds=HOUR)


def _origin(request: HttpRequest, user: EndUser, device_id: str) -> Origin:
    return origin_of(tenant_id=user.tenant_id, device_id=device_id, address=address_of(request))


@router.get("/sign-in", response=Envelope[SignInOut])
def sign_in_state(request: HttpRequest) -> Any:
    """Return today's bonus and the next days'."""
    return ok(bonuses.sign_in_state(user=user_of(request))._asdict())


@router.post("/sign-in", response=Envelope[SignInOut])
def sign_in(request: HttpRequest, payload: SignInIn) -> Any:
    """Take today's bonus."""
    user = user_of(request)
    state = bonuses.sign_in(user=user)
    rewards.remember(user=user, origin=_origin(request, user, payload.device_id))
    return ok(state._asdict())


@router.get("/invitation", response=Envelope[InvitationOut])
def invitation(request: HttpRequest, device_id: DeviceId = "") -> Any:
    """Return one's own code and whom it has brought."""
    user = user_of(request)
    _count(request, "invitation_look", LOOKS_PER_HOUR)
    rules = rewards.rules_of(tenant_id=user.tenant_id)
    if not rules.offers_invitations:
        raise rewards.not_offered()
    code = rewards.code_of(user=user)
    rewards.remember(user=user, origin=_origin(request, user, device_id))
    seen = rewards.overview(user=user)
    return ok(
        {
            **seen._asdict(),
            "code": code,
            "link": request.build_absolute_uri(reverse("invitation_link", args=[code])),
            "inviter_amount": rules.inviter_amount,
            "invitee_amount": rules.invitee_amount,
            "people": [
                {
                    "nickname": person.invitation.invitee.nickname,
                    "standing": person.standing,
                    "invited_at": person.invitation.created_at,
                }
                for person in seen.people
            ],
        }
    )


@router.get("/invitation/mini-program-code", openapi_extra=_PICTURE)
def invitation_picture(request: HttpRequest, appid: AppId = "") -> HttpResponse:
    """Return the mini-program's own code, as WeChat draws it: whoever scans it comes with one's invitation."""
    user = user_of(request)
    _count(request, "invitation_picture", PICTURES_PER_HOUR)
    if not rewards.rules_of(tenant_id=user.tenant_id).offers_invitations:
        raise rewards.not_offered()
    program = find_program(tenant=current_tenant(request), app_id=appid or None)
    code = rewards.code_of(user=user)
    picture = mini_codes.picture_of(program, client_for(settings.WECHAT_API_URL), scene=code)
    response = HttpResponse(picture, content_type="image/png" if picture.startswith(b"\x89") else "image/jpeg")
    response["X-Content-Type-Options"] = "nosniff"
    response["Cache-Control"] = "private, no-store"
    return response


@router.post("/invitation/accept", response=Envelope[AcceptedOut])
def accept(request: HttpRequest, payload: AcceptIn) -> Any:
    """Say who has invited one, right after signing up."""
    user = user_of(request)
    _count(request, "invitation", INVITATIONS_PER_HOUR)
    who = f"{current_tenant(request).slug}:{address_of(request)}"
    throttle.count(what="invitation", who=who, limit=INVITATIONS_PER_HOUR * 10, seconds=HOUR)
    bound = rewards.accept_invitation(user=user, code=payload.code, origin=_origin(request, user, payload.device_id))
    return ok({"inviter": bound.inviter.nickname})


@router.post("/ads/ticket", response=Envelope[TicketOut])
def ad_ticket(request: HttpRequest) -> Any:
    """Ask for a ticket, before an advertisement is shown."""
    _count(request, "ad_ticket", TICKETS_PER_HOUR)
    row, text = bonuses.issue_ticket(user=user_of(request))
    return ok({"ticket": text, "amount": row.amount, "ready_at": row.ready_at, "expires_at": row.expires_at})


@router.post("/ads/redeem", response=Envelope[RewardOut])
def ad_redeem(request: HttpRequest, payload: TicketIn) -> Any:
    """Redeem a ticket, after the advertisement was watched."""
    _count(request, "ad_redeem", TICKETS_PER_HOUR)
    return ok({"credited": bonuses.redeem_ticket(user=user_of(request), ticket=payload.ticket).amount})
