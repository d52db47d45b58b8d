"""A model's table for SQL written by hand: what every chat runs. The ORM serves everything else.

The ORM builds each statement anew, at several times what the database's own answer costs. Here a statement is a
constant; only the columns' names come from the model, so that a new column is read and written by being there. A
statement names its tenant itself: nothing here adds a scope to it, but no row of another tenant is written.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

from django.db import connection, models
from django.db.models.expressions import DatabaseDefault
from psycopg.pq import TransactionStatus

from tenants import scope
from tenants.scope import TenantOwned

ModelT = TypeVar("ModelT", bound=TenantOwned)
Found = TypeVar("Found")


_ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(hashtext(%(what)s), %(key)s)"
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

    def first(self, rows: Sequence[Sequence[Any]]) -> ModelT | None:
        """Return the first row's instance, None where there is none."""
        return self.row(rows[0]) if rows else None

    def row(self, values: Sequence[Any]) -> ModelT:
        """Return the instance that a row's values stand for."""
        if self._converters:
            values = list(values)
            for place, convert in self._converters:
                values[place] = convert(values[place], None, connection)
        return self._model.from_db(connection.alias, self._names, values)

    def insertion(self, instance: ModelT, **worked_out: str) -> "Statement":
        """Return the statement that inserts an instance whose key is set; the database's defaults fill what is open.

        `worked_out`: SQL for columns that the database is to work out, which may name the instance's values.
        """
        scope.require_owner(instance.tenant_id)
        values = {name: getattr(instance, name) for name in self._names}
        for field in self._prepared:
            values[field.attname] = field.get_db_prep_save(field.pre_save(instance, add=True), connection)
        given = [field for field in self._fields if not isinstance(values[field.attname], DatabaseDefault)]
        columns = ", ".join(f'"{field.column}"' for field in given)
        places = ", ".join(worked_out.get(field.attname, f"%({field.attname})s") for field in given)
        instance._state.adding = False  # noqa: SLF001  as the ORM's own insert does
        return Statement(f"INSERT INTO {self._model._meta.db_table} ({columns}) VALUES ({places})", values)  # noqa: S608  our own names


def _is_plain(field: "models.Field[Any, Any]") -> bool:
    is_stamped = getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False)
    return isinstance(field, _PLAIN) and not hasattr(field, "from_db_value") and not is_stamped


class Joined:
    """Rows of several tables at once, each under an alias of the statement's."""

    def __init__(self, **tables: Table[Any]) -> None:
        self._tables = tables

    def select(self, rest: str) -> str:
        """Return the statement that reads whole rows of all; `rest` begins with FROM, or with what is read beside."""
        columns = ", ".join(table.columns(alias) for alias, table in self._tables.items())
        return f"SELECT {columns} {rest}"

    def first(self, rows: Sequence[Sequence[Any]]) -> list[Any] | None:
        """Return what the first row stands for, None where there is none."""
        return self.row(rows[0]) if rows else None

    def row(self, values: Sequence[Any]) -> list[Any]:
        """Return the instances that a row stands for, None where an outer join found none, and what was read beside."""
        found: list[Any] = []
        at = 0
        for table in self._tables.values():
            part = values[at : at + table.width]
            at += table.width
            found.append(None if all(value is None for value in part) else table.row(part))
        return [*found, *values[at:]]


class Statement(NamedTuple):
    """What is to be run, and the values of its %(named)s places."""

    text: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Query(Generic[Found]):
    """A SELECT, and how its rows are read."""

    text: str
    values: Mapping[str, Any]
    read: Callable[[list[Any]], Found]


class Planned(NamedTuple):
    """Statements that others may send with theirs, and what must come of them: `check` raises where it does not."""

    statements: Sequence[Statement]
    check: Callable[[Sequence[int]], None]


def carry_out(*plans: Planned) -> None:
    """Run what is planned, all by one round trip, then check it, one after the other. In a transaction."""
    counts = run_all([statement for plan in plans for statement in plan.statements])
    at = 0
    for plan in plans:
        plan.check(counts[at : at + len(plan.statements)])
        at += len(plan.statements)


def run(statement: str, values: Mapping[str, Any]) -> int:
    """Run a statement; return how many rows it changed."""
    return run_all([Statement(statement, values)])[0]


def run_all(statements: Sequence[Statement]) -> list[int]:
    """Run statements, one after the other, by one round trip; return how many rows each changed.

    All of them run, whatever the counts are: the caller, in a transaction, looks at them and raises.
    """
    return send(statements)[0]


def fetch(query: Query[Found]) -> Found:
    """Return what a query finds."""
    found: Found
    [found] = fetch_all(query)
    return found


def fetch_all(*queries: Query[Any]) -> list[Any]:
    """Return what each query finds, by one round trip. Each sees what was committed when its turn came."""
    return send([], queries)[1]


def one_at_a_time(what: str, key: int) -> Query[list[Any]]:
    """Return the query that waits until no other transaction does `what` for the row `key`; held until the commit.

    What is to see the others' writes goes in a statement behind it, which may be of the same round trip.
    """
    return Query(_ONE_AT_A_TIME, {"what": what, "key": key % 2**31}, list)


def send(statements: Sequence[Statement], queries: Sequence[Query[Any]] = ()) -> tuple[list[int], list[Any]]:
    """Run statements, then queries, by one round trip; return what `run_all` and `fetch_all` do.

    The server takes them as one command, since the values are bound here, as Django does.
    """
    asked: list[Statement | Query[Any]] = [*statements, *queries]
    if not asked:
        return [], []
    with _begun() as begin, connection.cursor() as cursor:
        # Each is bound by itself: psycopg remembers how a statement is taken apart, but not that of a long one.
        cursor.execute(";".join([*begin, *(cursor.mogrify(each.text, each.values) for each in asked)]))
        for _ in begin:
            cursor.nextset()
        counts = [_and_next(cursor, int(cursor.rowcount)) for _ in statements]
        rows = [_and_next(cursor, cursor.fetchall()) for _ in queries]
    return counts, [query.read(found) for query, found in zip(queries, rows, strict=True)]


def _and_next(cursor: Any, found: Found) -> Found:
    """Return what was read of a result, and go on to the next one."""
    cursor.nextset()
    return found


@contextmanager
def _begun() -> Iterator[list[str]]:
    """Yield what must be sent first: a transaction's BEGIN, where Django has opened one that nothing was sent in yet.

    psycopg sends BEGIN before a transaction's first statement, and waits for its answer: a round trip for nothing. It
    does not for a connection in autocommit, which is in a transaction all the same once a BEGIN was run; commit and
    rollback, by the server's state, are the same for both.
    """
    connection.ensure_connection()
    psycopg_s = connection.connection
    if psycopg_s.autocommit or psycopg_s.info.transaction_status != TransactionStatus.IDLE:
        yield []
        return
    psycopg_s.autocommit = True
    try:
        yield ["BEGIN"]
    finally:
        # What failed before it began, is not in a transaction: what follows would be committed by itself.
        if psycopg_s.info.transaction_status == TransactionStatus.IDLE:
            psycopg_s.autocommit = False
