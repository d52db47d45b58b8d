"""A model's table for SQL written by hand: what every chat runs. The ORM serves everything else.

The ORM builds each statement anew, at several times what the database's own answer costs. Here a statement is a
constant; only the columns' names come from the model, so that a new column is read and written by being there. A
statement names its tenant itself: nothing here adds a scope to it, but no row of another tenant is written.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from django.db import connection
from django.db.models.expressions import DatabaseDefault

from tenants import scope
from tenants.scope import TenantOwned

ModelT = TypeVar("ModelT", bound=TenantOwned)


class Table(Generic[ModelT]):
    """The table of one model."""

    def __init__(self, model: type[ModelT]) -> None:
        self._model = model
        fields = model._meta.concrete_fields
        self.width = len(fields)
        self._fields = [(field, field.column, field.attname) for field in fields]
        self._names = [field.attname for field in fields]
        # Of what is not stored as it is: secrets, JSON.
        self._converters = [
            (place, field.from_db_value) for place, field in enumerate(fields) if hasattr(field, "from_db_value")
        ]

    def columns(self, alias: str) -> str:
        """Return what a SELECT lists for a row of `alias`; `width` values, which `row` takes."""
        return ", ".join(f'{alias}."{column}"' for _field, column, _name in self._fields)

    def select(self, rest: str) -> str:
        """Return the statement that reads whole rows, which it calls "it"; `rest` begins with WHERE."""
        return f"SELECT {self.columns('it')} FROM {self._model._meta.db_table} it {rest}"  # noqa: S608  our own names

    def row(self, values: Sequence[Any]) -> ModelT:
        """Return the instance that a row's values stand for."""
        if self._converters:
            values = list(values)
            for place, convert in self._converters:
                values[place] = convert(values[place], None, connection)
        return self._model.from_db(connection.alias, self._names, values)

    def insert(self, instance: ModelT) -> None:
        """Insert an instance whose key is set; what has a default of the database, and no value, gets that."""
        scope.require_owner(instance.tenant_id)
        columns, places, values = [], [], []
        for field, column, _name in self._fields:
            value = field.pre_save(instance, add=True)
            columns.append(f'"{column}"')
            if isinstance(value, DatabaseDefault):
                places.append("DEFAULT")
            else:
                places.append("%s")
                values.append(field.get_db_prep_save(value, connection))
        statement = f"INSERT INTO {self._model._meta.db_table} ({', '.join(columns)}) VALUES ({', '.join(places)})"  # noqa: S608  our own names
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
        instance._state.adding = False  # noqa: SLF001  as the ORM's own insert does


def run(statement: str, parameters: Mapping[str, Any]) -> int:
    """Run a statement; return how many rows it changed."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)


def select(statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Return the rows of a SELECT."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows
