"""The whole product as `make run` starts it: embedded servers, a real model, web, worker and beat."""

import contextlib
import json
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from saas.local.ports import free_port
from saas.tests.local_machine import Up, clean_environment, up

UNBALANCED = "SELECT transfer_id FROM billing_entry GROUP BY transfer_id HAVING sum(amount) <> 0"


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """Return the environment of a first start: an empty data folder that every user may enter, a free port."""
    folder = Path(tempfile.mkdtemp(prefix="banyan-stack-"))
    folder.chmod(0o711)
    yield clean_environment(BANYAN_VAR=str(folder / "var"), PORT=str(free_port()))
    shutil.rmtree(folder)


def paste(line: str) -> bytes:
    """Run a curl line of the screen as a shell would; return the body."""
    return subprocess.run(["sh", "-c", line], capture_output=True, check=True, timeout=120).stdout


def curl_lines(running: Up) -> list[str]:
    return [line for line in running.lines if line.startswith("curl ")]


def h5_text(body: bytes) -> str:
    """Return the text that a client of OpenAI's chunks puts together; the stream must have ended as it should."""
    events = body.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2] if event.startswith("data: ")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def mini_program_text(body: bytes) -> str:
    frames = body.decode().removesuffix("0\r\n\r\n").split("\r\n")
    assert body.endswith(b"0\r\n\r\n")
    assert frames[-1] == ""
    return "".join(json.loads(frame.removeprefix("success: "))["content"] for frame in frames[:-1])


def database(environment: dict[str, str]) -> psycopg.Connection:
    """Connect to the embedded database as `manage.py` commands do: by the file that the launcher wrote."""
    lines = (Path(environment["BANYAN_VAR"]) / "local.env").read_text().splitlines()
    values = dict(line.split("=", maxsplit=1) for line in lines if not line.startswith("#"))
    return psycopg.connect(values["DATABASE_URL"].strip("'"))


def rows(environment: dict[str, str], query: str) -> list[tuple[object, ...]]:
    with database(environment) as connection:
        return connection.execute(query.encode()).fetchall()


def processes_of(environment: dict[str, str]) -> list[str]:
    """Return the command lines of all processes that work on this data folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if process.environ().get("BANYAN_VAR") == environment["BANYAN_VAR"]:
                found.append(" ".join(process.info["cmdline"] or []))
    return found


def wait_for_usage(environment: dict[str, str], expected: int) -> list[tuple[object, ...]]:
    """Return the usage records, as soon as Celery has written so many."""
    end = time.monotonic() + 60
    query = "SELECT hold_id, charge FROM billing_usagerecord ORDER BY hold_id"
    while len(found := rows(environment, query)) < expected and time.monotonic() < end:
        time.sleep(0.2)
    return found


def test_the_pasted_lines_answer_alike_and_are_paid_for_and_everything_ends(environment: dict[str, str]) -> None:
    with up(environment) as running:
        h5_line, mini_program_line = curl_lines(running)
        first, second = h5_text(paste(h5_line)), mini_program_text(paste(mini_program_line))
        held = rows(environment, "SELECT id, state, free, charge FROM billing_hold ORDER BY id")
        usage = wait_for_usage(environment, 2)
        unbalanced = rows(environment, UNBALANCED)
        spent = rows(
            environment,
            "SELECT 20000000 - posted, pending FROM billing_account JOIN tenants_enduser u ON u.id = user_id "
            "JOIN tenants_tenant t ON t.id = u.tenant_id "
            "WHERE kind = 'user_cash' AND u.username = 'alice' AND t.slug = 'aurora'",
        )
        code = running.end()

    assert len(first) > 20
    assert second == first
    assert [(state, free) for _id, state, free, _charge in held] == [("posted", False), ("posted", False)]
    assert usage == [(id_, charge) for id_, _state, _free, charge in held]
    assert unbalanced == []
    assert spent == [(sum(int(str(charge)) for _id, _state, _free, charge in held), 0)]
    assert (code, processes_of(environment)) == (0, [])


def test_after_a_killed_supervisor_the_next_start_runs_and_has_the_data(environment: dict[str, str]) -> None:
    secrets = Path(environment["BANYAN_VAR"]) / "secrets"
    with up(environment) as running:
        keys = {path.name: path.read_bytes() for path in secrets.iterdir()}
        pasted = h5_text(paste(curl_lines(running)[0]))
        before = rows(environment, "SELECT id, state FROM billing_hold ORDER BY id")
        line = curl_lines(running)[0]
        running.process.kill()
        running.process.wait()
    with up(environment) as again:
        kept = rows(environment, "SELECT id, state FROM billing_hold ORDER BY id")
        lines = [shlex.split(one) for one in (line, curl_lines(again)[0])]
        answered = h5_text(paste(line))

    assert {"secret_key", "encryption_keys", "postgres_password", "staff_admin"} <= set(keys)
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == keys
    assert {path.stat().st_mode & 0o777 for path in secrets.iterdir()} == {0o600}
    assert kept == before
    assert lines[0] == lines[1]
    assert answered == pasted
    assert processes_of(environment) == []


def test_a_child_that_is_killed_comes_back_and_a_second_supervisor_stays_out(environment: dict[str, str]) -> None:
    with up(environment) as running:
        second = Up({**environment, "PORT": str(free_port())})
        said = second.wait_for("Banyan")
        web = next(child for child in running.children() if "uvicorn" in " ".join(child.cmdline()))
        web.kill()
        noticed = running.wait_for("web ended with code -9")
        answer = answer_after_restart(curl_lines(running)[0])
        code = running.end(signal.SIGTERM)

    var = environment["BANYAN_VAR"]
    assert (second.process.wait(10), said) == (
        1,
        f"Banyan already runs on the data folder {var} (process {running.process.pid}); stop it first.",
    )
    assert noticed == f"web ended with code -9; starting it again in 1 s (see {var}/log/web.log)"
    assert len(answer) > 20
    assert (code, processes_of(environment)) == (0, [])


def answer_after_restart(line: str) -> str:
    """Paste the line until the web process listens again."""
    end = time.monotonic() + 60
    while True:
        try:
            return h5_text(paste(line))
        except subprocess.CalledProcessError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
