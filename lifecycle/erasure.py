"""Deleting a tenant, after days of grace and with proof.

ask        the tenant is suspended now, and deleted when the days of grace are over
call_off   it is not to be deleted; it stays suspended until somebody resumes it
sweep      delete what is due
erase      delete one: one transaction, so that it is all gone or all there

What the law wants kept is kept, without who the people were: the books and what proves them (all of billing but the
traces of devices), prices, orders and their refunds. Everything else goes, the log of changes too: it quotes what was
changed. The audit of the books stays as clean as it
was. The proof says how many rows of each kind went, stayed, and were stripped of people, with a digest over the keys of
all that went: whoever has an archive from before can compare.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import structlog
from django.apps import apps
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.contrib.contenttypes.models import ContentType
from django.db import IntegrityError, connection, models, transaction
from django.db.models import F, Value
from django.db.models.functions import Cast, Concat
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from psycopg import sql

from billing.models import Hold, Invitation, Order, Refund, RewardOrigin
from lifecycle import archive, history, life
from lifecycle.models import Opening, TenantDeletion, TenantEvent, TenantExport
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.letters import Letter
from tenants.models import EndUser, Membership, RecoveryCode, SecondFactor, StaffSession, StaffUser, Tenant
from tenants.resolve import forget
from tenants.scope import TenantOwned
from tenants.secrets import EncryptedTextField

log = structlog.get_logger(__name__)

ACTOR: Final = "lifecycle"
State = TenantDeletion.State

# Rows of other rooms that stay: who somebody was is taken out of them, or they tell of the tenant and no person.
_STAY: Final[frozenset[type[models.Model]]] = frozenset({EndUser, TenantEvent, TenantExport, TenantDeletion})
# Rows of billing that go: no book needs them.
_GO: Final[frozenset[type[models.Model]]] = frozenset({RewardOrigin})
# What tells who somebody is, by kind of row that stays, and what stands there afterwards.
_STRIPPED: Final[dict[type[models.Model], dict[str, Any]]] = {
    EndUser: {
        "username": None,
        "phone": None,
        "email": None,
        "nickname": "",
        "password": "",
        "language": "",
        "is_active": False,
        "last_seen_at": None,
    },
    Invitation: {"device_digest": "", "address_digest": ""},
    Order: {"payer_openid": ""},
}


def kept_models() -> list[type[TenantOwned]]:
    """Return the kinds of rows that stay."""
    return [model for model in _owned() if model in _STAY or (_is_billing(model) and model not in _GO)]


def deleted_models() -> list[type[TenantOwned]]:
    """Return the kinds of rows that go."""
    kept = set(kept_models())
    return [model for model in _owned() if model not in kept]


def stripped(model: type[models.Model]) -> dict[str, Any]:
    """Return what is taken out of a kind of row that stays: who somebody was and every secret, and what is left."""
    secrets = {field.name: "" for field in model._meta.concrete_fields if isinstance(field, EncryptedTextField)}
    return {**secrets, **_STRIPPED.get(model, {})}


def ask(*, tenant_id: int, reason: str, actor: str) -> TenantDeletion:
    """Suspend a tenant now and delete it after DELETION_DAYS.

    Raises ProductError INVALID "reason_wanted", "tenant_state" for one that is closed, "deletion_waiting".
    """
    if not reason.strip():
        raise ProductError(ErrorCode.INVALID, _("A reason is wanted."), type="reason_wanted")
    due = timezone.now() + timedelta(days=settings.DELETION_DAYS)
    with transaction.atomic():
        open_one = Tenant.objects.filter(pk=tenant_id).exclude(status=Tenant.Status.CLOSED)
        told = reason.strip()[: history.REASON_LENGTH]
        if open_one.update(status=Tenant.Status.SUSPENDED, status_reason=told) != 1:
            raise ProductError(
                ErrorCode.INVALID,
                _("The tenant is not in a state in which this can be done. Load the page again."),
                type="tenant_state",
            )
        tenant = Tenant.objects.get(pk=tenant_id)
        with scope.tenant(tenant_id):
            try:
                with transaction.atomic():
                    deletion = TenantDeletion.objects.create(tenant=tenant, reason=told, asked_by=actor, due_at=due)
            except IntegrityError:
                raise ProductError(
                    ErrorCode.INVALID, _("This tenant is to be deleted already."), type="deletion_waiting"
                ) from None
        history.record(
            tenant=tenant, kind=TenantEvent.Kind.DELETION_ASKED, actor=actor, reason=told, due_at=due.isoformat()
        )
        transaction.on_commit(partial(life.tell, tenant, partial(_to_be_deleted, tenant, due)), robust=True)
        transaction.on_commit(forget)
    return deletion


def call_off(*, tenant_id: int, reason: str, actor: str) -> bool:
    """Call a deletion off in the days of grace; False if there is none to call off."""
    with transaction.atomic():
        tenant = Tenant.objects.select_for_update().get(pk=tenant_id)
        with scope.tenant(tenant_id):
            waiting = TenantDeletion.objects.filter(state=State.WAITING)
            if waiting.update(state=State.CANCELLED, decided_by=actor, ended_at=timezone.now()) != 1:
                return False
        history.record(tenant=tenant, kind=TenantEvent.Kind.DELETION_CANCELLED, actor=actor, reason=reason)
    return True


def sweep() -> int:
    """Delete every tenant that is due; return how many. One that cannot be deleted yet waits for the next sweep."""
    with scope.platform("tenants that are to be deleted"):
        due = list(
            TenantDeletion.objects.filter(state=State.WAITING, due_at__lte=timezone.now())
            .order_by("due_at")
            .values_list("tenant_id", flat=True)
        )
    return sum(_try(tenant_id) for tenant_id in due)


def erase(*, tenant_id: int, actor: str) -> TenantDeletion:
    """Delete a tenant that is due, and return the proof; not in a tenant's scope.

    Raises ProductError INVALID "deletion_not_due", "money_under_way" while an answer or a refund is.
    """
    with transaction.atomic():
        tenant = Tenant.objects.select_for_update().get(pk=tenant_id)
        with scope.tenant(tenant_id):
            deletion = TenantDeletion.objects.select_for_update().filter(state=State.WAITING).first()
            if deletion is None or not deletion.is_due(timezone.now()):
                raise ProductError(ErrorCode.INVALID, _("The days of grace are not over."), type="deletion_not_due")
            _require_quiet()
            for export in TenantExport.objects.filter(state=TenantExport.State.DONE):
                archive.throw_away(export)
            staff = list(Membership.objects.values_list("staff_id", flat=True))
        # First: the log of changes goes only of a tenant that is closed.
        Tenant.objects.filter(pk=tenant_id).update(status=Tenant.Status.CLOSED, status_reason="", trial_ends_on=None)
        deleted, digest = _delete(tenant_id)
        anonymised = _strip(tenant_id)
        anonymised |= _strip_staff(staff)
        Opening.objects.filter(slug=tenant.slug).update(answers={}, secrets="")
        tenant.refresh_from_db()
        with scope.tenant(tenant_id):
            history.record(tenant=tenant, kind=TenantEvent.Kind.DELETED, actor=actor, digest=digest)
            deletion.state, deletion.decided_by, deletion.ended_at = State.DONE, actor, timezone.now()
            deletion.deleted, deletion.anonymised, deletion.digest = deleted, anonymised, digest
            deletion.kept = {model._meta.label: count for model in kept_models() if (count := model.objects.count())}
            deletion.save(update_fields=["state", "decided_by", "ended_at", "deleted", "anonymised", "kept", "digest"])
        transaction.on_commit(forget)
    log.info("tenant_deleted", tenant_slug=tenant.slug, rows=sum(deleted.values()), digest=digest)
    return deletion


def _to_be_deleted(tenant: Tenant, due: datetime) -> Letter:
    facts = {
        **life.facts_of(tenant),
        "reason": tenant.status_reason,
        "due": f"{timezone.localtime(due):%Y-%m-%d %H:%M}",
    }
    return Letter(
        gettext("%(name)s will be deleted on %(due)s") % facts,
        gettext(
            "“%(name)s” is suspended, and will be deleted on %(due)s. The reason: %(reason)s\n\n"
            "Until then its owner can take an archive of everything along, and the operator can call the deletion "
            "off.\n\n%(url)s"
        )
        % facts,
    )


def _try(tenant_id: int) -> bool:
    try:
        erase(tenant_id=tenant_id, actor=ACTOR)
    except ProductError as refused:
        log.warning("tenant_not_deleted_yet", tenant_id=tenant_id, why=refused.type)
        return False
    return True


def _require_quiet() -> None:
    under_way = (
        Hold.objects.filter(state=Hold.State.HELD).exists()
        or Hold.objects.filter(state=Hold.State.POSTED, recorded_at=None).exists()
        or Refund.objects.filter(state=Refund.State.REQUESTED).exists()
        or Order.objects.filter(state=Order.State.PENDING).exists()
    )
    if under_way:
        raise ProductError(
            ErrorCode.INVALID,
            _("An answer, an order or a refund is still under way. Try again once it has ended."),
            type="money_under_way",
        )


def _owned() -> list[type[TenantOwned]]:
    owned = [model for model in apps.get_models() if issubclass(model, TenantOwned)]
    return sorted(owned, key=lambda model: model._meta.label)


def _is_billing(model: type[models.Model]) -> bool:
    return model._meta.app_label == "billing"


def _delete(tenant_id: int) -> tuple[dict[str, int], str]:
    """Delete by table, in any order: the database checks the keys between them at the end of the transaction."""
    counts: dict[str, int] = {}
    whole = hashlib.sha256()
    with connection.cursor() as cursor:
        for model in deleted_models():
            names = {"table": sql.Identifier(model._meta.db_table), "key": sql.Identifier(str(model._meta.pk.column))}
            cursor.execute(
                sql.SQL(
                    "SELECT count(*), coalesce(encode(sha256(convert_to(string_agg({key}::text, E'\\n' ORDER BY {key}),"
                    " 'UTF8')), 'hex'), '') FROM {table} WHERE tenant_id = %s"
                ).format(**names),
                [tenant_id],
            )
            count, digest = cursor.fetchone()
            if not count:
                continue
            _forget_log(model, tenant_id)
            cursor.execute(sql.SQL("DELETE FROM {table} WHERE tenant_id = %s").format(**names), [tenant_id])
            if cursor.rowcount != count:
                raise RuntimeError(f"{model._meta.label}: {cursor.rowcount} rows went, {count} were counted")
            counts[model._meta.label] = count
            whole.update(f"{model._meta.label} {count} {digest}\n".encode())
    return counts, whole.hexdigest()


def _forget_log(model: type[models.Model], tenant_id: int) -> None:
    """Delete what the admin's log says of rows that go, or are stripped: it quotes them."""
    with scope.platform("the log of rows that go"):
        keys = model._base_manager.filter(tenant_id=tenant_id).values(key=Cast("pk", models.TextField()))
        LogEntry.objects.filter(content_type=ContentType.objects.get_for_model(model), object_id__in=keys).delete()


def _strip(tenant_id: int) -> dict[str, int]:
    """Take out of the rows that stay who people were, and every secret."""
    counts: dict[str, int] = {}
    for model in kept_models():
        if values := stripped(model):
            with scope.platform("the log of rows that are stripped"):
                _forget_log(model, tenant_id)
            with scope.tenant(tenant_id):
                if count := model.objects.update(**values):
                    counts[model._meta.label] = count
    return counts


def _strip_staff(staff: Iterable[int]) -> dict[str, int]:
    """Take out who the tenant's staff were, where they work nowhere else."""
    with scope.platform("where else a tenant's staff work"):
        elsewhere = Membership.objects.filter(staff_id__in=staff).values("staff_id")
        only_here = StaffUser.objects.filter(pk__in=staff, is_superuser=False, platform_memberships=None)
        alone = list(only_here.exclude(pk__in=elsewhere).values_list("pk", flat=True))
        for model in (SecondFactor, RecoveryCode, StaffSession):
            model._base_manager.filter(staff__in=alone).delete()
        count = StaffUser.objects.filter(pk__in=alone).update(
            username=Concat(Value("deleted-"), Cast(F("pk"), models.TextField())),
            first_name="",
            last_name="",
            email="",
            language="",
            last_login=None,
            password=UNUSABLE_PASSWORD_PREFIX,
            is_active=False,
        )
    return {StaffUser._meta.label: count} if count else {}
