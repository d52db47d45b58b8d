"""Connections of the pool: the dead ones are replaced, the others are not asked."""

from collections.abc import Iterator

import psycopg
import pytest
from django.db import connection
from psycopg_pool import ConnectionPool

from saas.postgres import base
from tests.servers import database_url_of_this_test


@pytest.fixture
def pooled(committed_db: None) -> Iterator[None]:
    """Begin and end with a pool that nothing is left in."""
    connection.close()
    connection.close_pool()  # type: ignore[attr-defined]  # PostgreSQL's
    yield
    connection.close()


def process_id() -> int:
    """Return which server process answers."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def end_from_outside(server_process: int) -> None:
    """End a connection as a restart of the server does."""
    with psycopg.connect(database_url_of_this_test(), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [server_process])


@pytest.mark.usefixtures("pooled")
def test_a_pooled_connection_is_used_again_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    first = process_id()
    connection.close()
    asked: list[object] = []
    monkeypatch.setattr(ConnectionPool, "check_connection", asked.append)
    assert process_id() == first
    assert asked == []


@pytest.mark.usefixtures("pooled")
def test_one_that_was_just_made_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(ConnectionPool, "check_connection", asked.append)
    assert process_id() > 0
    assert asked == []


@pytest.mark.usefixtures("pooled")
def test_a_connection_that_its_server_ended_is_replaced() -> None:
    first = process_id()
    connection.close()
    end_from_outside(first)
    assert process_id() != first


@pytest.mark.usefixtures("pooled")
def test_one_that_was_long_unused_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    first = process_id()
    connection.close()
    monkeypatch.setattr(base, "BELIEVED_SECONDS", -1.0)
    asked: list[object] = []
    monkeypatch.setattr(ConnectionPool, "check_connection", asked.append)
    assert process_id() == first
    assert len(asked) == 1
