"""The API of openings: for programs of resellers and of the operator, on the platform's hosts; and a host's proof.

A program shows a token of its own (`lifecycle.programs`) as `Authorization: Bearer bny_rs_…`. A reseller's sees the
reseller's own tenants and those of its children; the operator's, every tenant.
"""

from datetime import date, datetime
from typing import Annotated, Any, cast

from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from ninja import Router, Schema
from pydantic import Field

from lifecycle import checks, claims, opening, programs
from lifecycle.addresses import address_of
from lifecycle.models import Check, ResellerToken
from tenants import scope, throttle
from tenants.api import Amount, Envelope, Text, current_tenant, ok
from tenants.api import address_of as address_of_client
from tenants.errors import ErrorCode, ProductError
from tenants.login import token_of
from tenants.models import Domain, Reseller, Tenant
from tenants.resolve import not_found

MINUTE_SECONDS = 60
CALLS_PER_MINUTE = 60
# Steps look at other people's servers: nobody may have us knock there without end.
CHECKS_PER_MINUTE = 30


def program(request: HttpRequest) -> ResellerToken:
    """Return the token of a program on a platform host; for `auth=`."""
    if getattr(request, "tenant", None) is not None:
        raise not_found()
    # Counted before the look-up: a guess costs the guesser.
    throttle.count(
        what="opening_calls", who=address_of_client(request), limit=CALLS_PER_MINUTE * 10, seconds=MINUTE_SECONDS
    )
    headers = {name.lower(): value for name, value in request.headers.items()}
    token = programs.token_for(token_of(headers, {}))
    throttle.count(what="opening_calls", who=f"token:{token.pk}", limit=CALLS_PER_MINUTE, seconds=MINUTE_SECONDS)
    return token


def _token(request: HttpRequest) -> ResellerToken:
    return cast("ResellerToken", request.auth)  # type: ignore[attr-defined]


class MerchantIn(Schema):
    """A merchant account, as docs/onboarding.md says for each channel."""

    channel: Annotated[Text, Field(max_length=20)]
    merchant_id: Annotated[Text, Field(max_length=64)]
    app_id: Annotated[Text, Field(max_length=32)] = ""
    certificate_serial: Annotated[Text, Field(max_length=64)] = ""
    private_key: Annotated[Text, Field(max_length=8000)] = ""
    api_v3_key: Annotated[Text, Field(max_length=64)] = ""
    secret_key: Annotated[Text, Field(max_length=250)] = ""
    webhook_secret: Annotated[Text, Field(max_length=250)] = ""
    platform_key_id: Annotated[Text, Field(max_length=64)] = ""
    platform_public_key: Annotated[Text, Field(max_length=8000)] = ""


class OpeningIn(Schema):
    """What a tenant is to be like; only the name is needed."""

    name: Annotated[Text, Field(min_length=1, max_length=80)]
    key: Annotated[Text, Field(max_length=64)] = ""
    reseller: Annotated[Text, Field(max_length=40)] = ""
    slug: Annotated[Text, Field(max_length=40, pattern=r"^[a-z0-9-]*$")] = ""
    host: Annotated[Text, Field(max_length=253)] = ""
    title: Annotated[Text, Field(max_length=80)] = ""
    slogan: Annotated[Text, Field(max_length=160)] = ""
    logo_url: Annotated[Text, Field(max_length=200)] = ""
    primary_color: Annotated[Text, Field(max_length=7)] = "#0f766e"
    welcome: Annotated[Text, Field(max_length=2000)] = ""
    language: Annotated[str, Field(pattern=r"^(zh-hans|en)$")] = "zh-hans"
    timezone: Annotated[Text, Field(max_length=64)] = "Asia/Shanghai"
    allow_guest: bool = True
    app_id: Annotated[Text, Field(max_length=32)] = ""
    app_secret: Annotated[Text, Field(max_length=64)] = ""
    merchant: MerchantIn | None = None
    template: Annotated[Text, Field(max_length=40)] = ""
    markup_percent: Annotated[int, Field(ge=0, le=opening.MAX_MARKUP_PERCENT)] | None = None
    wallet: Annotated[int, Field(ge=0, le=10**15)] = 0
    owner_email: Annotated[Text, Field(max_length=254)] = ""


class StepOut(Schema):
    """A step of the checklist."""

    kind: str
    name: str
    state: str
    text: str
    checked_at: datetime | None


class RecordOut(Schema):
    """A DNS record to set."""

    kind: str
    name: str
    value: str


class ClaimOut(Schema):
    """A domain that serves once DNS proves it, by one of these records; look at the step "domain" for it."""

    host: str
    text: str
    records: list[RecordOut]


class TenantOut(Schema):
    """A tenant, as its reseller's programs see it."""

    slug: str
    name: str
    reseller: str | None
    status: str
    status_reason: str
    trial_ends_on: date | None
    hosts: list[str]
    unproven: list[ClaimOut]
    created_at: datetime


class OpenedOut(Schema):
    """A tenant that was opened; the link is shown this once."""

    tenant: TenantOut
    url: str
    invitation_url: str
    is_new: bool


class ChecklistOut(Schema):
    """The checklist of a tenant."""

    done: bool
    steps: list[StepOut]


class PricedOut(Schema):
    """What a model of a template costs a tenant, and would sell for: micro-yuan per million tokens, and per call."""

    model: str
    name: str
    wholesale: dict[str, Amount]
    retail: dict[str, Amount]


class TemplateOut(Schema):
    """A template of models and prices."""

    slug: str
    name: str
    is_default: bool
    markup_percent: float
    models: list[PricedOut]


class ProofOut(Schema):
    """What shows that a host is this service's."""

    proof: str


router = Router(tags=["opening"])


@router.get("/proof", response=Envelope[ProofOut])
def proof(request: HttpRequest, nonce: Annotated[Text, Field(min_length=8, max_length=64)]) -> Any:
    """Show that this host is the tenant's, to the one who made up the nonce."""
    return ok({"proof": checks.proof(tenant=current_tenant(request), nonce=nonce)})


@router.get("/templates", response=Envelope[list[TemplateOut]], auth=program)
def list_templates(request: HttpRequest) -> Any:
    """Return what a tenant can begin with, at the prices of the reseller's tenants."""
    reseller_id = _token(request).reseller_id
    return ok(
        [
            {
                "slug": template.slug,
                "name": template.name,
                "is_default": template.is_default,
                "markup_percent": template.markup_ppm / 10_000,
                "models": [
                    {
                        "model": item.model.slug,
                        "name": item.model.name,
                        "wholesale": item.wholesale._asdict(),
                        "retail": item.retail._asdict(),
                    }
                    for item in opening.price_list(
                        template=template, reseller_id=reseller_id, markup_ppm=template.markup_ppm
                    )
                ],
            }
            for template in opening.templates()
        ]
    )


@router.get("/tenants", response=Envelope[list[TenantOut]], auth=program)
def list_tenants(request: HttpRequest) -> Any:
    """Return the tenants that the program may see, the newest first: a hundred at most."""
    rows = _tenants(_token(request)).select_related("reseller").order_by("-pk")[:100]
    return ok([_shown(tenant) for tenant in rows])


@router.post("/tenants", response=Envelope[OpenedOut], auth=program)
def open_tenant(request: HttpRequest, payload: OpeningIn) -> Any:
    """Open a tenant that can chat at once; the same `key` opens once."""
    token = _token(request)
    asked = payload.dict()
    key, merchant, percent = asked.pop("key"), asked.pop("merchant"), asked.pop("markup_percent")
    reseller = _reseller(token, asked.pop("reseller"))
    application = opening.Application(
        **asked,
        merchant={name: value for name, value in (merchant or {}).items() if value},
        markup_ppm=None if percent is None else percent * 10_000,
    )
    opened = opening.open_for(
        application=application,
        reseller=reseller,
        actor=f"program {token.pk} {token.name}",
        key=key,
        is_vouched=token.reseller_id is None,
    )
    return ok(
        {
            "tenant": _shown(opened.tenant),
            "url": address_of(opened.host),
            "invitation_url": opened.invitation_url,
            "is_new": opened.is_new,
        }
    )


@router.get("/tenants/{slug}", response=Envelope[TenantOut], auth=program)
def one_tenant(request: HttpRequest, slug: str) -> Any:
    """Return a tenant."""
    return ok(_shown(_find(request, slug)))


@router.get("/tenants/{slug}/checklist", response=Envelope[ChecklistOut], auth=program)
def checklist(request: HttpRequest, slug: str) -> Any:
    """Return the checklist as it was found last."""
    return ok(_listed(checks.steps(tenant=_find(request, slug))))


@router.post("/tenants/{slug}/checklist", response=Envelope[ChecklistOut], auth=program)
def run_checklist(request: HttpRequest, slug: str, step: Annotated[str, Field(max_length=16)] = "") -> Any:
    """Look at a step now, or at all that are not green; takes as long as the slowest of whom is asked."""
    tenant = _find(request, slug)
    if step and step not in Check.Kind.values:
        raise ProductError(ErrorCode.INVALID, _("There is no such step."), type="no_such_step")
    throttle.count(what="checklist", who=tenant.slug, limit=CHECKS_PER_MINUTE, seconds=MINUTE_SECONDS)
    token = _token(request)
    return ok(_listed(checks.run(tenant=tenant, actor=f"program {token.pk} {token.name}", kind=step)))


def _tenants(token: ResellerToken) -> QuerySet[Tenant]:
    if token.reseller_id is None:
        return Tenant.objects.all()
    return Tenant.objects.filter(Q(reseller=token.reseller_id) | Q(reseller__parent=token.reseller_id))


def _find(request: HttpRequest, slug: str) -> Tenant:
    found = _tenants(_token(request)).select_related("reseller").filter(slug=slug).first()
    if found is None:
        raise ProductError(ErrorCode.NOT_FOUND, _("There is no such tenant here."), type="tenant_not_found")
    return found


def _reseller(token: ResellerToken, slug: str) -> Reseller | None:
    """Return whose tenant is opened: the program's own reseller, a child of it, or anybody for the operator."""
    if not slug:
        return token.reseller
    rows = Reseller.objects.filter(slug=slug)
    if token.reseller_id is not None:
        rows = rows.filter(Q(pk=token.reseller_id) | Q(parent=token.reseller_id))
    found = rows.first()
    if found is None:
        raise ProductError(ErrorCode.NOT_FOUND, _("There is no such reseller here."), type="reseller_not_found")
    return found


def _shown(tenant: Tenant) -> dict[str, Any]:
    with scope.tenant(tenant.pk):
        hosts = list(Domain.objects.order_by("pk").values_list("host", flat=True))
    return {
        "slug": tenant.slug,
        "name": tenant.name,
        "reseller": tenant.reseller.slug if tenant.reseller else None,
        "status": tenant.status,
        "status_reason": tenant.status_reason,
        "trial_ends_on": tenant.trial_ends_on,
        "hosts": hosts,
        "unproven": claims.say_all(claims.waiting(tenant=tenant)),
        "created_at": tenant.created_at,
    }


def _listed(steps: list[checks.Step]) -> dict[str, Any]:
    return {
        "done": checks.is_done(steps),
        "steps": [
            {
                "kind": step.kind,
                "name": str(step.name),
                "state": step.state,
                "text": step.text,
                "checked_at": step.checked_at,
            }
            for step in steps
        ],
    }
