"""Children: known by id and start time, started again, ended in order."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from saas.local.problem import StartError
from saas.local.processes import LOG_LIMIT, Record, Service, start, stop, tail, wait_until
from saas.local.supervisor import LONGEST_PAUSE, StopFlag, Stopped, Supervisor, lock


def python(name: str, source: str, folder: Path, *, patience: float = 5) -> Service:
    command = [sys.executable, "-u", "-c", textwrap.dedent(source)]
    return Service(name=name, command=command, log=folder / f"{name}.log", cwd=folder, patience=patience)


SLEEP = "print('up'); import time; time.sleep(100)"


def test_leftovers_are_ended_last_started_first(tmp_path: Path) -> None:
    first, second = python("first", SLEEP, tmp_path), python("second", SLEEP, tmp_path)
    record = Record(tmp_path / "children.json")
    children = [start(first), start(second)]
    for child, service in zip(children, (first, second), strict=True):
        record.add(child, service)

    assert Record(record.path).end_leftovers() == ["second", "first"]
    assert [psutil.pid_exists(child.pid) for child in children] == [False, False]
    assert [child.wait(5) is None for child in children] == [False, False]
    assert not record.path.exists()


def test_a_process_that_was_given_a_dead_ones_id_is_left_alone(tmp_path: Path) -> None:
    service = python("innocent", SLEEP, tmp_path)
    record = Record(tmp_path / "children.json")
    child = start(service)
    try:
        record.add(child, service)
        rows = json.loads(record.path.read_text())
        rows[0]["started"] -= 60
        record.path.write_text(json.dumps(rows))

        assert Record(record.path).end_leftovers() == []
        assert child.poll() is None
    finally:
        stop(child, service)


@pytest.mark.parametrize("content", ["", "{", "[1]", '[{"name": "x"}]', "{}"])
def test_a_broken_record_ends_nobody(tmp_path: Path, content: str) -> None:
    path = tmp_path / "children.json"
    path.write_text(content)

    assert Record(path).end_leftovers() == []


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    deaf = python(
        "deaf",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); time.sleep(100)",
        tmp_path,
        patience=0.2,
    )
    child = start(deaf)
    assert wait_until(lambda: tail(deaf.log) == "deaf", seconds=10)
    stop(child, deaf)

    assert child.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    source = f"""
        import sys, time
        from pathlib import Path
        from saas.local.processes import Service, start
        log = Path({str(tmp_path / "child.log")!r})
        child = start(Service(name="c", command=[sys.executable, "-c", "import time; time.sleep(100)"], log=log))
        print(child.pid, flush=True)
        time.sleep(100)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    with parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()

    assert wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, seconds=10)


def test_a_long_log_is_put_aside(tmp_path: Path) -> None:
    service = python("talker", "print('new')", tmp_path)
    service.log.write_bytes(b"x" * (LOG_LIMIT + 1))
    start(service).wait(10)

    assert (service.log.read_text(), (tmp_path / "talker.log.1").stat().st_size) == ("new\n", LOG_LIMIT + 1)


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(str(number) for number in range(5000)) + "\n")

    assert (tail(log, 2), tail(tmp_path / "none")) == ("4998\n4999", "")


class Notes(list[str]):
    """What the supervisor said."""

    def __call__(self, line: str) -> None:
        self.append(line)


def supervisor_in(folder: Path) -> tuple[Supervisor, StopFlag, Notes]:
    notes, flag = Notes(), StopFlag()
    return Supervisor(record=Record(folder / "children.json"), flag=flag, say=notes), flag, notes


def watch_until(supervisor: Supervisor, flag: StopFlag, log: Path, lines: int) -> None:
    """Watch until the service's log has so many lines."""

    def ask_to_end() -> None:
        wait_until(lambda: log.exists() and len(log.read_text().splitlines()) >= lines, seconds=30)
        flag.at = time.monotonic()

    asker = threading.Thread(target=ask_to_end)
    asker.start()
    with pytest.raises(Stopped):
        supervisor.watch()
    asker.join()


def test_a_child_that_dies_is_started_again_after_longer_and_longer_pauses(tmp_path: Path) -> None:
    supervisor, flag, notes = supervisor_in(tmp_path)
    service = python("weak", "print('alive'); raise SystemExit(3)", tmp_path)
    supervisor.run(service)
    watch_until(supervisor, flag, service.log, 3)
    supervisor.end()

    assert notes[:2] == [
        f"weak ended with code 3; starting it again in 1 s (see {service.log})",
        f"weak ended with code 3; starting it again in 2 s (see {service.log})",
    ]
    assert LONGEST_PAUSE == 30.0


def test_children_are_ended_last_started_first_and_forgotten(tmp_path: Path) -> None:
    supervisor, _flag, notes = supervisor_in(tmp_path)
    services = [python(name, SLEEP, tmp_path) for name in ("database", "web")]
    for service in services:
        supervisor.run(service)
    pids = [trace.pid for trace in supervisor.record.traces]
    supervisor.end()

    assert notes == ["stopping web", "stopping database"]
    assert [psutil.pid_exists(pid) for pid in pids] == [False, False]
    assert not supervisor.record.path.exists()


def test_a_service_that_dies_while_it_is_waited_for_is_one_sentence(tmp_path: Path) -> None:
    supervisor, _flag, _notes = supervisor_in(tmp_path)
    service = python("ill", "print('I cannot.'); raise SystemExit(4)", tmp_path)
    supervisor.run(service)

    with pytest.raises(StartError) as problem:
        supervisor.wait_for(service, lambda: False, seconds=30)
    assert str(problem.value) == f"ill ended with code 4; see {service.log}. Its last line: I cannot."


def test_a_service_that_never_answers_is_given_up(tmp_path: Path) -> None:
    supervisor, _flag, _notes = supervisor_in(tmp_path)
    service = python("mute", SLEEP, tmp_path)
    supervisor.run(service)
    try:
        with pytest.raises(StartError, match="mute did not answer within 0 seconds"):
            supervisor.wait_for(service, lambda: False, seconds=0.3)
    finally:
        supervisor.end()


def test_one_supervisor_for_one_data_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "lock"
    with lock(path):
        with pytest.raises(StartError) as problem:
            lock(path)
        assert str(problem.value) == (
            f"Banyan already runs on the data folder {tmp_path} (process {os.getpid()}); stop it first."
        )
    lock(path).close()
