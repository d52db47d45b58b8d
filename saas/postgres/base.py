"""The database backend (`DATABASES["default"]["ENGINE"]`).

Django's own check of a pooled connection asks the server before each use: a round trip, twice in each chat. A server
that ended a connection has said so on its socket, where a look costs nothing. What a look cannot tell is a connection
that a firewall has forgotten without a word: one that was not used for a while is asked.
"""

import select
import time
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from django.db.backends.postgresql import base
from psycopg_pool import ConnectionPool

# How long an unused connection is believed to be there still, seconds. Firewalls forget after a minute at the earliest.
BELIEVED_SECONDS = 15.0

_used: WeakKeyDictionary[psycopg.Connection[Any], float] = WeakKeyDictionary()


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's, with a cheaper check."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Return a connection that is there; those of the pool that are gone are replaced."""
        connection = super().get_new_connection(conn_params)
        while self.pool and is_gone(connection):
            connection.close()
            self.pool.putconn(connection)  # which makes another in its place
            connection = super().get_new_connection(conn_params)
        return connection

    def _configure_connection(self, connection: Any) -> bool:
        # The pool's, of one that it has just made: that is there.
        _used[connection] = time.monotonic()
        return bool(super()._configure_connection(connection))  # type: ignore[misc]  # the stubs leave it out

    def _close(self) -> None:
        if self.pool and self.connection is not None:
            _used[self.connection] = time.monotonic()
        super()._close()  # type: ignore[misc]  # the stubs leave it out


def is_gone(connection: psycopg.Connection[Any]) -> bool:
    """Return whether a connection that nobody is using is of no use any more."""
    if connection.closed:
        return True
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    last_used = _used.get(connection)
    if not waiting.poll(0) and last_used is not None and time.monotonic() < last_used + BELIEVED_SECONDS:
        return False
    # Something came unasked, mostly the news of its end; or it was long ago.
    try:
        ConnectionPool.check_connection(connection)
    except psycopg.Error:
        return True
    return False
