"""Assistants from a sheet, known by their slug; a column that is empty leaves what is there as it is."""

from collections.abc import Sequence
from typing import Any

from django.contrib.admin.utils import label_for_field
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from chat.models import Role, RoleCategory
from tenants.imports import Column, Fault, Line, Plan, Planned
from tenants.models import StaffUser, Tenant

_TEXTS = ("name", "description", "opening", "suggestions", "instructions")


class AssistantImporter:
    """Adds assistants and changes those of the same slug; their categories are there already."""

    columns: Sequence[Column] = (
        Column(name="slug", label=gettext_lazy("slug"), example="translator", is_wanted=True),
        Column(name="name", label=gettext_lazy("name"), example=gettext_lazy("Translator"), is_wanted=True),
        Column(name="category", label=gettext_lazy("slug of its category")),
        Column(name="description", label=gettext_lazy("description"), example=gettext_lazy("Chinese and English")),
        Column(name="opening", label=gettext_lazy("opening words")),
        Column(name="suggestions", label=gettext_lazy("suggested questions, one a line")),
        Column(
            name="instructions",
            label=gettext_lazy("instructions to the model"),
            example=gettext_lazy("Translate what you are given."),
            is_wanted=True,
        ),
    )

    def plan(self, lines: Sequence[Line]) -> Plan:
        """Say what lines would do."""
        plan, seen = Plan(), set[str]()
        known = {role.slug: role for role in Role.objects.all()}
        shelves = {shelf.slug: shelf for shelf in RoleCategory.objects.all()}
        for line in lines:
            slug, shelf = line.cells["slug"], line.cells["category"]
            if slug in seen:
                plan.faults.append(Fault(line.number, _("An earlier line has the same slug. Keep one of them.")))
            elif shelf and shelf not in shelves:
                plan.faults.append(Fault(line.number, _("There is no such category. Add it first.")))
            else:
                seen.add(slug)
                _sort(plan, line, known.get(slug), shelves.get(shelf))
        return plan

    def write(self, plan: Plan, *, tenant: Tenant, staff: StaffUser) -> None:  # noqa: ARG002  # as the contract has it
        """Write."""
        for planned in plan.adds:
            Role.objects.create(tenant=tenant, **planned.data)
        for planned in plan.changes:
            slug, fields = planned.data
            Role.objects.filter(slug=slug).update(**fields)


def _sort(plan: Plan, line: Line, known: Role | None, shelf: RoleCategory | None) -> None:
    fields: dict[str, Any] = {name: line.cells[name] for name in _TEXTS if line.cells[name]}
    if shelf is not None:
        fields["category"] = shelf
    shown = tuple(line.cells[name] for name in ("slug", "name", "category", "description", "instructions"))
    made = Role(**{"slug": line.cells["slug"], **_present(known), **fields})
    try:
        made.clean_fields(exclude=["tenant", "category"])
    except ValidationError as fault:
        names = ", ".join(str(label_for_field(name, Role)) for name in fault.message_dict)
        why = " ".join(fault.messages)
        plan.faults.append(Fault(line.number, f"{names}: {why}"))
        return
    if known is None:
        plan.adds.append(Planned(line.number, shown, {"slug": line.cells["slug"], **fields}))
    elif changed := {name: value for name, value in fields.items() if getattr(known, name) != value}:
        plan.changes.append(Planned(line.number, shown, (known.slug, changed)))
    else:
        plan.same += 1


def _present(known: Role | None) -> dict[str, Any]:
    return {} if known is None else {name: getattr(known, name) for name in _TEXTS}
