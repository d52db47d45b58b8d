"""What the database itself holds, for every app: keys within a tenant are composite, resale has two levels."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.db import IntegrityError, connection, transaction
from django.db.migrations import AddField, CreateModel
from django.db.migrations.loader import MigrationLoader

from tenants.models import PlatformMembership, Reseller, Tenant
from tenants.scope import TenantOrPlatformOwned, TenantOwned
from tests.factories import make_reseller, make_staff, make_tenant

pytestmark = pytest.mark.django_db

COMPOSITE_KEYS = """
    SELECT child.relname, parent.relname,
           (SELECT array_agg(attname::text ORDER BY place) FROM unnest(conkey) WITH ORDINALITY AS k(number, place)
              JOIN pg_attribute ON attrelid = conrelid AND attnum = number),
           (SELECT array_agg(attname::text ORDER BY place) FROM unnest(confkey) WITH ORDINALITY AS k(number, place)
              JOIN pg_attribute ON attrelid = confrelid AND attnum = number)
      FROM pg_constraint JOIN pg_class child ON child.oid = conrelid JOIN pg_class parent ON parent.oid = confrelid
     WHERE contype = 'f' AND cardinality(conkey) = 2 AND convalidated
"""

# The last migrations that nobody ran beside the code before them.
LAST_OF_THE_BEGINNING = {"tenants": "0013", "billing": "0017", "chat": "0010", "lifecycle": "0003"}
WITHOUT_DEFAULT = """
    SELECT table_name::text, column_name::text FROM information_schema.columns
     WHERE table_schema = 'public' AND is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO'
"""


def _keys_between_tenants_rows() -> Iterator[tuple[str, str, str]]:
    """Every key from a tenant's row to a row that always has a tenant: table, column, target table."""
    for model in apps.get_models(include_auto_created=True):
        for field in model._meta.local_concrete_fields:
            target: Any = field.related_model if field.is_relation else None
            if (
                isinstance(target, type)
                and issubclass(model, TenantOwned)
                and issubclass(target, TenantOwned)
                and not issubclass(target, TenantOrPlatformOwned)
            ):
                yield model._meta.db_table, str(field.column), target._meta.db_table


def test_every_key_between_tenants_rows_is_composite_in_the_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute(COMPOSITE_KEYS)
        composite = {
            (table, columns[1], target)
            for table, target, columns, target_columns in cursor.fetchall()
            if columns[0] == "tenant_id" and target_columns == ["tenant_id", "id"]
        }
    wanted = set(_keys_between_tenants_rows())
    assert ("tenants_accesstoken", "user_id", "tenants_enduser") in wanted
    assert wanted - composite == set()


def test_every_unique_rule_of_a_tenants_row_begins_with_the_tenant() -> None:
    """So that tables can be distributed by tenant; the exceptions are what tells tenants apart."""
    everywhere = {
        f"{model._meta.label}.{field.name}"
        for model in apps.get_models()
        if issubclass(model, TenantOwned)
        for field in model._meta.local_concrete_fields
        if field.unique and not field.primary_key and field.name != "tenant"
    }
    assert {name for name in everywhere if name.startswith("tenants.")} == {
        "tenants.Domain.host",
        "tenants.MiniProgram.app_id",
    }


def _columns_younger_than_their_table() -> Iterator[tuple[str, str]]:
    """Every column that a migration of ours has added to a table which there was: table, column."""
    for (app, name), migration in MigrationLoader(None).disk_migrations.items():
        if name[:4] <= LAST_OF_THE_BEGINNING.get(app, "9999"):
            continue
        made = {step.name.lower() for step in migration.operations if isinstance(step, CreateModel)}
        for step in migration.operations:
            if isinstance(step, AddField) and step.model_name.lower() not in made:
                field = step.field.clone()
                field.set_attributes_from_name(step.name)
                yield f"{app}_{step.model_name.lower()}", str(field.column)


def test_code_that_does_not_know_a_column_can_write_its_row() -> None:
    """The web process before this one runs for a while beside it (docs/deployment.md), after `migrate`."""
    younger = set(_columns_younger_than_their_table())
    with connection.cursor() as cursor:
        cursor.execute(WITHOUT_DEFAULT)
        wanted_by_the_database = set(cursor.fetchall())
    assert {("chat_message", "attachments"), ("chat_message", "reasoning")} - younger == set()
    assert younger & wanted_by_the_database == set()


def test_resellers_have_two_levels() -> None:
    top = make_reseller()
    second = make_reseller(parent=top)
    assert (top.depth, second.depth) == (1, 2)
    for depth in (1, 2, 3):
        with pytest.raises(IntegrityError), transaction.atomic():
            Reseller.objects.create(slug="third", name="third", parent=second, depth=depth)


def test_a_reseller_with_resellers_cannot_sink() -> None:
    top, other = make_reseller(), make_reseller()
    make_reseller(parent=top)
    with pytest.raises(IntegrityError, match="stays on the first level"), transaction.atomic():
        Reseller.objects.filter(pk=top.pk).update(parent=other, depth=2)
    assert Reseller.objects.filter(pk=other.pk).update(parent=top, depth=2) == 1


@pytest.mark.parametrize(("depth", "has_parent"), [(2, False), (1, True), (0, False), (3, True)])
def test_depth_and_parent_agree(depth: int, has_parent: bool) -> None:  # noqa: FBT001  # a case's column
    parent = make_reseller() if has_parent else None
    with pytest.raises(IntegrityError, match="tenants_reseller_depth"), transaction.atomic():
        Reseller.objects.create(slug="odd", name="odd", parent=parent, depth=depth)


def test_a_reseller_is_not_its_own_parent() -> None:
    reseller = make_reseller()
    with pytest.raises(IntegrityError), transaction.atomic():
        Reseller.objects.filter(pk=reseller.pk).update(parent=reseller, depth=2)


def test_a_platform_membership_names_a_reseller_where_it_is_one() -> None:
    staff, reseller = make_staff(), make_reseller()
    for role, named in (("operator", reseller), ("reseller", None)):
        with pytest.raises(IntegrityError, match="tenants_platformmembership_reseller"), transaction.atomic():
            PlatformMembership.objects.create(staff=staff, role=role, reseller=named)
    PlatformMembership.objects.create(staff=staff, role="operator")
    with pytest.raises(IntegrityError, match="tenants_platformmembership_once"), transaction.atomic():
        PlatformMembership.objects.create(staff=staff, role="operator")


@pytest.mark.parametrize("values", [{"status": "gone"}, {"language": "fr"}, {"on_disconnect": "bill"}])
def test_a_tenant_has_no_other_states(values: dict[str, str]) -> None:
    tenant = make_tenant()
    with pytest.raises(IntegrityError), transaction.atomic():
        Tenant.objects.filter(pk=tenant.pk).update(**values)
