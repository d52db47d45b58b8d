"""The JSON API of what a client shows before anybody logs in: the brand, and what the law wants said."""

from datetime import date
from typing import Annotated, Any, Literal

from django.conf import settings
from django.http import HttpRequest
from django.utils import translation
from ninja import Router, Schema
from pydantic import Field

from tenants import compliance, legal
from tenants.api import Envelope, Text, current_tenant, ok
from tenants.brand import BrandOut, introduced
from tenants.models import Domain, LegalText, Tenant
from tenants.resolve import is_platform_host

router = Router(tags=["site"])

# What a client says of itself: what it runs on, as `wx.getDeviceInfo` says, and its own version.
Platform = Annotated[Text, Field(max_length=16)]
Version = Annotated[Text, Field(max_length=32)]


class LegalOut(Schema):
    """Where a text stands, which version of it, and when that was published; version 0 is the service's default."""

    url: str
    version: int
    changed_on: date


class PurchasesOut(Schema):
    """Whether this client is to show no purchases, and why."""

    hidden: bool
    reason: Literal["", "ios", "review"]


class FiledOut(Schema):
    """Numbers to be shown; empty where there are none."""

    model_name: str
    model_filing: str
    algorithm_filing: str
    icp_number: str


class SiteOut(BrandOut):
    """A tenant's service, as its pages introduce it."""

    language: str
    company: str
    contact: str
    filed: FiledOut
    ai_label: str
    minimum_age: int | None
    age_notice: str
    terms: LegalOut
    privacy: LegalOut
    purchases: PurchasesOut


@router.get("", response=Envelope[SiteOut])
def site(request: HttpRequest, platform: Platform = "", version: Version = "") -> Any:
    """Return the tenant's brand and what the law wants said, in the reader's language."""
    tenant = current_tenant(request)
    row = compliance.compliance_of(tenant)
    reason = compliance.why_hidden(row, compliance.client_of(request, platform=platform, version=version))
    return ok(
        {
            **introduced(tenant),
            "language": tenant.language,
            **{name: getattr(row, name) for name in ("company", "contact", "minimum_age")},
            "filed": {name: getattr(row, name) for name in FiledOut.model_fields},
            "ai_label": compliance.ai_label(row),
            "age_notice": compliance.age_notice(row),
            **{kind: _legal(request, tenant, kind) for kind in LegalText.Kind.values},
            "purchases": {"hidden": bool(reason), "reason": reason},
        }
    )


def _legal(request: HttpRequest, tenant: Tenant, kind: str) -> dict[str, Any]:
    shown = legal.current(tenant=tenant, kind=kind, language=translation.get_language() or tenant.language)
    url = request.build_absolute_uri(f"/{kind}")
    if is_platform_host(request.get_host()):  # the app id said whose; the pages are at its own host
        domain = Domain.objects.order_by("pk").first()
        url = settings.TENANT_URL.format(host=domain.host) + f"/{kind}" if domain else ""
    return {"url": url, "version": shown.version, "changed_on": shown.changed_on}
