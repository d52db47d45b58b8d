"""Everything of a tenant as one archive: a zip of JSON lines, a file for each kind of row, and a manifest.

ask        have a worker make an archive
make       make it; the worker's part
path_of    where a finished one lies
forget     throw away those whose days are over

docs/onboarding.md, "The archive", says what is in it. What opens something stays out (encrypted columns, passwords,
digests of tokens and codes), files that wait to be imported do, and so does what the platform and its resellers have
between each other. Rows are read by pages while the service goes on: suspend the tenant first for a picture that stands
still.
"""

import hashlib
import json
import uuid
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import structlog
from django.apps import apps
from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from billing.models import Account, AccountKind, Commission, CommissionBack, ConsumptionBack, Entry, Transfer
from lifecycle import history
from lifecycle.models import TenantEvent, TenantExport
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.models import Branding, Tenant
from tenants.scope import TenantOwned
from tenants.secrets import EncryptedTextField

log = structlog.get_logger(__name__)

FORMAT: Final = 1
_PAGE: Final = 1000
# Of rows that hold a picture each.
_PAGE_OF_PICTURES: Final = 20
# A worker that has not finished by then is dead.
_LONGEST: Final = timedelta(hours=6)

# Columns that open something, beside the encrypted ones and those with such a word in their names; and what the
# platform and resellers have between each other.
SECRET_COLUMNS: Final = frozenset({"nonce", "last4"})
_SECRET_WORDS: Final = ("secret", "digest", "password", "token", "hash")
_TEXTS: Final = (models.CharField, models.TextField, models.BinaryField)
# A file that waits to be imported is of one day, and its rows are in the archive once they are written.
_WAITING: Final = frozenset({"tenants.ImportJob.content"})
OUR_COLUMNS: Final = frozenset(
    {
        *("cost", "cost_price", "reseller", "parent_reseller"),
        *("own_ppm", "own_share", "parent_ppm", "parent_share", "decided_by"),
    }
)
OUR_MODELS: Final = frozenset({Commission, CommissionBack, ConsumptionBack})
_OUR_ACCOUNTS: Final = (AccountKind.RESELLER_ACCRUED, AccountKind.PLATFORM_REVENUE)
_OUR_TRANSFERS: Final = (Transfer.Kind.COMMISSION, Transfer.Kind.COMMISSION_BACK)
_LEFT_OUT: Final[dict[type[models.Model], Q]] = {
    Account: Q(kind__in=_OUR_ACCOUNTS),
    Transfer: Q(kind__in=_OUR_TRANSFERS),
    Entry: Q(account__kind__in=_OUR_ACCOUNTS) | Q(transfer__kind__in=_OUR_TRANSFERS),
}


def ask(*, tenant: Tenant, actor: str) -> TenantExport:
    """Ask for an archive; the caller enqueues `make` after the commit.

    Raises ProductError QUOTA "export_running" while one is under way.
    """
    with scope.tenant(tenant.pk), transaction.atomic():
        Branding.objects.select_for_update(no_key=True).filter(tenant=tenant).first()  # one asks at a time
        running = TenantExport.objects.filter(
            state__in=[TenantExport.State.QUEUED, TenantExport.State.RUNNING], created_at__gt=Now() - _LONGEST
        )
        if running.exists():
            raise ProductError(
                ErrorCode.QUOTA,
                _("An archive is being made already. Please wait for it."),
                type="export_running",
                scope="tenant",
                action="wait",
                reset_at=None,
                used=1,
                limit=1,
            )
        made = TenantExport.objects.create(tenant=tenant, asked_by=actor)
        history.record(tenant=tenant, kind=TenantEvent.Kind.EXPORTED, actor=actor, export=str(made.pk))
    return made


def make(*, tenant_id: int, export_id: uuid.UUID) -> bool:
    """Make an archive that was asked for; False if somebody else does, or did."""
    with scope.tenant(tenant_id):
        queued = TenantExport.objects.filter(pk=export_id, state=TenantExport.State.QUEUED)
        if queued.update(state=TenantExport.State.RUNNING, rows_total=_total()) != 1:
            return False
        export = TenantExport.objects.get(pk=export_id)
        try:
            path = _write(export)
        except Exception:
            log.exception("export_failed", export=str(export_id))
            _end(export, state=TenantExport.State.FAILED)
            raise
        _end(
            export,
            state=TenantExport.State.DONE,
            size=path.stat().st_size,
            sha256=_sha256(path),
            expires_at=timezone.now() + timedelta(days=settings.EXPORT_DAYS),
        )
    return True


def path_of(export: TenantExport) -> Path:
    """Return where an archive lies, or will; the name has 122 random bits, the folder is the service's own."""
    return Path(settings.EXPORT_DIR) / f"{export.tenant_id}-{export.pk}.zip"


def forget() -> int:
    """Throw away archives whose days are over, and give up those of dead workers; return how many."""
    gone = 0
    with scope.platform("archives of every tenant"):
        late = TenantExport.objects.filter(
            state__in=[TenantExport.State.QUEUED, TenantExport.State.RUNNING], created_at__lt=Now() - _LONGEST
        )
        for export in late:
            _end(export, state=TenantExport.State.FAILED)
            path_of(export).with_suffix(".part").unlink(missing_ok=True)
            gone += 1
        for export in TenantExport.objects.filter(state=TenantExport.State.DONE, expires_at__lte=Now()):
            throw_away(export)
            gone += 1
    return gone


def throw_away(export: TenantExport) -> None:
    """Delete an archive's file; its row stays, to say that there was one."""
    path_of(export).unlink(missing_ok=True)
    TenantExport.objects.filter(pk=export.pk).update(state=TenantExport.State.EXPIRED)


def exported_models() -> list[type[TenantOwned]]:
    """Return every kind of row that belongs to tenants, but for the platform's own business, by label."""
    owned = [model for model in apps.get_models() if issubclass(model, TenantOwned) and model not in OUR_MODELS]
    return sorted(owned, key=lambda model: model._meta.label)


def columns_of(model: type[models.Model]) -> list["models.Field[Any, Any]"]:
    """Return the columns of a kind of row that are taken along."""
    return [
        field
        for field in model._meta.concrete_fields
        if not isinstance(field, EncryptedTextField)
        and f"{model._meta.label}.{field.name}" not in _WAITING
        and field.name not in SECRET_COLUMNS | OUR_COLUMNS
        and not (isinstance(field, _TEXTS) and any(word in field.name for word in _SECRET_WORDS))
    ]


def _total() -> int:
    return 1 + sum(_rows(model).count() for model in exported_models())


def _rows(model: type[TenantOwned]) -> "models.QuerySet[Any]":
    rows = model.objects.all()
    return rows.exclude(_LEFT_OUT[model]) if model in _LEFT_OUT else rows


def _write(export: TenantExport) -> Path:
    path = path_of(export)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    files: list[dict[str, Any]] = []
    done = 0
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as bag:
        for model in exported_models():
            digest, rows = hashlib.sha256(), 0
            with bag.open(f"{model._meta.label_lower}.jsonl", "w", force_zip64=True) as file:
                for page in _pages(model):
                    lines = "".join(f"{_line(row)}\n" for row in page).encode()
                    file.write(lines)
                    digest.update(lines)
                    rows += len(page)
                    TenantExport.objects.filter(pk=export.pk).update(rows_done=done + rows)
            done += rows
            files.append({"file": f"{model._meta.label_lower}.jsonl", "rows": rows, "sha256": digest.hexdigest()})
        bag.writestr("manifest.json", json.dumps(_manifest(export, files), ensure_ascii=False, indent=1))
    part.replace(path)
    return path


def _pages(model: type[TenantOwned]) -> Iterator[list[Any]]:
    """Yield a kind of row page by page, each after the last row of the one before."""
    rows = _rows(model).order_by("pk")
    has_pictures = any(isinstance(field, models.BinaryField) for field in model._meta.concrete_fields)
    size = _PAGE_OF_PICTURES if has_pictures else _PAGE
    page = list(rows[:size])
    while page:
        yield page
        page = list(rows.filter(pk__gt=page[-1].pk)[:size])


def _line(row: TenantOwned) -> str:
    told = {field.attname: _value(field, row) for field in columns_of(type(row))}
    return json.dumps(told, cls=DjangoJSONEncoder, ensure_ascii=False)


def _value(field: "models.Field[Any, Any]", row: TenantOwned) -> Any:
    """Return a column's value; bytes as Base64, as JSON has no others."""
    is_bytes = isinstance(field, models.BinaryField)
    return field.value_to_string(row) if is_bytes else field.value_from_object(row)


def _manifest(export: TenantExport, files: list[dict[str, Any]]) -> dict[str, Any]:
    tenant = Tenant.objects.get(pk=export.tenant_id)
    return {
        "format": FORMAT,
        "tenant": {"slug": tenant.slug, "name": tenant.name, "timezone": tenant.timezone, "language": tenant.language},
        "made_at": timezone.now().isoformat(),
        "amounts": "integers of micro-yuan: 1,000,000 are ¥1",
        "files": files,
    }


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _end(export: TenantExport, **values: Any) -> None:
    TenantExport.objects.filter(pk=export.pk).update(ended_at=timezone.now(), **values)
