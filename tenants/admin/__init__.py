"""The admin of tenants and people: `brands` is about tenants, `people` about staff and users, `notices` for staff."""

from tenants.admin import brands, notices, people

__all__ = ["brands", "notices", "people"]
