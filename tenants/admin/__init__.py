"""The admin of tenants and people: `brands` is about tenants, `people` about staff and end users.

`signin` is about how end users come in.
"""

from tenants.admin import brands, people, signin

__all__ = ["brands", "people", "signin"]
