"""The admin of tenants and people.

`brands` is about tenants, `people` about staff and end users, `signin` about how end users come in, `security` about
invitations, rules for staff and the log of changes.
"""

from tenants.admin import brands, people, security, signin

__all__ = ["brands", "people", "security", "signin"]
