"""SQL written by hand reads and writes rows as the ORM does."""

from contextlib import suppress
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from pytest_django import DjangoAssertNumQueries

from tenants import scope
from tenants.models import EndUser
from tenants.scope import WrongScopeError
from tenants.table import Query, Statement, Table, fetch, fetch_all, run, run_all
from tests.factories import make_tenant, make_user

ONE = Query("SELECT 1", {}, list)


def values_of(row: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(row).items() if name != "_state"}


@pytest.mark.django_db
def test_an_inserted_row_is_what_the_orm_would_have_inserted() -> None:
    tenant = make_tenant()
    with scope.tenant(tenant.pk):
        by_orm = EndUser.objects.create(tenant=tenant, nickname="a %s; 'b'", phone="+8613800000001")
        mine = EndUser(id=by_orm.pk + 1000, tenant=tenant, nickname="a %s; 'b'", phone="+8613800000002")
        assert run_all([Table(EndUser).insertion(mine)]) == [1]
        found = {row.pk: values_of(row) for row in EndUser.objects.all()}
    differing = {name for name in found[mine.pk] if found[mine.pk][name] != found[by_orm.pk][name]}
    assert differing == {"id", "phone", "created_at"}
    assert found[mine.pk]["created_at"] > found[by_orm.pk]["created_at"]


@pytest.mark.django_db
def test_no_row_of_another_tenant_is_written() -> None:
    one, two = make_tenant(), make_tenant()
    with scope.tenant(one.pk), pytest.raises(WrongScopeError):
        Table(EndUser).insertion(EndUser(id=1, tenant=two))


@pytest.mark.django_db
def test_statements_go_together_and_each_has_its_own_values(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    user = make_user(make_tenant(), nickname="before")
    change = "UPDATE tenants_enduser SET nickname = %(name)s WHERE id = %(id)s AND nickname = %(was)s"
    with django_assert_num_queries(1):
        counts = run_all(
            [
                Statement(change, {"id": user.pk, "name": "a; %(name)s", "was": "before"}),
                Statement(change, {"id": user.pk, "name": "never", "was": "before"}),
                Statement(change, {"id": user.pk, "name": "last", "was": "a; %(name)s"}),
            ]
        )
    assert counts == [1, 0, 1]
    name = Query("SELECT nickname FROM tenants_enduser WHERE id = %(id)s", {"id": user.pk}, lambda rows: rows[0][0])
    with django_assert_num_queries(1):
        assert fetch_all(ONE, name, Query("SELECT 2 WHERE false", {}, list)) == [[(1,)], "last", []]


def test_statements_sent_together_stand_or_fall_together(committed_db: None) -> None:
    user = make_user(make_tenant(), nickname="before")
    change = Statement("UPDATE tenants_enduser SET nickname = 'after' WHERE id = %(id)s", {"id": user.pk})
    bad = Statement("INSERT INTO tenants_enduser (id, tenant_id) VALUES (%(id)s, NULL)", {"id": user.pk})
    with pytest.raises(IntegrityError):
        run_all([change, bad])
    assert fetch(Query("SELECT nickname FROM tenants_enduser WHERE id = %(id)s", {"id": user.pk}, list)) == [
        ("before",)
    ]


def test_a_transaction_begins_with_its_first_statement(committed_db: None) -> None:
    user = make_user(make_tenant(), nickname="before")
    change = "UPDATE tenants_enduser SET nickname = %(name)s WHERE id = %(id)s"
    name = Query("SELECT nickname FROM tenants_enduser WHERE id = %(id)s", {"id": user.pk}, list)
    with transaction.atomic():
        run(change, {"id": user.pk, "name": "first"})
        run(change, {"id": user.pk, "name": "second"})
        transaction.set_rollback(True)
    assert fetch(name) == [("before",)]
    with transaction.atomic():
        assert fetch_all(name, ONE) == [[("before",)], [(1,)]]
        run(change, {"id": user.pk, "name": "after"})
    connection.close()
    assert fetch(name) == [("after",)]


def test_where_the_first_statement_fails_the_transaction_does(committed_db: None) -> None:
    user = make_user(make_tenant(), nickname="before")
    change = Statement("UPDATE tenants_enduser SET nickname = 'after' WHERE id = %(id)s", {"id": user.pk})
    for broken in ("SELECT 1 / 0", "SELECT FROM nowhere", "SELEKT 1"):
        with transaction.atomic():
            for statements in ([Statement(broken, {}), change], [change]):
                with suppress(DatabaseError):
                    run_all(statements)
            transaction.set_rollback(True)
    assert fetch(Query("SELECT nickname FROM tenants_enduser WHERE id = %(id)s", {"id": user.pk}, list)) == [
        ("before",)
    ]
