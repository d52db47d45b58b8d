"""The current tenant: the only door to a tenant's rows.

    with scope.tenant(tenant_id): ...      this tenant's rows, nothing else
    with scope.platform("why"): ...        every tenant's rows: the operator's admin and Celery's sweeps only

No scope, no rows: a tenant-owned model's manager raises `NoScopeError`, for reads and for writes, in sync and in async
code. The scope is a context variable, so each task and each thread hop has its own; it must be entered where the
rows are touched and left before anything is yielded to a client.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, TypeVar

from django.core import checks
from django.db import models
from django.db.models.constraints import BaseConstraint
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django.apps import AppConfig
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor

PLATFORM: Final = "platform"

_scope: ContextVar[int | str | None] = ContextVar("tenant_scope", default=None)


class ScopeError(RuntimeError):
    """A fault of ours: rows were touched that the current scope does not own.

    ScopeError
    ├── NoScopeError      no scope was entered
    └── WrongScopeError   the row belongs to another tenant
    """


class NoScopeError(ScopeError):
    """A tenant's rows were asked for while no scope was active."""


class WrongScopeError(ScopeError):
    """A row of another tenant was about to be written."""


@contextmanager
def tenant(tenant_id: int) -> Iterator[None]:
    """Enter the scope of one tenant. Scopes of two tenants do not nest: that would be a leak in the making."""
    active = _scope.get()
    if active is not None and active not in (PLATFORM, tenant_id):
        msg = f"scope of tenant {tenant_id} inside the scope of tenant {active}"
        raise WrongScopeError(msg)
    mark = _scope.set(tenant_id)
    try:
        yield
    finally:
        _scope.reset(mark)


@contextmanager
def platform(why: str) -> Iterator[None]:
    """Enter the scope of the platform, which sees every tenant. `why` is for the reader of the call."""
    if not why:
        msg = "crossing tenants needs a reason"
        raise ValueError(msg)
    if isinstance(_scope.get(), int):
        msg = "a tenant's code may not widen its own scope"
        raise WrongScopeError(msg)
    mark = _scope.set(PLATFORM)
    try:
        yield
    finally:
        _scope.reset(mark)


def current_tenant_id() -> int | None:
    """Return the tenant in scope, None in the platform's; raise NoScopeError where there is none."""
    active = _scope.get()
    if active is None:
        msg = "no tenant scope: enter scope.tenant(id) around the query"
        raise NoScopeError(msg)
    return active if isinstance(active, int) else None


def _require_owner(tenant_id: int | None) -> None:
    """Refuse to write a row that the current scope does not own."""
    active = current_tenant_id()
    if active is not None and active != tenant_id:
        msg = f"a row of tenant {tenant_id} in the scope of tenant {active}"
        raise WrongScopeError(msg)


ModelT = TypeVar("ModelT", bound="TenantOwned")


class TenantQuerySet(models.QuerySet[ModelT]):
    """Rows of the scope that was active when the query was begun; writes are checked row by row."""

    def update(self, **values: Any) -> int:
        """Update in bulk; the tenant of a row never changes."""
        if "tenant" in values or "tenant_id" in values:
            msg = "a row's tenant cannot be changed"
            raise WrongScopeError(msg)
        return super().update(**values)

    def bulk_create(self, objs: Iterable[ModelT], *args: Any, **kwargs: Any) -> list[ModelT]:
        """Insert in bulk, after checking each row's owner."""
        rows = list(objs)
        for row in rows:
            _require_owner(row.tenant_id)
        return super().bulk_create(rows, *args, **kwargs)

    def bulk_update(self, objs: Iterable[ModelT], fields: Iterable[str], *args: Any, **kwargs: Any) -> int:
        """Update in bulk, after checking each row's owner."""
        rows = list(objs)
        for row in rows:
            _require_owner(row.tenant_id)
        if {"tenant", "tenant_id"} & set(fields):
            msg = "a row's tenant cannot be changed"
            raise WrongScopeError(msg)
        return super().bulk_update(rows, fields, *args, **kwargs)

    def raw(self, *_args: Any, **_kwargs: Any) -> Any:
        """Refuse: raw SQL through a manager would pass the scope by."""
        msg = "raw() knows no tenant: write the statement where its tenant is a parameter"
        raise ScopeError(msg)


class TenantManager(models.Manager[ModelT]):
    """The manager of every tenant-owned model: default, base and related."""

    def get_queryset(self) -> TenantQuerySet[ModelT]:
        """Return the rows of the current scope; raise NoScopeError where there is none."""
        active = current_tenant_id()
        rows = TenantQuerySet(self.model, using=self._db, hints=getattr(self, "_hints", None))
        return rows if active is None else rows.filter(tenant_id=active)

    def raw(self, *_args: Any, **_kwargs: Any) -> Any:
        """Refuse, as the query set does."""
        return self.get_queryset().raw()


class SameTenant(BaseConstraint):
    """A composite foreign key (tenant, other) -> other's (tenant, id).

    The database itself then refuses a row that points at another tenant's row. It replaces the plain foreign key,
    which is declared with `db_constraint=False`; the target has the unique pair from `TenantOwned.Meta`.
    """

    def __init__(self, *, field: str, name: str) -> None:
        super().__init__(name=name)
        self.field = field

    def constraint_sql(self, model: type[models.Model], schema_editor: "BaseDatabaseSchemaEditor") -> str:
        """Return the clause for CREATE TABLE."""
        field = model._meta.get_field(self.field)
        quote = schema_editor.quote_name
        target = field.related_model._meta  # type: ignore[union-attr]  a foreign key
        return (
            f"CONSTRAINT {quote(self.name)} FOREIGN KEY (tenant_id, {quote(field.column)}) "  # type: ignore[union-attr]
            f"REFERENCES {quote(target.db_table)} (tenant_id, {quote(target.pk.column)}) DEFERRABLE INITIALLY DEFERRED"
        )

    def create_sql(self, model: type[models.Model], schema_editor: "BaseDatabaseSchemaEditor") -> str:
        """Return the statement that adds the constraint."""
        table = schema_editor.quote_name(model._meta.db_table)
        return f"ALTER TABLE {table} ADD {self.constraint_sql(model, schema_editor)}"

    def remove_sql(self, model: type[models.Model], schema_editor: "BaseDatabaseSchemaEditor") -> str:
        """Return the statement that drops the constraint."""
        quote = schema_editor.quote_name
        return f"ALTER TABLE {quote(model._meta.db_table)} DROP CONSTRAINT {quote(self.name)}"

    def validate(self, *_args: Any, **_kwargs: Any) -> None:
        """Leave it to the database: choices in forms are scoped already."""

    def deconstruct(self) -> tuple[str, tuple[()], dict[str, Any]]:
        """Describe the constraint to migrations."""
        path, _args, _kwargs = super().deconstruct()
        return path, (), {"name": self.name, "field": self.field}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameTenant) and (self.name, self.field) == (other.name, other.field)

    def __hash__(self) -> int:
        return hash((self.name, self.field))


class TenantOwned(models.Model):
    """A row that belongs to one tenant. A model's own Meta extends `TenantOwned.Meta` and adds to its constraints."""

    # The unique pair (tenant, id) below serves as the key's index.
    tenant = models.ForeignKey(
        "tenants.Tenant", verbose_name=_("tenant"), on_delete=models.PROTECT, related_name="+", db_index=False
    )

    objects: ClassVar[TenantManager[Self]] = TenantManager()

    class Meta:
        abstract = True
        base_manager_name = "objects"
        default_manager_name = "objects"
        constraints: ClassVar[list[BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "id"], name="%(app_label)s_%(class)s_tenant_id"),
        ]

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save within the scope that owns the row."""
        _require_owner(self.tenant_id)
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Delete within the scope that owns the row."""
        _require_owner(self.tenant_id)
        return super().delete(*args, **kwargs)


class TenantOrPlatformOwned(TenantOwned):
    """A row of one tenant, or, where the tenant is empty, of the platform; only the platform's scope sees those."""

    tenant = models.ForeignKey(  # type: ignore[assignment]  the same key, but it may be empty
        "tenants.Tenant",
        verbose_name=_("tenant"),
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
        null=True,
        blank=True,
    )

    class Meta(TenantOwned.Meta):
        abstract = True


@checks.register(checks.Tags.models)
def check_tenant_owned(app_configs: "list[AppConfig] | None", **_kwargs: Any) -> list[checks.CheckMessage]:
    """Every model with a key to Tenant is tenant-owned, keeps its managers, and points within its tenant only."""
    from django.apps import apps  # noqa: PLC0415  the registry is ready when checks run

    found: list[checks.CheckMessage] = []
    configs = app_configs if app_configs is not None else list(apps.get_app_configs())
    for model in (model for config in configs for model in config.get_models()):
        keys = [f for f in model._meta.concrete_fields if f.is_relation and f.remote_field is not None]
        to_tenant = [f for f in keys if f.related_model._meta.label == "tenants.Tenant"]  # type: ignore[union-attr]
        if not to_tenant:
            continue
        if not issubclass(model, TenantOwned):
            found.append(checks.Error("has a key to Tenant and must inherit TenantOwned", obj=model, id="tenants.E001"))
            continue
        managers = (model._meta.base_manager, model._meta.default_manager, *model._meta.managers)
        if not all(isinstance(manager, TenantManager) for manager in managers):
            found.append(checks.Error("has a manager that knows no scope", obj=model, id="tenants.E002"))
        guarded = {c.field for c in model._meta.constraints if isinstance(c, SameTenant)}
        for key in keys:
            # A key to a row that the platform may own (its tenant empty) cannot be composite; services check those.
            target: Any = key.related_model
            owned = issubclass(target, TenantOwned) and not issubclass(target, TenantOrPlatformOwned)
            if owned and key.name not in guarded:
                found.append(checks.Error(f"{key.name} needs a SameTenant constraint", obj=model, id="tenants.E003"))
    return found
