"""The admin of tenants and people.

`brands` is about tenants, `people` about staff and end users, `signin` about how end users come in, `security` about
invitations, rules for staff and the log of changes, `notices` about what staff are told, `site` about what the law
wants said and which pages may embed a tenant's.
"""

from tenants.admin import brands, notices, people, security, signin, site

__all__ = ["brands", "notices", "people", "security", "signin", "site"]
