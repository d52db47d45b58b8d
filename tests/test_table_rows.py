"""Rows of every table read by hand are what the ORM reads."""

from functools import partial
from typing import Any

import pytest
from django.apps import apps

from tenants import scope
from tenants.scope import TenantOwned
from tenants.table import Query, Table, fetch
from tests.test_translations import rows_of_every_kind


def values_of(row: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(row).items() if name != "_state"}


def read_all(table: Table[Any], rows: list[Any]) -> list[dict[str, Any]]:
    return [values_of(table.row(row)) for row in rows]


@pytest.mark.django_db
def test_rows_of_every_table_read_as_the_orm_reads_them() -> None:
    rows_of_every_kind()
    seen = set()
    with scope.platform("a test over all tables"):
        for model in apps.get_models():
            if issubclass(model, TenantOwned):
                table: Table[Any] = Table(model)
                expected = [values_of(row) for row in model.objects.order_by("pk")]
                assert fetch(Query(table.select("ORDER BY id"), {}, partial(read_all, table))) == expected
                seen |= {model.__name__} if expected else set()
    assert {"Account", "Hold", "PriceVersion", "EndUser", "Message", "ModelOffer", "UpstreamAccount"} <= seen
