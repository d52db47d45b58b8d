"""The current tenant: the only door to a tenant's rows.

    with scope.tenant(tenant_id): ...      this tenant's rows, nothing else
    with scope.several(tenant_ids): ...    these tenants' rows, to look at: a reseller's, in the portal
    with scope.platform("why"): ...        every tenant's rows: the operator's admin and Celery's sweeps only

No scope, no rows: a tenant-owned model's manager raises `NoScopeError`, for reads and for writes, in sync and in async
code. The scope is a context variable, so each task and each thread hop has its own; it must be entered where the
rows are touched and left before anything is yielded to a client.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, TypeVar, cast

from django.core import checks
from django.db import models
from django.db.models.constraints import BaseConstraint
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django.apps import AppConfig
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor

PLATFORM: Final = "platform"

_scope: ContextVar[int | frozenset[int] | str | None] = ContextVar("tenant_scope", default=None)


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
    may_enter = tenant_id in active if isinstance(active, frozenset) else active in {None, PLATFORM, tenant_id}
    if not may_enter:
        raise WrongScopeError(f"scope of tenant {tenant_id} inside the scope of tenant {active}")
    mark = _scope.set(tenant_id)
    try:
        yield
    finally:
        _scope.reset(mark)


@contextmanager
def several(tenant_ids: Iterable[int]) -> Iterator[None]:
    """Enter the scope of some tenants, to look at only; the scope of one of them may be entered within."""
    active, wanted = _scope.get(), frozenset(tenant_ids)
    may_enter = wanted <= active if isinstance(active, frozenset) else active in {None, PLATFORM}
    if not may_enter:
        raise WrongScopeError("a scope may not be widened to other tenants")
    mark = _scope.set(wanted)
    try:
        yield
    finally:
        _scope.reset(mark)


@contextmanager
def platform(why: str) -> Iterator[None]:
    """Enter the scope of the platform, which sees every tenant. `why` is for the reader of the call."""
    if not why:
        raise ValueError("crossing tenants needs a reason")
    if isinstance(_scope.get(), int | frozenset):
        raise WrongScopeError("a tenant's code may not widen its own scope")
    mark = _scope.set(PLATFORM)
    try:
        yield
    finally:
        _scope.reset(mark)


def current_tenant_id() -> int | None:
    """Return the tenant in scope, None in the platform's; raise ScopeError where there is none, or several."""
    _refuse_several()
    active = _active()
    return active if isinstance(active, int) else None


def _refuse_several() -> None:
    """Refuse what is not only to look at where several tenants are in scope."""
    if isinstance(_scope.get(), frozenset):
        raise WrongScopeError("several tenants are in scope, to look at only")


def _active() -> int | frozenset[int] | str:
    active = _scope.get()
    if active is None:
        raise NoScopeError("no tenant scope: enter scope.tenant(id) around the query")
    return active


def require_owner(tenant_id: int | None) -> None:
    """Refuse to write a row that the current scope does not own."""
    active = current_tenant_id()
    if active is not None and active != tenant_id:
        raise WrongScopeError(f"a row of tenant {tenant_id} in the scope of tenant {active}")


_TENANT: Final = frozenset({"tenant", "tenant_id"})


def _refuse_tenant(fields: Iterable[str]) -> None:
    """Refuse to write the tenant's own column: rows do not change hands."""
    if _TENANT & set(fields):
        raise WrongScopeError("a row's tenant cannot be changed")


ModelT = TypeVar("ModelT", bound="TenantOwned")


class TenantQuerySet(models.QuerySet[ModelT]):
    """Rows of the scope that was active when the query was begun; writes are checked row by row."""

    def update(self, **values: Any) -> int:
        """Update in bulk; the tenant of a row never changes."""
        _refuse_tenant(values)
        _refuse_several()
        return super().update(**values)

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete in bulk."""
        _refuse_several()
        return super().delete()

    def bulk_create(  # noqa: PLR0913, PLR0917  # Django's signature
        self,
        objs: Iterable[ModelT],
        batch_size: int | None = None,
        ignore_conflicts: bool = False,  # noqa: FBT001, FBT002  # Django's signature
        update_conflicts: bool = False,  # noqa: FBT001, FBT002  # Django's signature
        update_fields: Collection[str] | None = None,
        unique_fields: Collection[str] | None = None,
    ) -> list[ModelT]:
        """Insert in bulk, after checking each row's owner.

        An upsert must name the tenant among its unique fields: else the row that it finds, and overwrites, may be
        another tenant's.
        """
        rows = list(objs)
        for row in rows:
            require_owner(row.tenant_id)
        if update_conflicts and not _TENANT & set(unique_fields or ()):
            raise WrongScopeError("an upsert needs the tenant among its unique fields")
        _refuse_tenant(update_fields or ())
        return super().bulk_create(rows, batch_size, ignore_conflicts, update_conflicts, update_fields, unique_fields)

    def bulk_update(self, objs: Iterable[ModelT], fields: Iterable[str], *args: Any, **kwargs: Any) -> int:
        """Update in bulk, after checking each row's owner."""
        rows = list(objs)
        for row in rows:
            require_owner(row.tenant_id)
        fields = list(fields)
        _refuse_tenant(fields)
        return super().bulk_update(rows, fields, *args, **kwargs)

    def raw(self, *_args: Any, **_kwargs: Any) -> Any:
        """Refuse: raw SQL through a manager would pass the scope by."""
        raise ScopeError("raw() knows no tenant: write the statement where its tenant is a parameter")


class TenantManager(models.Manager[ModelT]):
    """The manager of every tenant-owned model: default, base and related."""

    def get_queryset(self) -> TenantQuerySet[ModelT]:
        """Return the rows of the current scope; raise NoScopeError where there is none."""
        active = _active()
        rows: TenantQuerySet[ModelT] = TenantQuerySet(self.model, using=self._db, hints=getattr(self, "_hints", None))
        if isinstance(active, frozenset):
            return rows.filter(tenant_id__in=active)
        return rows.filter(tenant_id=active) if isinstance(active, int) else rows

    def raw(self, *_args: Any, **_kwargs: Any) -> Any:
        """Refuse, as the query set does."""
        return self.get_queryset().raw()


def _table(model: type[models.Model] | None, schema_editor: "BaseDatabaseSchemaEditor | None") -> str:
    """Return a model's table, quoted."""
    if model is None or schema_editor is None:
        raise ValueError("a constraint needs its table")
    return schema_editor.quote_name(model._meta.db_table)


class SameTenant(BaseConstraint):
    """A composite foreign key (tenant, other) -> other's (tenant, id).

    The database itself then refuses a row that points at another tenant's row. It replaces the plain foreign key,
    which is declared with `db_constraint=False`; the target has the unique pair from `TenantOwned.Meta`.
    """

    def __init__(self, *, field: str, name: str) -> None:
        super().__init__(name=name)
        self.field = field

    def constraint_sql(self, model: type[models.Model] | None, schema_editor: "BaseDatabaseSchemaEditor | None") -> str:
        """Return the clause for CREATE TABLE."""
        if model is None or schema_editor is None:
            raise ValueError("a foreign key is between tables")
        quote = schema_editor.quote_name
        key = cast("models.ForeignKey[Any, Any]", model._meta.get_field(self.field))
        column, target = quote(str(key.column)), quote(key.related_model._meta.db_table)
        target_column = quote(str(key.target_field.column))
        return (
            f"CONSTRAINT {quote(self.name)} FOREIGN KEY (tenant_id, {column}) "
            f"REFERENCES {target} (tenant_id, {target_column}) DEFERRABLE INITIALLY DEFERRED"
        )

    def create_sql(self, model: type[models.Model] | None, schema_editor: "BaseDatabaseSchemaEditor | None") -> str:
        """Return the statement that adds the constraint."""
        clause = self.constraint_sql(model, schema_editor)
        return f"ALTER TABLE {_table(model, schema_editor)} ADD {clause}"

    def remove_sql(self, model: type[models.Model] | None, schema_editor: "BaseDatabaseSchemaEditor | None") -> str:
        """Return the statement that drops the constraint."""
        return f'ALTER TABLE {_table(model, schema_editor)} DROP CONSTRAINT "{self.name}"'

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

    def __str__(self) -> str:
        """Name the row in the reader's language, by its number: a person's name would get into logs."""
        return f"{self._meta.verbose_name} {self.pk}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save within the scope that owns the row."""
        require_owner(self.tenant_id)
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Delete within the scope that owns the row."""
        require_owner(self.tenant_id)
        return super().delete(*args, **kwargs)


class TenantOrPlatformOwned(TenantOwned):
    """A row of one tenant, or, where the tenant is empty, of the platform; only the platform's scope sees those."""

    tenant = models.ForeignKey(  # type: ignore[assignment]  # the same key, but it may be empty
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


def _relations(model: type[models.Model]) -> list[Any]:
    """Return the keys of a model's own table."""
    return [field for field in model._meta.concrete_fields if field.is_relation and field.remote_field is not None]


def _check_model(model: type[models.Model]) -> Iterator[checks.CheckMessage]:
    keys = _relations(model)
    owned_targets = [key for key in keys if issubclass(key.related_model, TenantOwned)]
    if not issubclass(model, TenantOwned):
        if any(key.related_model._meta.label == "tenants.Tenant" for key in keys):
            yield checks.Error("has a key to Tenant and must inherit TenantOwned", obj=model, id="tenants.E001")
        elif owned_targets:
            yield checks.Error("points at a tenant's rows and must inherit TenantOwned", obj=model, id="tenants.E004")
        return
    managers = (model._meta.base_manager, model._meta.default_manager, *model._meta.managers)
    if not all(isinstance(manager, TenantManager) for manager in managers):
        yield checks.Error("has a manager that knows no scope", obj=model, id="tenants.E002")
    rules = model._meta.constraints
    if not any(isinstance(rule, models.UniqueConstraint) and rule.fields == ("tenant", "id") for rule in rules):
        yield checks.Error("has a Meta that drops TenantOwned's constraints", obj=model, id="tenants.E005")
    guarded = {rule.field for rule in rules if isinstance(rule, SameTenant)}
    for key in owned_targets:
        # A key to a row that the platform may own (its tenant empty) cannot be composite; services check those.
        if not issubclass(key.related_model, TenantOrPlatformOwned) and key.name not in guarded:
            yield checks.Error(f"{key.name} needs a SameTenant constraint", obj=model, id="tenants.E003")


@checks.register(checks.Tags.models)
def check_tenant_owned(*, app_configs: "Sequence[AppConfig] | None", **_kwargs: Any) -> list[checks.CheckMessage]:
    """Every model with a key to Tenant is tenant-owned, keeps its managers, and points within its tenant only.

    A many-to-many field's own table has no tenant: it is found as E004, and wants a tenant-owned `through`.
    """
    from django.apps import apps  # noqa: PLC0415  # the registry is ready when checks run

    configs = app_configs if app_configs is not None else list(apps.get_app_configs())
    return [
        message
        for config in configs
        for model in config.get_models(include_auto_created=True)
        for message in _check_model(model)
    ]
