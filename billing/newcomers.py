"""Users from a sheet: known by phone or e-mail, new ones perhaps with an opening gift, which has its reason."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from billing.by_hand import credit_by_hand
from billing.yuan import parse_yuan
from tenants.codes import normal_target
from tenants.errors import ProductError
from tenants.imports import Column, Fault, Line, Plan, Planned
from tenants.models import EndUser, StaffUser, Tenant

_KEYS: Final = ("phone", "email")
_LONGEST_NICKNAME: Final = 64
_AT_ONCE: Final = 1000


class _FaultError(ValueError):
    """A line that cannot be taken; its text says what to do."""


@dataclass(frozen=True, kw_only=True)
class Newcomer:
    """A line, read. `known` is who is there already; `gift` is in micro-yuan."""

    fields: dict[str, str]
    known: int | None
    gift: int
    reason: str


class PeopleImporter:
    """Adds users, and completes those that are there: a nickname is replaced, a phone or an e-mail only added."""

    columns: Sequence[Column] = (
        Column(name="nickname", label=gettext_lazy("nickname"), example=gettext_lazy("Li Lei")),
        Column(name="phone", label=gettext_lazy("phone; this or an e-mail is needed"), example="13800000000"),
        Column(name="email", label=gettext_lazy("e-mail"), example="li.lei@example.com"),
        Column(name="gift", label=gettext_lazy("opening gift in yuan, for new users only"), example="5"),
        Column(name="reason", label=gettext_lazy("reason of the gift"), example=gettext_lazy("New year's present")),
    )

    def plan(self, lines: Sequence[Line]) -> Plan:
        """Say what lines would do."""
        plan, seen = Plan(), set[str]()
        everybody = list(_read_all(lines, plan))
        there = _there([read for _line, read in everybody])
        for line, read in everybody:
            keys = {read[name] for name in _KEYS if read[name]}
            try:
                if keys & seen:
                    raise _FaultError(_("An earlier line has the same phone or e-mail. Keep one of them."))  # noqa: TRY301
                self._sort(plan, line, read, there)
            except _FaultError as fault:
                plan.faults.append(Fault(line.number, str(fault)))
            else:
                seen |= keys
        plan.faults.sort()
        return plan

    def write(self, plan: Plan, *, tenant: Tenant, staff: StaffUser) -> None:
        """Write; raise ProductError "staff_credit_limit" where the gifts are more than the person may give today."""
        new: list[Newcomer] = [planned.data for planned in plan.adds]
        users = EndUser.objects.bulk_create([EndUser(tenant=tenant, **_given(who.fields)) for who in new], _AT_ONCE)
        for who, user in zip(new, users, strict=True):
            if who.gift:
                credit_by_hand(user=user, amount=who.gift, kind="gift", number=uuid4(), reason=who.reason, staff=staff)
        for planned in plan.changes:
            changed: Newcomer = planned.data
            EndUser.objects.filter(pk=changed.known or 0).update(**changed.fields)

    def _sort(self, plan: Plan, line: Line, read: dict[str, Any], there: dict[str, EndUser]) -> None:
        """Put a line where it belongs; raise _FaultError."""
        known = list({there[read[name]].pk: there[read[name]] for name in _KEYS if read[name] in there}.values())
        if len(known) > 1:
            raise _FaultError(_("Phone and e-mail belong to two users here. Leave one of them out."))
        shown = tuple(str(line.cells[column.name]) for column in self.columns)
        if not known:
            new = Newcomer(
                fields={name: read[name] for name in ("nickname", *_KEYS)},
                known=None,
                gift=read["gift"],
                reason=read["reason"],
            )
            plan.adds.append(Planned(line.number, shown, new))
            return
        if read["gift"]:
            raise _FaultError(_("This user is there already. Give the balance on the user's page."))
        fields = _changes(known[0], read)
        if not fields:
            plan.same += 1
            return
        plan.changes.append(Planned(line.number, shown, Newcomer(fields=fields, known=known[0].pk, gift=0, reason="")))


def _read_all(lines: Sequence[Line], plan: Plan) -> Iterator[tuple[Line, dict[str, Any]]]:
    for line in lines:
        try:
            yield line, _read(line.cells)
        except _FaultError as fault:
            plan.faults.append(Fault(line.number, str(fault)))


def _read(cells: Any) -> dict[str, Any]:
    read: dict[str, Any] = {name: _target(name, cells[name]) for name in _KEYS}
    read |= {"nickname": cells["nickname"], "reason": cells["reason"], "gift": _gift(cells["gift"])}
    if not (read["phone"] or read["email"]):
        raise _FaultError(_("A phone or an e-mail is needed: without one nobody could log in."))
    if read["gift"] and not read["reason"]:
        raise _FaultError(_("A gift needs a reason."))
    if len(read["nickname"]) > _LONGEST_NICKNAME:
        raise _FaultError(_("The nickname has more than 64 characters."))
    return read


def _target(channel: str, text: str) -> str:
    try:
        return normal_target(channel, text) if text else ""
    except ProductError as refused:
        raise _FaultError(str(refused.msg)) from None


def _gift(text: str) -> int:
    if not text:
        return 0
    try:
        return parse_yuan(text.removeprefix("¥"))
    except ValueError:
        raise _FaultError(_("The gift is an amount in yuan, such as 5 or 0.50.")) from None


def _there(everybody: Sequence[dict[str, Any]]) -> dict[str, EndUser]:
    """Return who is there already of those who were read, by phone and by e-mail."""
    found: dict[str, EndUser] = {}
    for name in _KEYS:
        keys = [read[name] for read in everybody if read[name]]
        for at in range(0, len(keys), _AT_ONCE):
            some = EndUser.objects.filter(**{f"{name}__in": keys[at : at + _AT_ONCE]})
            found |= {getattr(user, name): user for user in some}
    return found


def _changes(user: EndUser, read: dict[str, Any]) -> dict[str, str]:
    """Return what a line changes of a user; raise _FaultError where it contradicts who they are."""
    if user.deleted_at is not None or not user.is_active:
        raise _FaultError(_("This user is blocked."))
    fields: dict[str, str] = {}
    if read["nickname"] and read["nickname"] != user.nickname:
        fields["nickname"] = read["nickname"]
    for name in _KEYS:
        own = getattr(user, name)
        if read[name] and own and read[name] != own:
            raise _FaultError(_("This user has another phone or e-mail. Only users themselves change those."))
        if read[name] and not own:
            fields[name] = read[name]
    return fields


def _given(fields: dict[str, str]) -> dict[str, str | None]:
    return {name: value or (None if name in _KEYS else "") for name, value in fields.items()}
