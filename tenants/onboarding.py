"""Opening a tenant: its row, its brand and its host names, all or nothing."""

from collections.abc import Iterable
from datetime import date

from django.db import transaction

from tenants import scope
from tenants.models import Branding, Domain, Reseller, Tenant
from tenants.resolve import forget, host_name


@transaction.atomic
def open_tenant(  # noqa: PLR0913  # what a tenant begins with
    *,
    slug: str,
    name: str,
    hosts: Iterable[str],
    reseller: Reseller | None = None,
    status: str = Tenant.Status.TRIAL,
    language: str = "zh-hans",
    timezone: str = "Asia/Shanghai",
    allow_guest: bool = False,
    title: str = "",
    slogan: str = "",
    primary_color: str = "#0f766e",
    welcome: str = "",
    logo_url: str = "",
    trial_ends_on: date | None = None,
) -> Tenant:
    """Return a new tenant that answers at `hosts`; raise ValidationError for a wrong or taken name.

    Prices, wallet and model offers belong to billing and chat, and are their own steps.
    """
    tenant = Tenant(
        slug=slug,
        name=name,
        reseller=reseller,
        status=status,
        language=language,
        timezone=timezone,
        allow_guest=allow_guest,
        trial_ends_on=trial_ends_on,
    )
    tenant.full_clean()
    tenant.save(force_insert=True)
    brand = Branding(
        tenant=tenant,
        title=title or name,
        slogan=slogan,
        primary_color=primary_color,
        welcome=welcome,
        logo_url=logo_url,
    )
    # In the platform's scope a host name that another tenant has is found, and refused with a sentence.
    with scope.platform("a new tenant's names must be new on the platform"):
        for row in (brand, *(Domain(tenant=tenant, host=host_name(host)) for host in hosts)):
            row.full_clean()
            row.save(force_insert=True)
    transaction.on_commit(forget)
    return tenant
