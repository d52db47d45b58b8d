"""A model's table for SQL written by hand: what every chat runs. The ORM serves everything else.

The ORM builds each statement anew, at several times what the database's own answer costs. Here a statement is a
constant; only the columns' names come from the model, so that a new column is read and written by being there. A
statement names its tenant itself: nothing here adds a scope to it, but no row of another tenant is written.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from django.db import connection, models
from django.db.models.expressions import DatabaseDefault

from tenants import scope
from tenants.scope import TenantOwned

ModelT = TypeVar("ModelT", bound=TenantOwned)


# Fields whose values psycopg takes as they are.
_PLAIN: Final = (
    models.BooleanField,
    models.CharField,
    models.DateField,
    models.ForeignKey,
    models.IntegerField,
    models.TextField,
    models.UUIDField,
)


class Table(Generic[ModelT]):
    """The table of one model."""

    def __init__(self, model: type[ModelT]) -> None:
        self._model = model
        self._fields = model._meta.concrete_fields
        self._names = [field.attname for field in self._fields]
        self.width = len(self._fields)
        # Of what is not stored as it is: secrets, JSON.
        self._converters = [
            (place, field.from_db_value) for place, field in enumerate(self._fields) if hasattr(field, "from_db_value")
        ]
        self._prepared = [field for field in self._fields if not _is_plain(field)]

    def columns(self, alias: str) -> str:
        """Return what a SELECT lists for a row of `alias`; `width` values, which `row` takes."""
        return ", ".join(f'{alias}."{field.column}"' for field in self._fields)

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
        values = {name: getattr(instance, name) for name in self._names}
        for field in self._prepared:
            values[field.attname] = field.get_db_prep_save(field.pre_save(instance, add=True), connection)
        given = [(field.column, values[field.attname]) for field in self._fields if not _is_left_open(values, field)]
        columns = ", ".join(f'"{column}"' for column, _value in given)
        places = ", ".join(["%s"] * len(given))
        statement = f"INSERT INTO {self._model._meta.db_table} ({columns}) VALUES ({places})"  # noqa: S608  our own names
        with connection.cursor() as cursor:
            cursor.execute(statement, [value for _column, value in given])
        instance._state.adding = False  # noqa: SLF001  as the ORM's own insert does


def _is_plain(field: "models.Field[Any, Any]") -> bool:
    is_stamped = getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False)
    return isinstance(field, _PLAIN) and not hasattr(field, "from_db_value") and not is_stamped


def _is_left_open(values: Mapping[str, Any], field: "models.Field[Any, Any]") -> bool:
    return isinstance(values[field.attname], DatabaseDefault)


class Joined:
    """Rows of several tables at once, each under an alias of the statement's."""

    def __init__(self, **tables: Table[Any]) -> None:
        self._tables = tables

    def select(self, rest: str) -> str:
        """Return the statement that reads whole rows of all; `rest` begins with FROM, or with what is read beside."""
        columns = ", ".join(table.columns(alias) for alias, table in self._tables.items())
        return f"SELECT {columns} {rest}"

    def row(self, values: Sequence[Any]) -> list[Any]:
        """Return the instances that a row stands for, None where an outer join found none, and what was read beside."""
        found: list[Any] = []
        at = 0
        for table in self._tables.values():
            part = values[at : at + table.width]
            at += table.width
            found.append(None if all(value is None for value in part) else table.row(part))
        return [*found, *values[at:]]


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
