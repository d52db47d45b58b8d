"""The log of what staff change: each change with what was before and after, and who made it.

The admin feeds it wherever Django's own history is written (tenants/adminsite.py): forms, actions and buttons, those
that move money too. Texts of secrets are never written, only that they changed.
"""

import re
from typing import Any, Final

from django.db import models
from django.http import HttpRequest

from tenants.models import ChangeEntry, StaffUser, Tenant
from tenants.scope import TenantOwned
from tenants.secrets import EncryptedTextField

HIDDEN: Final = "•••"
_SECRET: Final = re.compile(r"password|secret|digest|token|session_key|api_key|private_key")
_TEXTS: Final = (models.CharField, models.TextField)
# A row that someone pastes a book into is not kept twice whole.
_LONGEST: Final = 2000


def picture(row: models.Model) -> dict[str, Any]:
    """Return a row's values as they are logged."""
    return {field.name: _shown(field, row) for field in row._meta.concrete_fields}


def difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, list[Any]]:
    """Return what differs, `[before, after]` by field; a secret that changed is shown as changed."""
    names = [*before, *(name for name in after if name not in before)]
    found = {name: [before.get(name), after.get(name)] for name in names if before.get(name) != after.get(name)}
    return {name: [_said(old), _said(new)] for name, (old, new) in found.items()}


def record(
    *, request: HttpRequest, row: models.Model, action: str, changes: dict[str, list[Any]], note: str = ""
) -> None:
    """Write a change of `row` by who is logged in, in the request's scope."""
    staff = request.user if isinstance(request.user, StaffUser) else None
    ChangeEntry.objects.create(
        tenant_id=_tenant_of(row, request),
        staff_number=staff.pk if staff else None,
        actor=staff.get_username() if staff else "",
        action=action,
        model=row._meta.label,
        row=str(row.pk)[:64],
        changes=changes,
        note=note,
        address=str(request.META.get("REMOTE_ADDR", ""))[:64],
        request_id=getattr(request, "request_id", ""),
    )


def _tenant_of(row: models.Model, request: HttpRequest) -> int | None:
    """Return whose log a change belongs to: the row's tenant, or the tenant at whose site it was made."""
    if isinstance(row, TenantOwned):
        return row.tenant_id
    if isinstance(row, Tenant):
        return row.pk
    here: Tenant | None = getattr(request, "tenant", None)
    return here.pk if here else None


class _Secret(str):
    """A secret's value while it is compared."""

    __slots__ = ()


def _shown(field: Any, row: models.Model) -> Any:
    value = field.value_from_object(row)
    if isinstance(field, EncryptedTextField) or (isinstance(field, _TEXTS) and _SECRET.search(field.name)):
        return _Secret(value or "")
    if value is None or isinstance(value, bool | int | float | list | dict):
        return value
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _said(value: Any) -> Any:
    return (HIDDEN if value else "") if isinstance(value, _Secret) else value
