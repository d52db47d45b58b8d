"""Batches of redeem codes from a sheet, one a line; the codes are made here, and exported from the batch."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from billing import redeem
from billing.models import RedeemBatch
from billing.models.redeem import MAX_CODE_AMOUNT, MAX_COUNT
from billing.yuan import parse_yuan
from tenants.imports import Column, Fault, Line, Plan, Planned
from tenants.models import StaffUser, Tenant

# Codes that one file makes at most: each is encrypted and written.
MOST_CODES = 20_000


class BatchImporter:
    """Adds batches; one whose name is there already is left out, so that a file sent twice makes no money twice."""

    columns: Sequence[Column] = (
        Column(name="name", label=gettext_lazy("name"), example=gettext_lazy("Spring"), is_wanted=True),
        Column(name="yuan", label=gettext_lazy("yuan on each code"), example="10", is_wanted=True),
        Column(name="count", label=gettext_lazy("number of codes"), example="100", is_wanted=True),
        Column(name="kind", label=gettext_lazy("cash or gift"), example="gift"),
        Column(name="expires_at", label=gettext_lazy("good until, such as 2027-01-31 23:59")),
        Column(name="per_user_limit", label=gettext_lazy("codes that one user may redeem")),
    )

    def plan(self, lines: Sequence[Line]) -> Plan:
        """Say what lines would do."""
        plan, total = Plan(), 0
        known = set(RedeemBatch.objects.values_list("name", flat=True))
        for line in lines:
            try:
                batch = _read(line.cells)
            except ValueError as fault:
                plan.faults.append(Fault(line.number, str(fault)))
                continue
            total += batch["count"]
            if batch["name"] in known:
                plan.faults.append(Fault(line.number, _("A batch of this name is there already. Choose another name.")))
            elif total > MOST_CODES:
                plan.faults.append(Fault(line.number, _("One file makes 20,000 codes at most. Use another file.")))
            else:
                known.add(batch["name"])
                shown = tuple(str(line.cells[column.name]) for column in self.columns)
                plan.adds.append(Planned(line.number, shown, batch))
        return plan

    def write(self, plan: Plan, *, tenant: Tenant, staff: StaffUser) -> None:
        """Write."""
        for planned in plan.adds:
            redeem.create_batch(tenant_id=tenant.pk, created_by=staff.get_username(), **planned.data)


def _read(cells: Any) -> dict[str, Any]:
    name = cells["name"]
    if not 1 <= len(name) <= 80:  # noqa: PLR2004  # the column's
        raise ValueError(_("A name of 1 to 80 characters is wanted."))
    kind = cells["kind"] or RedeemBatch.Kind.GIFT.value
    if kind not in RedeemBatch.Kind.values:
        raise ValueError(_("The kind is cash or gift."))
    limit = cells["per_user_limit"]
    return {
        "name": name,
        "amount": _amount(cells["yuan"]),
        "count": _whole(cells["count"], MAX_COUNT),
        "kind": kind,
        "expires_at": _moment(cells["expires_at"]),
        "per_user_limit": _whole(limit, MAX_COUNT) if limit else None,
    }


def _amount(text: str) -> int:
    try:
        amount = parse_yuan(text.removeprefix("¥"))
    except ValueError:
        amount = 0
    if not 1 <= amount <= MAX_CODE_AMOUNT:
        raise ValueError(_("The amount is in yuan, such as 10 or 0.50."))
    return amount


def _whole(text: str, most: int) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0  # noqa: PLR2004  # longer is too many
    if not 1 <= number <= most:
        raise ValueError(_("A whole number from 1 to %(most)d is wanted.") % {"most": most})
    return number


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = parse_datetime(text if " " in text or "T" in text else f"{text} 23:59:59")
    except ValueError:
        moment = None
    if moment is None:
        raise ValueError(_("The moment is written such as 2027-01-31 23:59."))
    moment = moment if timezone.is_aware(moment) else timezone.make_aware(moment)
    if moment <= timezone.now():
        raise ValueError(_("This moment has passed."))
    return moment
