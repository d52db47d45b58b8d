"""A tenant's staff: changing a role, taking somebody out. An owner is always left. And who the operator's people are.

What is a tenant's runs in its scope, or in the platform's.
"""

from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.utils.translation import gettext_lazy as _

from tenants.errors import ErrorCode, ProductError
from tenants.models import Membership, PlatformMembership, StaffUser


@transaction.atomic
def change_role(*, membership: Membership, role: str) -> None:
    """Give a member another role; raise ProductError INVALID "last_owner" where no owner would be left."""
    if role != Membership.Role.OWNER:
        require_another_owner(membership)
    Membership.objects.filter(pk=membership.pk).update(role=role)


@transaction.atomic
def remove(*, membership: Membership) -> None:
    """Take somebody out; raise ProductError INVALID "last_owner" where no owner would be left."""
    require_another_owner(membership)
    Membership.objects.filter(pk=membership.pk).delete()


def is_last_owner(membership: Membership) -> bool:
    """Whether nobody else is an owner, as it looks now."""
    return _owners(membership) == {membership.pk}


def works_elsewhere(membership: Membership) -> bool:
    """Whether a member works for another tenant, a reseller or the operator too; asked across tenants, said by yes."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT 1 FROM tenants_membership WHERE staff_id = %s AND tenant_id <> %s)"
            " OR EXISTS (SELECT 1 FROM tenants_platformmembership WHERE staff_id = %s)"
            " OR EXISTS (SELECT 1 FROM tenants_staffuser WHERE id = %s AND is_superuser)",
            [membership.staff_id, membership.tenant_id, membership.staff_id, membership.staff_id],
        )
        return bool(cursor.fetchone()[0])


def reachable() -> QuerySet[StaffUser]:
    """Return everybody who may log in and has a mail address."""
    return StaffUser.objects.filter(is_active=True).exclude(email="").order_by("pk")


def operators() -> list[StaffUser]:
    """Return the operator's people who have a mail address."""
    theirs = PlatformMembership.objects.filter(role=PlatformMembership.Role.OPERATOR)
    return list(reachable().filter(Q(is_superuser=True) | Q(pk__in=theirs.values("staff"))))


def require_another_owner(membership: Membership) -> None:
    """Refuse where `membership` is the last owner's, within the caller's transaction: owners' rows are locked.

    Of two owners who take each other out at once, the second waits here and finds that they are the last.
    """
    if _owners(membership, locked=True) == {membership.pk}:
        raise ProductError(
            ErrorCode.INVALID,
            _("This is the last owner. Make somebody else an owner first."),
            type="last_owner",
            scope="staff",
        )


def _owners(membership: Membership, *, locked: bool = False) -> set[int]:
    rows = Membership.objects.filter(
        tenant_id=membership.tenant_id, role=Membership.Role.OWNER, staff__is_active=True
    ).order_by("pk")
    return {row.pk for row in (rows.select_for_update(of=("self",)) if locked else rows)}
