"""A tenant's brand, as every page and endpoint that shows it has it.

brand_of   the tenant's row, or its name with the defaults
introduced the same as `BrandOut` tells it
BrandOut   the part of an answer of the JSON API that is the brand

Each within the tenant's scope.
"""

from ninja import Schema
from pydantic import Field

from tenants.models import Branding, Tenant


class BrandOut(Schema):
    """Whose service this is."""

    title: str
    slogan: str
    logo_url: str
    primary_color: str = Field(pattern="^#[0-9a-fA-F]{6}$")
    welcome: str


def brand_of(tenant: Tenant) -> Branding:
    """Return a tenant's brand."""
    return Branding.objects.filter(tenant=tenant).first() or Branding(title=tenant.name)


def introduced(tenant: Tenant) -> dict[str, str]:
    """Return what `BrandOut` holds."""
    brand = brand_of(tenant)
    return {name: getattr(brand, name) for name in BrandOut.model_fields}
