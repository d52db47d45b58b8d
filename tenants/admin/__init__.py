"""The admin of tenants and people: `brands` is about tenants, `people` about staff and end users."""

from tenants.admin import brands, people

__all__ = ["brands", "people"]
