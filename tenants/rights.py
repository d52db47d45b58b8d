"""What each role may do at a tenant's admin, read from the registered classes: the source of docs/roles.md."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from django.http import HttpRequest
from django.utils import translation

from tenants import scope
from tenants.adminsite import tenant_site
from tenants.models import Membership, StaffUser, Tenant

_PERSON: Final = -1


class Rights(NamedTuple):
    """What a role may do with rows of a kind; `acts` are the names of buttons and actions."""

    look: bool
    add: bool
    change: bool
    delete: bool
    acts: tuple[str, ...]


def request_as(role: str) -> HttpRequest:
    """Return a request by somebody of that role at some tenant's admin; it asks no database."""
    request: Any = HttpRequest()
    request.method = "GET"
    request.tenant, request.user = Tenant(pk=_PERSON), StaffUser(pk=_PERSON, username="somebody")
    request.memberships = {_PERSON: Membership(role=role)}
    return request  # type: ignore[no-any-return]


def rights_of(model_admin: Any, role: str) -> Rights:
    """Return what a role may do with a registered model, by its admin's own answers."""
    request = request_as(role)
    words = ("view", "add", "change", "delete")
    look, add, change, delete = (bool(getattr(model_admin, f"has_{word}_permission")(request)) for word in words)
    return Rights(look, add, change, delete, tuple(_acts(model_admin, request)) if look else ())


def table() -> str:
    """Return the rights of every role over every kind of row, as Markdown, in English."""
    # Some ask whether the one row that may be there is: of this tenant there is none.
    with translation.override("en"), scope.tenant(_PERSON):
        head = ["rows", *(str(role.label) for role in Membership.Role)]
        lines = [_line(head), _line(["---"] * len(head))]
        for model, model_admin in sorted(tenant_site._registry.items(), key=lambda entry: entry[0]._meta.label):  # noqa: SLF001
            name = f"{model._meta.verbose_name_plural} (`{model._meta.label_lower}`)"
            lines.append(_line([name, *(_said(rights_of(model_admin, role)) for role in Membership.Role.values)]))
        return "\n".join(lines) + "\n"


def _acts(model_admin: Any, request: HttpRequest) -> Iterator[str]:
    """Yield the actions of a list and the buttons of a row that the person is shown."""
    for name in model_admin.get_actions(request):
        if name != "delete_selected":
            yield name
    for name in model_admin.actions_detail:
        wanted = getattr(getattr(model_admin, name), "allowed_permissions", None) or ()
        if all(getattr(model_admin, f"has_{word}_permission")(request) for word in wanted):
            yield name


def _said(rights: Rights) -> str:
    verbs = [name for name in ("look", "add", "change", "delete") if getattr(rights, name)]
    return ", ".join([*verbs, *(f"`{act}`" for act in rights.acts)]) or "–"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
